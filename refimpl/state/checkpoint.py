"""A checkpoint: the state of a run in a folder, complete or absent.

    step-000120/
        rank-00000.npz    the arrays that rank 0 has to say, stored as they are
        rank-00001.npz    ...
        manifest.json     everything else; written last, so that a folder with it is complete

Every leaf of the state tree is written once, by the first rank that holds it: no rank ever has
more than its own part, and no message carries it.  The manifest tells, of each array, its name,
where in the grid it was, its file and the SHA-256 of its bytes; docs/checkpoints.md reads one with
NumPy alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from refimpl import __version__
from refimpl.nn.flat import Layout
from refimpl.state.tree import Leaf, Tree
from refimpl.support.errors import UserError, require, require_types
from refimpl.support.files import (
    mapped_arrays,
    read_json,
    read_text,
    save_arrays,
    sync,
    write_json,
)
from refimpl.world.topology import Grid, Place

FORMAT, MANIFEST = 1, "manifest.json"


class Part(NamedTuple):
    """What one rank adds to a manifest: plain data, a dict for each of its leaves."""

    arrays: list[dict[str, Any]]
    values: list[dict[str, Any]]


def speaker(leaf: Leaf, place: Place) -> Place:
    """Return who writes a leaf that the rank at ``place`` holds: the first rank with the same."""
    array = isinstance(leaf.value, np.ndarray)
    if leaf.placement == "whole":
        return Place(0, 0, 0)
    if leaf.placement == "shard":
        return Place(0, 0, place.shard)
    if leaf.placement == "block":
        return Place(place.block, 0, place.shard if array else 0)
    return place


def own_part(state: Tree, place: Place) -> Tree:
    """Return the leaves that the rank at ``place`` writes."""
    return {path: leaf for path, leaf in state.items() if speaker(leaf, place) == place}


def write_part(folder: Path, rank: int, place: Place, part: Tree) -> Part:
    """Write a rank's arrays, and return what the manifest is to say of its leaves.

    Needs no other rank, and no MPI: another thread may do it.
    """
    told = described(part, place)
    arrays = {one["name"]: part[one["name"]].value for one in told.arrays}
    arrays = {name: np.ascontiguousarray(_little(one)) for name, one in arrays.items()}
    file = f"rank-{rank:05d}.npz"
    folder.mkdir(parents=True, exist_ok=True)
    if arrays:
        save_arrays(folder / file, arrays.items(), True)
    for one in told.arrays:
        one |= {"file": file, "sha256": hashlib.sha256(arrays[one["name"]].data).hexdigest()}
    return told


def described(part: Tree, place: Place) -> Part:
    """Return what a manifest says of these leaves, files and sums of arrays left out."""
    told = Part([], [])
    for path, leaf in part.items():
        head = {"name": path, "placement": leaf.placement, "at": list(place)}
        if isinstance(leaf.value, np.ndarray):
            dtype = leaf.value.dtype.newbyteorder("<").str
            told.arrays.append({**head, "dtype": dtype, "shape": list(leaf.value.shape)})
        else:
            told.values.append({**head, "value": leaf.value})
    return told


def complete(folder: Path, head: dict[str, Any], layout: Layout, parts: Iterable[Part]) -> None:
    """Write the manifest, once all parts are on their disks: the checkpoint is there.

    Also after a loss of power, so that older ones may go.
    ``head``: ``step``, ``config`` and ``grid``, plain data.
    """
    told = manifest(head, layout, parts)
    write_json(folder / MANIFEST, {**told, "sha256": _digest(told)}, durable=True)
    sync(folder.parent)


def manifest(head: dict[str, Any], layout: Layout, parts: Iterable[Part]) -> dict[str, Any]:
    """Return the manifest of what all ranks have to say, without its own sum."""
    units = [
        {
            "name": unit.name,
            "tensors": [[one.name[len(unit.name) + 1 :], list(one.shape)] for one in unit.tensors],
        }
        for unit in layout.units
    ]
    parts = list(parts)
    return {
        "format": FORMAT,
        "refimpl": __version__,
        **head,
        "units": units,
        "values": [one for part in parts for one in part.values],
        "arrays": [one for part in parts for one in part.arrays],
    }


def _little(array: np.ndarray) -> np.ndarray:
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _digest(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


class Saved:
    """The state of a run after a step, as a manifest tells of it, wherever its arrays are.

    Attributes
    ----------
    name : str
        What it is called in a message.
    step : int
        Steps that were taken.
    config : dict
        The run, plain data.
    grid : Grid
        The ranks whose state it is.
    layout : Layout
        Of their shards.
    arrays, values : dict
        (name, place) -> what the manifest tells of a leaf.
    """

    def __init__(self, name: str, told: dict[str, Any]) -> None:
        self.name = name
        self.step, self.config = int(told["step"]), dict(told["config"])
        self.grid = Grid(**told["grid"])
        require_types(self.grid, "grid's")
        self._units = told["units"]
        self.layout = self.layout_for(self.grid.partition)
        self.arrays = {(one["name"], Place(*one["at"])): one for one in told["arrays"]}
        self.values = {(one["name"], Place(*one["at"])): one for one in told["values"]}

    def layout_for(self, partition: int) -> Layout:
        """Return the layout of the model's units, cut for p ranks."""
        layers: list[Any] = [
            SimpleNamespace(
                name=unit["name"],
                parameters=[SimpleNamespace(name=n, shape=tuple(s)) for n, s in unit["tensors"]],
            )
            for unit in self._units
        ]
        return Layout(layers, partition)

    def placements(self) -> dict[str, str]:
        """Return the placement of every leaf, by name."""
        told = [*self.values.values(), *self.arrays.values()]
        return {one["name"]: one["placement"] for one in told}

    def array(self, name: str, place: Place) -> np.ndarray:
        """Return the array of the rank at a place."""
        raise NotImplementedError

    def value(self, name: str, place: Place) -> Any:
        """Return the plain value of the rank at a place."""
        return self.values[name, place]["value"]

    def verify(self, rank: int = 0, ranks: int = 1) -> int:
        """Check the arrays against their sums, each by one of several ranks; return their bytes.

        Raises `UserError` for the first that is damaged.
        """
        raise NotImplementedError


