"""A bundle: a folder with ``manifest.json`` and ``arrays.npz``, one step of the ladder.

The manifest says all that a reader needs: which cases there are, what each is given (settings as
data, inputs as arrays), what must come out, and how exactly.  It is described by
``refimpl/golden/schema.json``.  The array ``result`` of the case ``allreduce.n4.tiny`` is the
member ``allreduce.n4.tiny/result.npy`` of the archive.  The arrays may lie beside it once more, as
``arrays.safetensors``, there as ``allreduce.n4.tiny/result``.

An array has one of three roles:

    input      given; nobody has to reproduce a random generator
    output     must be there, and right
    detail     what is on the way to an output; must be right if it is there

and one of two rules:

    bits       equal bits: -0.0 is not 0.0
    ulp        |have - want| <= k ulp, where an ulp is the distance from the array's largest
               |want| to the next number of its dtype

The unit of the largest value, and not of each value, because that is how rounding errors of a sum
behave: they are as large as its terms allow, also where these cancel.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refimpl.golden import npz
from refimpl.support.errors import UserError, refused
from refimpl.support.files import write_whole
from refimpl.support.safetensors import save_safetensors

# Number of the format, and the version of refimpl since which it and its values have been so.
FORMAT = 1
SINCE = "0.1.0"

MANIFEST, ARRAYS, TENSORS = "manifest.json", "arrays.npz", "arrays.safetensors"

RUNGS = (
    "collectives",
    "compression",
    "blocks",
    "layers",
    "optimizers",
    "acoustic",
    "one step",
    "ten steps",
)


@dataclass(frozen=True)
class Rule:
    """How exactly an array must be met, and why: ``ulp`` None for equal bits.

    ``stated`` is the manifest's rule, where whoever checks has loosened it.
    """

    why: str
    ulp: int | None = None
    stated: Rule | None = None

    def __str__(self) -> str:
        return "bits" if self.ulp is None else f"{self.ulp} ulp"


@dataclass(frozen=True)
class Array:
    """An array of a case: its values, what its axes are, and for what must come out the rule."""

    role: str
    value: np.ndarray
    axes: tuple[str, ...]
    rule: Rule | None = None


@dataclass(frozen=True)
class Case:
    """One question to a backend, and the answer.

    Attributes
    ----------
    name : str
        Within its bundle; the full name is ``BUNDLE/NAME``.
    operation : str
        What is to be done: the method of the protocol (`refimpl.golden.backend`).
    text : str
        What the case shows, in a sentence.
    settings : dict
        Hyper-parameters and sizes, plain data.
    arrays : dict of Array
    since : int
        The edition in which it was first (`refimpl.golden.editions`).
    """

    name: str
    operation: str
    text: str
    settings: dict[str, Any]
    arrays: dict[str, Array] = field(default_factory=dict)
    since: int = 1

    def inputs(self) -> dict[str, np.ndarray]:
        """Return what is given, as copies: nobody can spoil it for others."""
        return {n: a.value.copy() for n, a in self.arrays.items() if a.role == "input"}


@dataclass(frozen=True)
class Bundle:
    """Cases that belong together: one folder.  ``place`` rises with the bundles of a rung."""

    name: str
    rung: str
    text: str
    cases: tuple[Case, ...]
    place: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """What rises with the bundles of the ladder."""
        return RUNGS.index(self.rung), self.place

    def write(self, folder: Path, tensors: bool = False) -> None:
        """Write the files into ``folder``/name; the same bytes for the same values.

        With ``tensors``, and where there is such a file already, the arrays are also written as
        ``arrays.safetensors``, under the same names.  Each file is there whole or not at all, and
        the manifest first: without its arrays it is a bundle that can be written again, and arrays
        alone might be somebody's answers.

        Raises `UserError` if the folder cannot be written to.
        """
        arrays, manifest, also = self.files(folder)
        try:
            try:
                arrays.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise refused(error, f"cannot write {folder / self.name}") from error
            write_whole(manifest, text_of(self.manifest()).encode("ascii"))
            values = self.values()
            write_whole(arrays, npz.npz(values))
            if tensors or also.exists():
                forms = {name: (array.dtype, array.shape) for name, array in values.items()}
                save_safetensors(also, forms, values.items())
        except UserError:
            with suppress(OSError):  # it is not empty, or not there
                manifest.parent.rmdir()
            raise

    def files(self, folder: Path) -> tuple[Path, Path, Path]:
        """Return where arrays, manifest and perhaps arrays once more are in this folder."""
        own = folder / self.name
        return own / ARRAYS, own / MANIFEST, own / TENSORS

    def values(self) -> dict[str, np.ndarray]:
        """Return all arrays under the names that they have in the archive."""
        return {
            f"{case.name}/{name}": array.value
            for case in self.cases
            for name, array in case.arrays.items()
        }

    def manifest(self) -> dict[str, Any]:
        """Return the manifest as plain data."""
        edition = max(case.since for case in self.cases)
        return {
            "format": FORMAT,
            **({"edition": edition} if edition > 1 else {}),
            "bundle": self.name,
            "place": self.place,
            "rung": RUNGS.index(self.rung) + 1,
            "rung_name": self.rung,
            "text": self.text,
            "refimpl": SINCE,
            "command": f"refimpl golden write --cases '{self.name}/*' DIR",
            "cases": [
                {
                    "name": case.name,
                    "operation": case.operation,
                    "text": case.text,
                    **({"since": case.since} if case.since > 1 else {}),
                    "settings": case.settings,
                    "arrays": [_described(name, a) for name, a in case.arrays.items()],
                }
                for case in self.cases
            ],
        }


def text_of(manifest: dict[str, Any]) -> str:
    """Return a manifest as JSON, a line for each array."""
    cases = []
    for case in manifest["cases"]:
        head = json.dumps({key: value for key, value in case.items() if key != "arrays"})
        arrays = ",\n".join(f"   {json.dumps(array)}" for array in case["arrays"])
        cases.append(f'  {head[:-1]}, "arrays": [\n{arrays}\n  ]}}')
    head = json.dumps({key: v for key, v in manifest.items() if key != "cases"}, indent=1)
    return f'{head[:-2]},\n "cases": [\n' + ",\n".join(cases) + "\n ]\n}\n"


def _described(name: str, array: Array) -> dict[str, Any]:
    """Return what the manifest says of an array."""
    told: dict[str, Any] = {
        "name": name,
        "role": array.role,
        "dtype": npz.little(array.value).dtype.str,
        "shape": list(array.value.shape),
        "axes": list(array.axes),
        "sha256": digest(array.value),
    }
    if array.rule is not None:
        told["rule"] = "bits" if array.rule.ulp is None else "ulp"
        if array.rule.ulp is not None:
            told["ulp"] = array.rule.ulp
        told["why"] = array.rule.why
    return told


def digest(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's numbers: little-endian, row after row, no header."""
    return hashlib.sha256(npz.little(array).tobytes()).hexdigest()


def padded(rows: Iterable[np.ndarray], length: int | None = None) -> np.ndarray:
    """Return rows of unequal length as one array, filled up with zeros.

    >>> padded([np.array([1, 2]), np.array([3])]).tolist()
    [[1, 2], [3, 0]]
    """
    rows = list(rows)
    most = max((len(row) for row in rows), default=0) if length is None else length
    out = np.zeros((len(rows), most), rows[0].dtype if rows else np.float32)
    for target, row in zip(out, rows, strict=True):
        target[: len(row)] = row
    return out
