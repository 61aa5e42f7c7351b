"""When a run saves itself, and that it can be stopped: checkpoints beside training.

A checkpoint is taken between two steps: every rank copies its own part of the state and goes on,
while a thread of its own writes the copy (`refimpl.state.checkpoint`).  Once all parts are on
their disks, rank 0 completes it with the manifest.  Where that fails, the run goes on or ends, as
asked, and the checkpoints before it stay.

What ranks tell each other here is control traffic, a few words several times a second at most
(`Watch`), which the ledger does not count: a run that saves itself sends what another sends.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from refimpl.nn.flat import Layout
from refimpl.state import checkpoint, tree
from refimpl.state.tree import Tree
from refimpl.support.errors import Stopped, UserError, failure, require, require_types
from refimpl.tasks.protocol import Say
from refimpl.world.communicator import Communicator
from refimpl.world.topology import Grid

CHECKPOINTS = "checkpoints"
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
PAUSE = 0.25  # seconds from one question to the next, about


@dataclass(frozen=True)
class Habits:
    """How a run saves itself; it keeps them when it is resumed.

    ``steps``, ``seconds``: from one checkpoint to the next; one of them, or neither for none.
    ``keep``: how many are kept.  ``background``: they are written while training goes on, and a
    rank holds one copy of its part meanwhile.  ``end``: a checkpoint that cannot be written ends
    the run.
    """

    steps: int | None = None
    seconds: float | None = None
    keep: int = 2
    background: bool = True
    end: bool = False

    def __post_init__(self) -> None:
        require_types(self, "checkpoints'")
        require(
            self.steps is None or self.steps > 0,
            f"checkpoints' steps is {self.steps}: give 1 or more",
        )
        late = self.seconds is None or self.seconds > 0
        require(late, f"checkpoints' seconds is {self.seconds}: give more than 0")
        require(self.keep > 0, f"checkpoints' keep is {self.keep}: give 1 or more")

    @property
    def any(self) -> bool:
        """Whether there are checkpoints at all."""
        return self.steps is not None or self.seconds is not None


class Word(NamedTuple):
    """What a rank has to say: the signal it was sent (0: none), whether its time for a checkpoint
    has come, whether its part is written, and seconds per step."""

    signal: int
    due: bool
    written: bool
    pace: float


class Watch:
    """Asks all ranks between some steps, about every `PAUSE` seconds, the same steps on all."""

    def __init__(self, comm: Communicator) -> None:
        self.comm, self.signal = comm, 0
        self.next, self._asked, self._since = 0, 0, time.monotonic()
        self._handlers: dict[int, Any] = {}

    def listen(self) -> None:
        """Take note of signals instead of dying of them, where this thread may."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._handlers[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.signal = number

    def close(self) -> None:
        """Let signals be what they were."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers = {}

    def ask(self, step: int, due: bool, written: bool) -> list[Word]:
        """Return every rank's word, and agree on when to ask again.  Collective."""
        now = time.monotonic()
        pace = (now - self._since) / max(1, step - self._asked)
        words: list[Word] = self.comm.allgather_object(Word(self.signal, due, written, pace))
        slowest = max(word.pace for word in words)
        self._asked, self._since = step, now
        self.next = step + max(1, min(int(PAUSE / max(slowest, 1e-9)), 10_000))
        return words


