"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
from typing import Any


def on_terminal() -> bool:
    """Return whether a person watches: stderr is a terminal, or run_mpi.sh's was one.

    Under mpiexec a rank's stderr is a pipe; run_mpi.sh looks before and sets REFIMPL_TERMINAL.
    """
    return sys.stderr.isatty() or os.environ.get("REFIMPL_TERMINAL") == "1"


class Progress:
    """Steps of one epoch.  Silent on every rank but the first.

    A bar if tqdm is installed and stderr is a terminal, otherwise nothing but the lines that the
    trainer prints at the end of each epoch.
    """

    def __init__(self, steps: int, title: str, *, shown: bool) -> None:
        self._bar: Any = None
        if shown and on_terminal():
            try:
                from tqdm import tqdm
            except ModuleNotFoundError:
                return
            self._bar = tqdm(total=steps, desc=title, unit="step", leave=False)

    def advance(self) -> None:
        """One step is done."""
        if self._bar is not None:
            self._bar.update()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
