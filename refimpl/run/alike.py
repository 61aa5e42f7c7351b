"""What must be the same on all ranks, by name: what they were told, have read and have built.

Ranks are processes of their own, perhaps on machines of their own; `refimpl.world.agree.same`
compares these before the first step, and whoever differs is named.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

import refimpl
from refimpl.methods import strategies
from refimpl.nn import Sequential
from refimpl.run.config import Run
from refimpl.world.communicator import Communicator

EXAMPLES = 64  # of a split that are compared, spread over it


def configuration(run: Run) -> dict[str, Any]:
    """Return all that a run was told, by option, and the versions that compute it."""
    plain = run.to_dict()
    recipe, known = plain.pop("recipe"), strategies.options()
    told = {f"--set {name}": value for name, value in plain.pop("options").items()}
    told |= {known[key].flag: value for key, value in plain.pop("methods").items()}
    for inner in ("methods", "settings"):
        told |= {f"the recipe's {name}": value for name, value in recipe.pop(inner).items()}
    told["MODEL"] = plain.pop("model")
    told["the recipe's task"] = recipe.pop("task")
    told |= {"--" + name.replace("_", "-"): value for name, value in (plain | recipe).items()}
    return told | {
        "the version of refimpl": refimpl.__version__,
        "the version of NumPy": np.__version__,
    }


def code(comm: Communicator) -> dict[str, str]:
    """Return the digest of this rank's package, by what it is called.  Collective.

    One rank reads the files for all that have them in the same folder of the same machine.
    """
    places = comm.allgather_object(place())
    reader = places.index(place())
    digests = comm.allgather_object(files() if reader == comm.rank else "")
    return {"the digest of its code": digests[reader]}


def place() -> str:
    """Return the machine and the folder of this package."""
    return f"{os.uname().nodename}:{Path(refimpl.__file__).parent}"


@cache
def files() -> str:
    """Return the digest of all files of this package, as they were at first asking."""
    top, told = Path(refimpl.__file__).parent, hashlib.sha256()
    for path in sorted(top.rglob("*.py")):
        told.update(f"{path.relative_to(top)}\n".encode() + path.read_bytes())
    return told.hexdigest()[:16]


def data(task: Any) -> dict[str, Any]:
    """Return the number of examples in each split, and digests of names and of some examples."""
    found = {}
    for name, split in task.splits.items():
        examples = getattr(split, "frames", split)
        found[f"the number of {task.words.examples} in {name}"] = examples.count
        index = np.linspace(0, examples.count - 1, min(EXAMPLES, examples.count)).astype(np.int64)
        x, y = np.zeros((index.size, examples.inputs), np.float32), np.zeros_like(index)
        examples.take(index, x, y)
        found[f"the digest of {task.words.examples} in {name}"] = _digest(x)
        found[f"the digest of labels in {name}"] = _digest(y)
        names = "\n".join(one.name for one in getattr(split, "utterances", ()))
        found[f"the digest of names in {name}"] = _digest(names.encode())
    return found


def network(net: Sequential, dtype: DTypeLike) -> dict[str, Any]:
    """Return every layer's kind, its numbers and the digest of its initial values.

    Takes the time to draw them, and the memory of the largest unit while it does.
    """
    found: dict[str, Any] = {}
    for number, layer in enumerate(net.layers):
        found[f"layer {number}"] = type(layer).__name__
        for name, value in vars(layer).items():
            if isinstance(value, (bool, int, float, str)) and not name.startswith("_"):
                found[f"{name} of layer {number}"] = value
        if layer.parameters:
            shapes = {one.name: one.shape for one in layer.parameters}
            found[f"the shapes of layer {number}"] = shapes
            initial = np.zeros(layer.size, dtype)
            layer.initialise(initial)
            found[f"the digest of layer {number}'s initial values"] = _digest(initial)
    return found


def digest_of(values: Mapping[str, Any]) -> str:
    """Return one digest of arrays and plain data by name."""
    each = {
        name: _digest(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        for name, value in values.items()
    }
    return _digest(repr(sorted(each.items())).encode())


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
