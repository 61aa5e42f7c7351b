"""A case: a command, in a folder that an edit has changed, and how the command must end."""

from __future__ import annotations

import json
import os
import shlex
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Edit = Callable[[Path], None]
CHECKOUT = Path(__file__).resolve().parents[2]
IMAGES = "train mlp --data images --set hidden=4 --batch 4 --steps 2 --out out"
SPEECH = "train acoustic_mlp --data corpus --set hidden=4 --batch 8 --steps 2 --out out"
SIMULATE = "simulate mlp -n 4 --flops 1e9 --set hidden=4 --batch 4"
NET = "train net.py --data images --batch 4 --steps 2 --out out"
DECODE = "decode speechrun x.wav"
HOST = os.uname().nodename
SAFELY = ["-P"] * (sys.version_info >= (3, 11))  # no module is taken from where one works
REFIMPL = [sys.executable, *SAFELY, "-m", "mpi4py", "-m", "refimpl"]
RUN_MPI = f"{shlex.quote(str(CHECKOUT))}/run_mpi.sh"


@dataclass
class Case:
    """A command and how it must end.

    ``said`` is a pattern of the one line of a refusal, or None for what works.  ``edit`` changes
    the folder, which holds copies of what the command names (`Materials`).  ``other`` are the
    words of rank 1, if it has its own, ``apart`` two folders for two ranks with those edits.
    """

    kind: str
    name: str
    words: str
    said: str | None
    edit: Edit | None = None
    ranks: int = 1
    other: str | None = None
    apart: Edit | None = None  # of rank 1's folder
    shell: bool = False
    codes: tuple[int, ...] = ()  # other than what is usual
    begun: bool = False  # a refusal that comes when there is a run folder already
    limits: dict[int, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    lines: int = 1
    root: bool = False  # needs a mount

    @property
    def code(self) -> tuple[int, ...]:
        return self.codes or ((0,) if self.said is None else (2,))


def put(name: str, content: str | bytes) -> Edit:
    """Return an edit that writes a file."""

    def edit(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return edit


def swap(name: str, old: str, new: str, count: int = 1) -> Edit:
    """Return an edit that replaces a text in a file."""

    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text, (name, old)
        (folder / name).write_bytes(text.replace(old, new, count).encode())

    return edit


def add(name: str, text: str) -> Edit:
    """Return an edit that appends to a file."""

    def edit(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.write(text.encode())

    return edit


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Edit:
    """Return an edit that changes the bytes of a file."""

    def edit(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return edit


def without(name: str) -> Edit:
    """Return an edit that removes a file."""
    return lambda folder: (folder / name).unlink()


def fifo(name: str) -> Edit:
    """Return an edit that puts a named pipe in place of a file."""

    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return edit


def directory(name: str) -> Edit:
    """Return an edit that puts a folder in place of a file."""

    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return edit


def all_of(*edits: Edit) -> Edit:
    """Return an edit that does several."""

    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


def setting(name: str, where: str, value: object) -> Edit:
    """Return an edit that sets a value in a JSON file; ``a.b`` is b of a, DELETE takes it out."""

    def edit(folder: Path) -> None:
        plain = json.loads((folder / name).read_text())
        inner = plain
        *way, last = where.split(".")
        for step in way:
            inner = inner[int(step)] if isinstance(inner, list) else inner[step]
        if value is DELETE:
            del inner[last]
        else:
            inner[int(last) if isinstance(inner, list) else last] = value
        (folder / name).write_text(json.dumps(plain))

    return edit


DELETE = object()


def arrays(name: str, change: Callable[[dict], None], **how: bool) -> Edit:
    """Return an edit that changes the dict of arrays in an npz file."""

    def edit(folder: Path) -> None:
        with np.load(folder / name) as file:
            found = dict(file)
        change(found)
        with np.errstate(all="ignore"):
            (np.savez_compressed if how.get("compressed") else np.savez)(folder / name, **found)

    return edit


def first(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], None]:
    """Return a change of the first array."""

    def apply(found: dict) -> None:
        name = next(iter(found))
        found[name] = change(found[name].copy())

    return apply


def entry(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], None]:
    """Return a change of an array by name."""

    def apply(found: dict) -> None:
        found[name] = change(found[name].copy())

    return apply


def with_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that sets the first number of an array."""

    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


def plain_part(name: str, where: str, value: object) -> Edit:
    """Return an edit of the JSON text in task.npz."""

    def change(found: dict) -> None:
        plain = json.loads(str(found["plain"]))
        inner = plain
        *way, last = where.split(".")
        for step in way:
            inner = inner[step]
        if value is DELETE:
            del inner[last]
        else:
            inner[last] = value
        found["plain"] = np.array(json.dumps(plain))

    return arrays(name, change)


def idx(shape: tuple[int, ...], content: bytes, kind: int = 8) -> bytes:
    """Return an idx file."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + content


MODEL = """
import os, sys
from refimpl import nn
from refimpl.run.config import Recipe
def rank():
    from mpi4py import MPI
    return MPI.COMM_WORLD.rank
def build(seed, inputs, classes, hidden=4):
    return nn.Sequential(nn.Affine("a", inputs, hidden, seed), nn.Relu(),
                         nn.Affine("b", hidden, classes, seed))
def recipe():
    return Recipe(task="images", epochs=1, lr=0.1)
"""


def net(*changes: tuple[str, str], top: str = "") -> Edit:
    """Return an edit that writes net.py: MODEL with changes, with more lines after the imports."""
    text = MODEL
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return put("net.py", text.replace("def build", f"{top}\ndef build", 1))


def recipe(more: str) -> Edit:
    """Return an edit that writes net.py with another recipe."""
    return net(('Recipe(task="images", epochs=1, lr=0.1)', f"Recipe({more})"))


def layer(body: str) -> Edit:
    """Return an edit that writes net.py, whose last layer's backward does something else."""
    top = "class Own(nn.Affine):\n    def backward(self, *given, **more):\n        "
    top += f"{body}\n        return super().backward(*given, **more)\n"
    return net(('nn.Affine("b"', 'Own("b"'), top=top)


BUILD = "def build(seed, inputs, classes, hidden=4):\n"
RECIPE = "def recipe():\n"
RETURNS = 'return nn.Sequential(nn.Affine("a"'