class Checkpoint(Saved):
    """A complete checkpoint, opened; arrays are mapped, and read when they are asked for.

    Raises
    ------
    UserError
        If the manifest is missing, damaged, or of another format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            told = read_json(read_text(folder / MANIFEST))
            stated = told.pop("sha256")
            require(told.get("format") == FORMAT, f"its format is not {FORMAT}")
            require(stated == _digest(told), "it was changed since it was written")
            super().__init__(str(folder), told)
        except (OSError, UserError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"cannot read {folder / MANIFEST}: {error}") from error
        self._mapped: dict[str, dict[str, np.ndarray]] = {}

    def array(self, name: str, place: Place) -> np.ndarray:
        one = self.arrays[name, place]
        file = one["file"]
        if file not in self._mapped:
            self._mapped[file] = mapped_arrays(self.folder / file)
        found = self._mapped[file].get(name)
        fits = found is not None and [found.dtype.str, *found.shape] == [
            one["dtype"],
            *one["shape"],
        ]
        require(fits, f"{self.folder / file}: {name} is not the array that the manifest tells of")
        assert found is not None
        return found

    def verify(self, rank: int = 0, ranks: int = 1) -> int:
        nbytes = 0
        for number, (name, place) in enumerate(self.arrays):
            if number % ranks != rank:
                continue
            one, array = self.arrays[name, place], self.array(name, place)
            require(
                hashlib.sha256(np.ascontiguousarray(array).data).hexdigest() == one["sha256"],
                f"{self.folder / one['file']}: {name} is damaged, its SHA-256 is not the "
                f"manifest's: remove {self.folder} to go on from the checkpoint before it",
            )
            nbytes += array.nbytes
        return nbytes


def parameters(saved: Checkpoint) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and value of the model's parameters, one unit after the other.

    Of runs that average blocks, the model as it was filtered last.
    """
    filtered, first = "replica/block/global_model", Place(0, 0, 0)
    name = filtered if (filtered, first) in saved.arrays else "replica/partition/parameters"
    shards = [saved.array(name, Place(0, 0, s)) for s in range(saved.grid.partition)]
    for unit in saved.layout.units:
        whole = np.concatenate([shard[unit.shard_place] for shard in shards])
        for one in unit.tensors:
            yield one.name, whole[one.place].reshape(one.shape)


def steps(folder: Path) -> list[tuple[int, Path]]:
    """Return the checkpoints in a folder, step and path, the oldest first; those complete."""
    found = []
    for path in folder.glob("step-*"):
        number = path.name.removeprefix("step-")
        if number.isdecimal() and (path / MANIFEST).is_file():
            found.append((int(number), path))
    return sorted(found)


def folder_of(checkpoints: Path, step: int) -> Path:
    """Return the folder of the checkpoint after so many steps."""
    return checkpoints / f"step-{step:06d}"


def remove(folder: Path) -> None:
    """Remove a checkpoint; it is incomplete before any of it is gone."""
    names: Sequence[Path] = [folder / MANIFEST, *sorted(folder.glob("*"))]
    for path in names:
        path.unlink(missing_ok=True)
    folder.rmdir()
