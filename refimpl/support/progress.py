"""What a person sees while something takes long: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from refimpl.support.text import duration

# Seconds from one line to the next: a person waits, or a file is filled.
WATCHED, UNWATCHED = 5.0, 30.0


def on_terminal() -> bool:
    """Return whether a person watches: stderr is a terminal, or run_mpi.sh's was one.

    Under mpiexec a rank's stderr is a pipe; run_mpi.sh looks before and sets REFIMPL_TERMINAL.
    """
    return sys.stderr.isatty() or os.environ.get("REFIMPL_TERMINAL") == "1"


class Progress:
    """How far something is, on stderr: one thing after the other, by its title.

    A bar if tqdm is installed and stderr is a terminal, else a line every so many seconds; what is
    over before the first of them says nothing.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._every = clock, WATCHED if on_terminal() else UNWATCHED
        self._title, self._begun, self._told = "", 0.0, 0.0
        self._bar: Any = None

    def at(self, title: str, done: int, total: int) -> None:
        """Say, if it is time, that so many of its parts are done; all of them: it is over."""
        now = self._clock()
        if title != self._title:
            self.close()
            self._title, self._begun, self._told = title, now, now
            self._bar = _bar(title, total) if on_terminal() else None
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif now - self._told >= self._every and done < total:
            self._told = now
            with suppress(OSError):  # whoever listens there may have gone
                text = f"{title}: {done:,} of {total:,}, {duration(now - self._begun)}"
                print(text, file=sys.stderr, flush=True)
        if done >= total:
            self.close()

    def close(self) -> None:
        """Take the bar away; the next title begins anew."""
        if self._bar is not None:
            self._bar.close()
        self._title, self._bar = "", None


def _bar(title: str, total: int) -> Any:
    """Return tqdm's bar, None if it is not installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm(total=total, desc=title, leave=False)
