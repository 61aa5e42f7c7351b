"""How a run is watched while it trains: replicas that drift, ranks that hang, or are killed.

Nothing of it changes what is computed, and what was not asked for costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from refimpl.nn.flat import Layout
from refimpl.run.patience import Patience
from refimpl.run.place import place
from refimpl.state.drift import Comparison
from refimpl.state.tree import Tree
from refimpl.support.errors import require, require_types
from refimpl.world.groups import Groups


@dataclass(frozen=True)
class Care:
    """What is watched; a run keeps it when it is resumed.

    ``check_every``: steps from one comparison of the replicas to the next, 0 for none.
    ``patience``: seconds that a rank may wait for a message, 0 for any number.
    """

    check_every: int = 0
    patience: float = 0.0

    def __post_init__(self) -> None:
        require_types(self, "care's")
        require(self.check_every >= 0, f"--check-every {self.check_every}: give 0 or more")
        require(0 <= self.patience < 1e9, f"--patience {self.patience:g}: give seconds, 0 or more")


class Watcher:
    """Watches one run, inside its ``with`` block.  What is called is collective.

    Parameters
    ----------
    care : Care
        What is watched.
    groups, layout : Groups, Layout
        The run's.
    step : int
        Steps that were taken before.
    folder : Path
        The run's, the same on all ranks.
    end : callable
        Ends a job that hangs: it is given the text to say.
    saves : bool
        Whether the run has checkpoints to go on from.
    """

    def __init__(
        self,
        care: Care,
        groups: Groups,
        layout: Layout,
        step: int,
        folder: Path,
        end: Callable[[str], None],
        saves: bool = False,
    ) -> None:
        self.care, self.groups, self.layout, self.step = care, groups, layout, step
        self.folder, self.end, self.saves = folder, end, saves
        self.comparison = Comparison()
        self._inside = ExitStack()

    def __enter__(self) -> Watcher:
        comm = self.groups.world
        with ExitStack() as stack:
            stack.enter_context(comm.events.listen(place(self.step, self.folder, self.saves)))
            if self.care.patience:
                patience = Patience(comm, self.care.patience, self.folder, self.end, self.step)
                stack.enter_context(patience)
            self._inside = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._inside.close()

    def after(self, step: int, state: Callable[[], Tree]) -> None:
        """Compare the replicas if it is time, after so many steps."""
        if self.care.check_every and step % self.care.check_every == 0:
            self.comparison.compare(self.groups, self.layout, state(), step)
