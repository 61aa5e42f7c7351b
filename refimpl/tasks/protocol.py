"""What the trainer asks of a task: examples, targets that may improve, scores, two kinds of state.

The trainer gives ``outputs(examples, index) -> logits``.  It is collective: every rank calls it
equally often, with an empty index where it has nothing left.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from refimpl.world.communicator import Communicator

Say = Callable[[str], None]
"""Shows a line to the user, on rank 0 only."""


class Examples(Protocol):
    """Labelled examples, addressed by number."""

    count: int
    inputs: int
    labels: NDArray[np.int64]

    def take(self, index: NDArray[np.int64], x: np.ndarray, y: NDArray[np.int64]) -> None:
        """Fill x (B, inputs) and y (B,) with examples index (B,)."""


Outputs = Callable[[Any, NDArray[np.int64]], np.ndarray]
"""(examples, index (B,)) -> logits (B, classes), valid until the next call; collective."""


class Words(NamedTuple):
    """What a task's things are called in a line of text; names in files are the same for all."""

    examples: str  # "frames"
    error_rate: str  # what ``frame_error_rate`` is of its scores: "FER"

    @property
    def example(self) -> str:
        """One of them."""
        return self.examples.removesuffix("s")


class Task(Protocol):
    """One task of one run, the same on every rank.

    Attributes
    ----------
    Settings : type
        A frozen dataclass, checked when it is made: what a recipe's ``settings`` may choose.
    inputs, classes : int
        Widths of the network's input and output.
    train : Examples
        What to train on.  Labels change with `realign` and `load_state` only.
    notes : list of str
        What there is to say of the data, one line each; `table.prepare` says it.
    """

    Settings: ClassVar[type]
    words: ClassVar[Words]
    inputs: int
    classes: int

    @classmethod
    def prepare(cls, comm: Communicator, settings: Any, data: str | None, say: Say) -> Task:
        """Return the task on the data in a folder, or on built-in data.  Collective."""

    @property
    def notes(self) -> list[str]:
        """What there is to say of the data."""

    @property
    def train(self) -> Examples:
        """The training examples."""

    def evaluate(
        self, split: str, outputs: Outputs, comm: Communicator, words: bool = True
    ) -> dict[str, Any]:
        """Return the scores of a split as plain numbers, words=False: the quick ones.

        ``loss`` and ``frame_error_rate`` always; the same on every rank, whatever their number.
        Numbers that are not finite give a loss that is not finite, not an error.  Collective.
        """

    def realign_after(self, epoch: int) -> bool:
        """Tell whether to call `realign` after this epoch (the first is 1)."""

    def realign(self, outputs: Outputs, comm: Communicator) -> float:
        """Find new training targets; return the share of them that changed.  Collective."""

    def tune(self, outputs: Outputs, comm: Communicator) -> Any:
        """Choose on the dev set what is chosen there, after training.  Collective."""

    def state(self) -> dict[str, Any]:
        """Return all that changes during a run and that what follows depends on.

        Name -> array or plain value, the same on every rank; copies.
        """

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, on the same data; `UserError` if it does not fit."""

    def saved(self) -> dict[str, Any]:
        """Return what a finished run needs to score other data: arrays and plain values."""

    @classmethod
    def restore(cls, saved: dict[str, Any]) -> Task:
        """Return the task that `saved` this, without data; `UserError` if it cannot be."""

    def load_own(self, comm: Communicator, data: str | None, say: Say) -> list[str]:
        """Add dev and test of what a run was trained on; return their names.  Collective.

        ``data``: what it was given, None for the built-in data.
        """

    @staticmethod
    def folders(directory: str) -> list[str]:
        """Return the folders to score in a folder."""

    def load(self, comm: Communicator, name: str, directory: str, cache: Path | None) -> None:
        """Add the data of a folder as split ``name``.  Collective."""