class Checkpoints:
    """The checkpoints of one run.  A context manager; what says so is collective.

    Parameters
    ----------
    folder : Path
        The run's.
    head : dict
        The run and its grid, for manifests: plain data.
    habits : Habits
        When, how many, how.
    """

    def __init__(
        self,
        comm: Communicator,
        grid: Grid,
        layout: Layout,
        folder: Path,
        head: dict[str, Any],
        habits: Habits,
        say: Say,
    ) -> None:
        self.comm, self.place, self.layout = comm, grid.place(comm.rank), layout
        self.folder, self.run, self.head, self.habits = folder / CHECKPOINTS, folder, head, habits
        self.say, self.watch = say, Watch(comm)
        self.saved: int | None = None  # the step of the newest, complete or under way
        self._last = time.monotonic()
        self._thread: threading.Thread | None = None
        self._outcome: checkpoint.Part | str | None = None
        self._pending = False  # the same on all ranks

    def __enter__(self) -> Checkpoints:
        self.watch.listen()
        return self

    def __exit__(self, *error: object) -> None:
        self.watch.close()
        if self._thread is not None:
            self._thread.join()

    def between(self, step: int, state: Callable[[], Tree]) -> None:
        """Save the run if it is time; end it if a rank was sent a signal.  Collective.

        Raises
        ------
        Stopped
            After a signal, once a checkpoint is complete.
        UserError
            If a checkpoint cannot be written and that is to end the run, or a signal does.
        """
        habits, stop = self.habits, 0
        due = habits.steps is not None and step % habits.steps == 0
        if step >= self.watch.next:
            late = habits.seconds is not None and time.monotonic() - self._last >= habits.seconds
            written = self._thread is None or not self._thread.is_alive()
            words = self.watch.ask(step, late, written)
            if self._pending and all(word.written for word in words):
                self.settle()
            due = due or words[0].due
            stop = next((word.signal for word in words if word.signal), 0)
        if due or stop:
            self.save(step, state)
        if stop:
            self.settle()
            said = f"stopped by {signal.Signals(stop).name} after step {step}"
            go_on = f"refimpl train --resume {self.run}"
            if self.saved == step:
                raise Stopped(f"{said}; go on with: {go_on}")
            newest = self.comm.bcast_object(checkpoint.steps(self.folder)[-1:], root=0)
            back = f"goes back to step {newest[0][0]}" if newest else "begins anew"
            raise UserError(f"{said}, which is not saved: see to the disk; {go_on} {back}")

    def save(self, step: int, state: Callable[[], Tree]) -> None:
        """Begin a checkpoint, unless there is one of this step; the one before is settled first.

        Collective.
        """
        self.settle()
        if step == self.saved:
            return
        self.saved, self._last, self._pending = step, time.monotonic(), True
        part = tree.copied(checkpoint.own_part(state(), self.place))
        self._outcome = None
        if self.habits.background:
            self._thread = threading.Thread(target=self._write, args=(part,), daemon=True)
            self._thread.start()
        else:
            self._write(part)
            self.settle()

    def _write(self, part: Tree) -> None:
        """Write this rank's part, and keep what came of it."""
        try:
            folder = checkpoint.folder_of(self.folder, self.saved or 0)
            self._outcome = checkpoint.write_part(folder, self.comm.rank, self.place, part)
        except (UserError, OSError) as error:
            self._outcome = failure(error)

    def settle(self) -> None:
        """Complete the checkpoint that is under way, if one is.  Collective."""
        if not self._pending:
            return
        if self._thread is not None:
            self._thread.join()
        self._thread, self._pending = None, False
        outcomes = self.comm.allgather_object(self._outcome)
        wrong = next((one for one in outcomes if not isinstance(one, tuple)), None)
        step = self.saved or 0
        if wrong is None:
            wrong = self.comm.bcast_object(self._complete(step, outcomes), root=0)
        if wrong is None:
            return
        self.saved = None
        text = f"no checkpoint after step {step}: {wrong}"
        if self.habits.end:
            raise UserError(text)
        self.say(f"warning: {text}; the run goes on, older checkpoints stay")

    def _complete(self, step: int, parts: list[Any]) -> str | None:
        """Let rank 0 write the manifest and remove old checkpoints; return what went wrong.

        An old one that cannot be removed is said, and takes nothing from the new one.
        """
        if self.comm.rank != 0:
            return None
        head = {"step": step, **self.head}
        try:
            checkpoint.complete(checkpoint.folder_of(self.folder, step), head, self.layout, parts)
        except (UserError, OSError) as error:
            return failure(error)
        for _, old in checkpoint.steps(self.folder)[: -self.habits.keep]:
            try:
                checkpoint.remove(old)
            except OSError as error:
                self.say(f"warning: old checkpoint {old} cannot be removed: {failure(error)}")
        return None


def clear(folder: Path) -> None:
    """Remove what was left of checkpoints that were never completed."""
    from shutil import rmtree

    for path in (folder / CHECKPOINTS).glob("step-*"):
        if not (path / checkpoint.MANIFEST).exists():
            with suppress(OSError):
                rmtree(path)
