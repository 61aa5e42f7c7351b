"""The state of a run in the memory of its ranks, from which those that live go on.

A replication group is a store of replicas: the shard of a rank that died is on its column.  So
each rank keeps copies of what it holds between two steps (`Keeper`), and all know what all hold: a
manifest, as a checkpoint on a disk has one, with each rank's plain values in it.  After a death
that is a `Saved` like any other (`Live`), whose arrays come from ranks that hold them.  How it is
cut for another grid is `refimpl.state.reshard`'s business, as after a checkpoint.

Which moment?  A rank's copy is that of the last moment that *all* ranks had reached, since they
meet there, and copy what they hold once they have met.  Where some know that they have met and
others died or were interrupted before they knew, these still hold that very state, unchanged.  So
the newest moment that any living rank has kept is one that all the living have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from refimpl.nn.flat import Layout
from refimpl.state import checkpoint, reshard
from refimpl.state.checkpoint import Saved, own_part, speaker
from refimpl.state.tree import Leaf, Tree
from refimpl.world.communicator import Communicator
from refimpl.world.topology import Grid, Place

Key = tuple[str, Place]

OWED = ("own", "chunk")
"""Placements of what no other rank holds: of a dead rank's it is known how much is lost."""


class Moment(NamedTuple):
    """What a rank holds of a moment between two steps.

    ``when``: era and number, which order all moments of a run.  ``told``: the manifest; None where
    this rank does not know that all have reached it.
    """

    when: tuple[int, int]
    place: Place
    state: Tree
    told: dict[str, Any] | None


class Keeper:
    """Keeps the last moment that all ranks have reached; and the next, until they have met.

    ``era``: how often the ranks have become fewer.
    """

    def __init__(self) -> None:
        self.era = self.number = 0
        self.kept: Moment | None = None
        self.reached: Moment | None = None
        self._copies: dict[str, np.ndarray] = {}

    def next_era(self) -> None:
        """Count moments anew: those of one era are counted alike by its ranks."""
        self.era, self.number = self.era + 1, 0

    def keep(self, comm: Communicator, grid: Grid, layout: Layout, step: int, state: Tree) -> None:
        """Keep a state between two steps, the same moment on all ranks of the grid.  Collective.

        Costs one exchange of plain values, which the ledger does not count, and a copy of what
        this rank holds.
        """
        self.number += 1
        when, place = (self.era, self.number), grid.place(comm.rank)
        state = {
            path: leaf._replace(value=list(leaf.value)) if isinstance(leaf.value, list) else leaf
            for path, leaf in state.items()
        }
        self.reached = Moment(when, place, state, None)
        parts = comm.allgather_object(_described(state, place, grid))
        head = {"step": step, "config": {}, "grid": asdict(grid)}
        told = checkpoint.manifest(head, layout, parts)
        held = {path: leaf._replace(value=self._copy(path, leaf)) for path, leaf in state.items()}
        self.kept, self.reached = Moment(when, place, held, told), None

    def _copy(self, path: str, leaf: Leaf) -> Any:
        """Return a copy of an array, in the memory of the last one if it fits."""
        value = leaf.value
        if not isinstance(value, np.ndarray):
            return value
        old = self._copies.get(path)
        if old is None or (old.shape, old.dtype) != (value.shape, value.dtype):
            old = self._copies[path] = np.empty_like(value)
        np.copyto(old, value)
        return old


def _described(state: Tree, place: Place, grid: Grid) -> checkpoint.Part:
    """Return what the manifest is to say: of what may be lost its norm, of blocks' models sums."""
    part = own_part(state, place)
    told = checkpoint.described(part, place)
    for head in told.arrays:
        array = np.ascontiguousarray(part[head["name"]].value).reshape(-1)
        if head["placement"] in OWED:
            head["norm"] = float(np.sqrt(np.dot(array, array)))
        elif head["placement"] == "block" and grid.blocks > 1:
            head["sha256"] = hashlib.sha256(array.data).hexdigest()
    return told


