"""The image task: digits from idx files (MNIST), or the built-in toy digits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import require, require_types, typed
from refimpl.tasks.images import idx, toy
from refimpl.tasks.protocol import Outputs, Say, Words
from refimpl.tasks.scoring import classification
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator

# The last sixth of MNIST's training images is the dev set (10 000 of 60 000).
DEV_SHARE = 6

TOY_SIZES = {"train": 3000, "dev": 500, "test": 500}


class ImageExamples:
    """Images as rows of pixels in [0, 1]; they stay bytes until they are taken."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        self.pixels = images.reshape(len(images), int(np.prod(images.shape[1:])))
        self.labels = labels.astype(np.int64)
        self.count, self.inputs = self.pixels.shape
        self._bytes = np.empty((0, self.inputs), np.uint8)

    def take(self, index: NDArray[np.int64], x: np.ndarray, y: NDArray[np.int64]) -> None:
        """Fill x (B, inputs) with pixels / 255 and y (B,) with labels of examples index (B,)."""
        if len(self._bytes) < len(index):
            self._bytes = np.empty((len(index), self.inputs), np.uint8)
        rows = self._bytes[: len(index)]
        np.take(self.pixels, index, axis=0, out=rows, mode="clip")
        np.multiply(rows, x.dtype.type(1 / 255), out=x)
        np.take(self.labels, index, out=y, mode="clip")


@dataclass(frozen=True)
class ImageSettings:
    """Nothing: a recipe has no choices in this task."""


@dataclass(frozen=True)
class Saved:
    """What is saved of the task with a run."""

    inputs: int

    def __post_init__(self) -> None:
        require_types(self, "image value")
        require(self.inputs >= 1, f"image value inputs is {self.inputs}: it must be 1 or more")


class ImageTask:
    """Digit images in the splits train, dev and test."""

    Settings: ClassVar[type] = ImageSettings
    words: ClassVar[Words] = Words("images", "error")
    classes: int = 10

    def __init__(self, inputs: int, splits: dict[str, ImageExamples]) -> None:
        self.inputs, self.splits = inputs, splits

    @property
    def notes(self) -> list[str]:
        """Nothing is to be said of images."""
        return []

    @property
    def train(self) -> ImageExamples:
        """The training examples."""
        return self.splits["train"]

    @classmethod
    def prepare(
        cls, comm: Communicator, settings: ImageSettings, data: str | None, say: Say
    ) -> ImageTask:
        """Read an MNIST folder, or draw the toy digits if no folder is given.  Collective."""
        if data is None:
            arrays = _drawn(comm)
        else:
            with together(comm):
                arrays = _mnist(Path(data))
        splits = {name: ImageExamples(*pair) for name, pair in arrays.items()}
        return cls(splits["train"].inputs, splits)

    def evaluate(
        self, split: str, outputs: Outputs, comm: Communicator, words: bool = False
    ) -> dict[str, Any]:
        """Return ``loss`` (mean) and ``frame_error_rate`` of a split; no words.  Collective."""
        return classification(self.splits[split], outputs, comm)

    def realign_after(self, epoch: int) -> bool:
        """Labels are given: there is nothing to re-align."""
        return False

    def realign(self, outputs: Outputs, comm: Communicator) -> float:
        """Change nothing."""
        return 0.0

    def tune(self, outputs: Outputs, comm: Communicator) -> None:
        """Choose nothing on the dev set."""

    def state(self) -> dict[str, Any]:
        """Return nothing: nothing changes during a run."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Do nothing."""

    def saved(self) -> dict[str, Any]:
        """Return what a finished run needs to score other images."""
        return asdict(Saved(self.inputs))

    @classmethod
    def restore(cls, saved: dict[str, Any]) -> ImageTask:
        """Return the task that `saved` this, without data."""
        return cls(typed(Saved, saved, "image value").inputs, {})

    def load_own(self, comm: Communicator, data: str | None, say: Say) -> list[str]:
        """Add dev and test of the images that a run was trained on.  Collective."""
        again = self.prepare(comm, self.Settings(), data, say)
        with together(comm):
            self._check(again.train, data)
        self.splits |= {name: again.splits[name] for name in ("dev", "test")}
        return [*self.splits]

    def _check(self, examples: ImageExamples, directory: str | None) -> None:
        require(
            examples.inputs == self.inputs,
            f"images in {directory} have {examples.inputs} pixels, the model was trained "
            f"on {self.inputs}",
        )

    @staticmethod
    def folders(directory: str) -> list[str]:
        """Return the folders to score: the one given."""
        return [directory]

    def load(self, comm: Communicator, name: str, directory: str, cache: Path | None) -> None:
        """Add the t10k images of a folder as split ``name``.  Collective."""
        with together(comm):
            examples = ImageExamples(*_pair(Path(directory), "t10k"))
            self._check(examples, directory)
            self.splits[name] = examples


def _pair(folder: Path, stem: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images and labels of one MNIST file pair."""
    require(folder.is_dir(), f"no folder {folder}: give --data a folder with MNIST's idx files")
    images = idx.read(path := idx.find(folder, f"{stem}-images-idx3-ubyte"), 3)
    labels = idx.read(idx.find(folder, f"{stem}-labels-idx1-ubyte"), 1)
    require(
        len(images) == len(labels),
        f"{path} has {len(images)} images but {len(labels)} labels stand beside",
    )
    require(images.size > 0, f"{path} holds no pixel: images of shape {images.shape}")
    require(labels.max() <= 9, f"{folder}: {stem} has a label {labels.max()}, digits are 0 to 9")
    return images, labels


def _drawn(comm: Communicator) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return toy images and labels by split; each rank draws a run of every one.  Collective."""
    mine = {}
    for name, count in TOY_SIZES.items():
        first, end = (rank * count // comm.size for rank in (comm.rank, comm.rank + 1))
        mine[name] = toy.images(name, first, end)
    parts = comm.allgather_object(mine)
    return {
        name: (
            np.concatenate([p[name][0] for p in parts]),
            np.concatenate([p[name][1] for p in parts]),
        )
        for name in mine
    }


def _mnist(folder: Path) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    images, labels = _pair(folder, "train")
    require(
        len(images) >= DEV_SHARE,
        f"{folder} has {len(images)} training images: {DEV_SHARE} or more are needed, since the "
        f"last 1/{DEV_SHARE} of them is the dev set",
    )
    dev = len(images) - len(images) // DEV_SHARE
    test = _pair(folder, "t10k")
    require(
        test[0].shape[1:] == images.shape[1:],
        f"{folder}: images of t10k are {_size(test[0])} pixels, those of train {_size(images)}: "
        "all must have one size",
    )
    return {
        "train": (images[:dev], labels[:dev]),
        "dev": (images[dev:], labels[dev:]),
        "test": test,
    }


def _size(images: NDArray[np.uint8]) -> str:
    return " x ".join(map(str, images.shape[1:]))
