"""A run that goes on without the ranks that have died: ``train --on-failure continue``.

An *era* is the time between two deaths.  All that live go through the same loop::

    train                 until the end, or until an error says that somebody has died
    revoke                so that nobody waits for one that has left its place
    agree                 was that the end?  The same answer on all, whoever dies meanwhile
    shrink                the living, in a communicator of their own
    go on                 from the last moment that all had reached (`refimpl.state.live`), on the
                          most ranks that can share a step: as `Job.open` goes on from a disk

A death while they do so is a death like any other: the loop begins again.  Who has no part in the
new grid waits in `agree`, and may have one after the next death.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from refimpl.run.folder import CONFIG
from refimpl.run.ready import Carried
from refimpl.run.resume import Job, most_ranks, shared
from refimpl.run.saving import CHECKPOINTS, Checkpoints, clear
from refimpl.state import checkpoint
from refimpl.state.checkpoint import Checkpoint, Saved
from refimpl.state.live import Live
from refimpl.support.errors import Lost, UserError, listed
from refimpl.tasks.protocol import Say
from refimpl.world.agree import named, together
from refimpl.world.communicator import Communicator
from refimpl.world.mortal import Mortals
from refimpl.world.topology import Grid, Nodes


class Survivors:
    """The ranks of a job of which some may die.

    Attributes
    ----------
    ranks : Mortals
        Those that live.
    comm : Communicator or None
        Those that train, if this rank is one of them; all that live, while they find out.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.ranks, self.carried = job, Mortals.of(job.comm), Carried()
        self.comm: Communicator | None = job.comm
        self.names = list(range(job.comm.size))  # the ranks as they were in the beginning
        self.dead: list[int] = []  # of the last era
        self.grid = job.run.grid(job.comm.size)
        self.batches = self.grid.micro_batches(job.run.recipe.microsteps)

    def train(
        self,
        say: Say,
        saving: type[Checkpoints] = Checkpoints,
        hung: Callable[[str], None] = print,
    ) -> dict[str, Any] | None:
        """Train to the end; return the summary, or None on a rank that had no part in it.

        Raises `Lost` if what was lost is nowhere else; that and any other `UserError` on all that
        live.  Collective.
        """
        while True:
            outcome: dict[str, Any] | UserError | None = None
            death: Exception | None = None
            try:
                now = self._regrouped(say) if self.dead else self.job
                self.comm = None if now is None else now.comm
                if now is not None:
                    outcome = now.train(say, saving, hung, self.carried)
            except UserError as error:
                outcome = error
            except Exception as error:
                if not self.ranks.failed(error):
                    raise
                self.ranks.revoke()
                death = error
            if self.ranks.agree(death is None):
                break
            self._shrink()
            if not self.dead:
                raise death or AssertionError("others failed, and all ranks live")
        return self._common(outcome)

    def _common(self, outcome: dict[str, Any] | UserError | None) -> dict[str, Any] | None:
        """Return the outcome, or raise the error of any rank on all of them.  Collective."""
        error = outcome if isinstance(outcome, UserError) else None
        try:
            errors = self.ranks.comm.allgather_object(error)
            error = next((one for one in errors if one is not None), None)
        except Exception as death:  # it is over
            if not self.ranks.failed(death):
                raise
            self.ranks.revoke()
        if error is not None:
            raise error
        assert not isinstance(outcome, UserError)
        return outcome

    def _shrink(self) -> None:
        before = self.names
        self.ranks, living = self.ranks.shrunk()
        self.names = [before[rank] for rank in living]
        self.dead = [name for name in before if name not in self.names]
        self.comm = self.ranks.comm
        self.carried.keeper.next_era()

    def _regrouped(self, say: Say) -> Job | None:
        """Return the job as it goes on, on some of the living; None on the others.  Collective."""
        job, comm = self.job, self.ranks.comm
        live = Live.found(comm, self.carried.keeper)
        size = most_ranks(job.run, self.grid, self.batches, comm.size)
        if size is None:
            raise Lost(
                f"{self._died()}: the micro-batches of a step, {self.batches}, cannot be shared "
                f"by {comm.size} ranks or fewer with --strategy {job.run.strategy}"
            )
        chosen = self._chosen(size, live)
        run = shared(job.run, self.batches, size)
        saved: Saved | None = job.saved
        if live is not None and not live.missing:
            self._send(live, run.grid(size), chosen)
            saved = live
        elif live is not None:
            saved = self._from_disk(live)
        part = self.ranks.part(chosen)
        if part is None:
            return None
        begun = part.bcast_object((job.path / CONFIG).exists())
        if begun:
            self._clear(part, saved)
        if part.rank == 0:
            for line in self._told(live, saved, run.grid(size), run.recipe.microsteps):
                say(line)
        return replace(job, comm=part, run=run, saved=saved, resumed=begun)

    def _chosen(self, size: int, live: Live | None) -> list[int]:
        """Return who goes on: of whole blocks and workers first, so that these stay together."""
        comm, places = self.ranks.comm, live.places if live else [None] * self.ranks.comm.size
        there = [place for place in places if place is not None]

        def broken(rank: int) -> tuple[int, int, int]:
            place = places[rank]
            if place is None or live is None:
                return 2, 2, rank
            block = [one for one in there if one.block == place.block]
            worker = [one for one in block if one.member == place.member]
            grid = live.grid
            whole = grid.gradient * grid.partition
            return int(len(block) < whole), int(len(worker) < grid.partition), rank

        chosen = sorted(sorted(range(comm.size), key=broken)[:size])
        if self.job.run.map == "by-node":
            order = Nodes(tuple(comm.nodes[rank] for rank in chosen)).order()
            chosen = [chosen[rank] for rank in order]
        return chosen

    def _send(self, live: Live, grid: Grid, chosen: list[int]) -> None:
        """Bring to those that go on what they need of each other."""
        comm, wishes = self.ranks.comm, []
        try:
            with together(comm):
                if comm.rank in chosen:
                    wishes = live.wishes(grid, chosen.index(comm.rank))
        except UserError as error:
            raise Lost(f"{self._died()}: {error}") from error
        live.send(wishes)

    def _from_disk(self, live: Live) -> Checkpoint:
        """Return the newest checkpoint: what is missing is nowhere else."""
        comm, found = self.ranks.comm, None
        if comm.rank == 0:
            found = [path for _, path in checkpoint.steps(self.job.path / CHECKPOINTS)][-1:]
        found = comm.bcast_object(found)
        if not found:
            raise Lost(
                f"{self._died()}: {_missing(live)}, and there is no checkpoint: start again, with "
                "--checkpoint-every"
            )
        with together(comm):
            return Checkpoint(found[0])

    def _clear(self, part: Communicator, saved: Saved | None) -> None:
        """Remove what is no checkpoint, and those of steps that will be taken again."""
        with together(part):
            if part.rank == 0:
                clear(self.job.path)
                for step, path in checkpoint.steps(self.job.path / CHECKPOINTS):
                    if step > (saved.step if saved else 0):
                        checkpoint.remove(path)

    def _died(self) -> str:
        return f"{named(self.dead)} died"

    def _told(self, live: Live | None, saved: Saved | None, grid: Grid, micro: int) -> list[str]:
        """Return what there is to say of a death and of what follows from it."""
        spare = self.ranks.comm.size - grid.world
        lines = [
            f"{self._died()}: going on after step {saved.step if saved else 0} with "
            f"{grid.sentence()}, {micro} micro-step{'s' * (micro > 1)} each"
            + (f"; {spare} more wait{'s' * (spare == 1)}" if spare else "")
        ]
        if live is not None and saved is not live:
            lines.append(f"{_missing(live)}: from a checkpoint")
        elif live is not None and live.owed:
            owed = [key for key in live.owed if "/saved/" not in key[0]]
            heads = [live.arrays[key] for key in owed]
            numbers = sum(math.prod(head["shape"]) for head in heads)
            norm = math.sqrt(sum(head["norm"] ** 2 for head in heads))
            names = listed({name for name, _ in owed})
            lines.append(f"lost: {names} of the dead, {numbers:,} numbers of norm {norm:.3g}")
        return lines


def _missing(live: Live) -> str:
    name, place = live.missing[-1]
    return f"nobody else holds shard {place.shard} of {name}"