class Live(Saved):
    """A moment of a run, held by living ranks.

    Attributes
    ----------
    places : list of Place or None
        Where each rank of ``comm`` stood in the grid; None: not in it.
    owed : list
        Keys of what was dead ranks' own: it is zero now.
    missing : list
        Keys of arrays that no living rank has: from here nobody can go on.
    """

    def __init__(
        self,
        comm: Communicator,
        mine: Moment | None,
        places: Sequence[Place | None],
        told: dict[str, Any],
    ) -> None:
        super().__init__("what the ranks hold", told)
        self.comm, self.mine, self.places = comm, mine, places
        self._here: dict[Key, np.ndarray] = {}
        self.holders: dict[Key, int] = {}
        named = {one["name"]: one["placement"] for one in told["arrays"]}
        for rank, place in enumerate(places):
            if place is not None:
                for name, placement in named.items():
                    leaf = Leaf(np.empty(0), placement)
                    self.holders.setdefault((name, speaker(leaf, place)), rank)
        self.owed: list[Key] = []
        self.missing: list[Key] = []
        for key in self.arrays.keys() - self.holders:
            twin = self._twin(key)
            if twin is not None:
                self.holders[key] = self.holders[twin]
            else:
                lost = self.owed if self.arrays[key]["placement"] in OWED else self.missing
                lost.append(key)
        self.owed.sort()
        self.missing.sort()

    @classmethod
    def found(cls, comm: Communicator, keeper: Keeper) -> Live | None:
        """Return the newest moment that living ranks have kept, or None.  Collective.

        ``comm``: all the living, those that had no part in it among them.
        """
        mine = [one for one in (keeper.kept, keeper.reached) if one is not None]
        everyones = comm.allgather_object([(m.when, m.place, m.told is not None) for m in mine])
        known = [
            (when, rank)
            for rank, moments in enumerate(everyones)
            for when, _, told in moments
            if told
        ]
        if not known:
            return None
        newest, root = max(known)
        places = [
            next((Place(*place) for when, place, _ in moments if when == newest), None)
            for moments in everyones
        ]
        held = next((one for one in mine if one.when == newest), None)
        told = comm.bcast_object(None if held is None else held.told, root)
        return cls(comm, held, places, told)

    def _twin(self, key: Key) -> Key | None:
        """Return where the same bytes are, of a model that blocks hold alike."""
        name, place = key
        for block in range(self.grid.blocks):
            other = name, place._replace(block=block)
            sums = [self.arrays.get(one, {}).get("sha256") for one in (key, other)]
            if other in self.holders and sums[0] is not None and sums[0] == sums[1]:
                return other
        return None

    def template(self) -> Tree:
        """Return names, placements and dtypes: what a run of these methods has."""
        found = {
            name: Leaf(one["value"], one["placement"]) for (name, _), one in self.values.items()
        }
        for (name, _), one in self.arrays.items():
            found[name] = Leaf(np.empty(0, one["dtype"]), one["placement"])
        return found

    def wishes(self, grid: Grid, rank: int) -> list[Key]:
        """Return the arrays from which a rank of another grid makes its own.

        Raises `UserError` where what there is cannot be meant for that grid.
        """
        asked, layout = _Asked(self), self.layout_for(grid.partition)
        reshard.fitted(asked, self.template(), grid, rank, layout)
        return list(asked.keys)

    def send(self, wishes: Sequence[Key]) -> None:
        """Bring to each rank what it wishes; what it holds itself is not sent.  Collective.

        Of one rank to another in the order of wishes, in which they arrive.
        """
        me, requests, own = self.comm.rank, [], self._own()
        for rank, keys in enumerate(self.comm.allgather_object(list(wishes))):
            for name, place in keys:
                key = name, Place(*place)
                source = self.holders.get(key)
                if rank == me:
                    there = own[key] if source == me else self.empty(key)
                    self._here[key] = there
                    if source not in (None, me):
                        requests.append(self.comm.Irecv(there, source))
                elif source == me:
                    requests.append(self.comm.Isend(own[key], rank))
        self.comm.wait(requests)

    def _own(self) -> dict[Key, np.ndarray]:
        """Return what this rank holds, by every key that it is the holder of."""
        if self.mine is None:
            return {}
        return {
            key: np.ascontiguousarray(self.mine.state[key[0]].value)
            for key, rank in self.holders.items()
            if rank == self.comm.rank
        }

    def empty(self, key: Key) -> np.ndarray:
        """Return zeros of the shape and dtype of an array."""
        head = self.arrays[key]
        return np.zeros(head["shape"], np.dtype(head["dtype"]).newbyteorder("="))

    def array(self, name: str, place: Place) -> np.ndarray:
        return self._here[name, place]

    def verify(self, rank: int = 0, ranks: int = 1) -> int:
        return sum(one.nbytes for one in self._here.values())  # they were never on a disk


class _Asked(Live):
    """The same, to learn what is asked for."""

    def __init__(self, live: Live) -> None:
        self.__dict__.update(live.__dict__)
        self.keys: dict[Key, None] = {}

    def array(self, name: str, place: Place) -> np.ndarray:
        self.keys[name, place] = None
        return self.empty((name, place))
