"""What moves in a collective: which blocks go from whom to whom in which step.

Nothing is told here that did not happen.  The collective runs on ranks that are threads, on
vectors whose values say which block they are and whose addends are in them; what is sent is heard
(`refimpl.world.events`), and the step in which it is sent is that of the stated schedule
(``Algorithm.steps``).  `refimpl.collectives.explain` writes it down, and
`refimpl.collectives.pictures` draws it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from refimpl.collectives.chunks import Array
from refimpl.collectives.families import EXPLICIT
from refimpl.collectives.interface import ROOTED, Family
from refimpl.support.errors import UserError, require
from refimpl.world.communicator import Communicator
from refimpl.world.events import Event, Listener
from refimpl.world.threads import spawn

BITS = 20  # of a value for the ranks whose addends are in it; the others say which block it is


class Block(NamedTuple):
    """What is in one chunk of x: the chunk, the ranks whose addends are in it, in their order."""

    chunk: int
    ranks: tuple[int, ...]


class Move(NamedTuple):
    """A block on its way, or one that is copied on one rank (``source == dest``).

    Slots are places in x, and from p on in scratch.
    """

    source: int
    from_slot: int
    dest: int
    to_slot: int
    block: Block
    adds: bool
    link: str


Holding = dict[int, Block]  # what one rank has of use: slot -> block


@dataclass
class Stage:
    """Moves that can be under way together, and what every rank has when they are over."""

    moves: list[Move] = field(default_factory=list)
    after: list[Holding] = field(default_factory=list)

    @property
    def local(self) -> bool:
        """Whether it sends nothing: blocks find their places."""
        return all(move.source == move.dest for move in self.moves)

    def keeps(self, rank: int, slot: int) -> bool:
        """Tell whether a rank that sends what is in a slot has it still: something is added."""
        return any(
            (move.dest, move.to_slot, move.adds) == (rank, slot, True) for move in self.moves
        )


@dataclass(frozen=True)
class Moves:
    """A collective on p ranks and a vector of p blocks."""

    family: str
    operation: str
    nodes: tuple[int, ...]
    start: list[Holding]
    stages: list[Stage]

    @property
    def p(self) -> int:
        """The number of ranks, and of blocks."""
        return len(self.nodes)

    @property
    def scratch(self) -> int:
        """The number of blocks that a rank has had in scratch."""
        slots = [move.to_slot for stage in self.stages for move in stage.moves]
        return max([self.p - 1, *slots]) - self.p + 1

    @property
    def sending(self) -> list[Stage]:
        """The stages in which messages are sent: the steps of the collective."""
        return [stage for stage in self.stages if not stage.local]

    def arrows(self) -> str:
        """Return who sends to whom in each step, a line for each."""
        lines = ["step"]
        for number, stage in enumerate(self.sending):
            pairs = sorted({(move.source, move.dest) for move in stage.moves})
            lines.append(f"{number:>4}  " + "  ".join(f"{s}->{d}" for s, d in pairs))
        return "\n".join(lines)


class _Heard(Listener):
    """The messages that a rank sends and the places for those that it receives, by peer."""

    kinds = frozenset({"send", "receive"})

    def __init__(self, x: Array) -> None:
        self.x = self.result = x
        self.sent: defaultdict[int, deque[tuple[list[int], range]]] = defaultdict(deque)
        self.places: defaultdict[int, deque[range]] = defaultdict(deque)

    def begin(self, event: Event) -> None:
        value, at = event.value, _addresses(event.value)
        if event.kind == "send":
            self.sent[event.peer].append((value.tolist(), at))
        else:
            self.places[event.peer].append(at)

    def slots(self) -> dict[int, int]:
        """Return the slot of every address at which blocks are: of x, then of scratch."""
        own = _addresses(self.x)
        used = {*_addresses(self.result)}
        used.update(at for many in self.sent.values() for _, places in many for at in places)
        used.update(at for many in self.places.values() for places in many for at in places)
        return {at: slot for slot, at in enumerate([*own, *sorted(used - {*own})])}


def _addresses(array: Array) -> range:
    first: int = array.__array_interface__["data"][0]
    return range(first, first + array.nbytes, array.itemsize)


def _value(block: int, rank: int) -> int:
    return (block + 1) << BITS | 1 << rank


def _block(value: int) -> Block:
    ranks = tuple(rank for rank in range(BITS) if value >> rank & 1)
    index, rest = divmod(value >> BITS, len(ranks))
    assert rest == 0, value
    return Block(index - 1, ranks)


def _begun(operation: str, p: int, rank: int) -> list[int]:
    """Return the blocks that a rank has at the beginning; rank 0 is the root."""
    if operation == "allgather":
        return [rank]
    return [] if operation == "broadcast" and rank else list(range(p))


def _program(family: Family, operation: str, comm: Communicator) -> _Heard:
    x = np.zeros(comm.size, np.int64)
    for block in _begun(operation, comm.size, comm.rank):
        x[block] = _value(block, comm.rank)
    root = (0,) if operation in ROOTED else ()
    with comm.events.listen(heard := _Heard(x)):
        result = family.algorithms[operation].run(comm, x, *root)
    heard.result = x if result is None else result
    return heard


def moves(family: Family, operation: str, nodes: Sequence[int]) -> Moves:
    """Return what moves when ranks on these nodes call an operation on a block for each.

    An add uses its block up: whoever sends it has it no more, unless something is added to it in
    the same step.  Own blocks that are copied to scratch before the first message are there from
    the start.  Blocks that were received in scratch are copied to their places in x by a stage of
    its own, before they are needed there; not those of an all-to-all, whose result stands there.

    Raises `UserError` if the family refuses, its messages cannot be heard (``native``), or they
    are not those of its schedule.
    """
    p, nodes = len(nodes), tuple(nodes)
    refusal = family.refuses(operation, nodes)
    if refusal is not None:
        raise UserError(refusal)
    steps = family.cost(operation, p, nodes, itemsize=8).steps
    about = f"collectives {family.name}: the schedule of {operation} has"
    heard = spawn(nodes, lambda comm: _program(family, operation, comm))
    slots = [one.slots() for one in heard]
    has: list[Holding] = [
        {block: Block(block, (rank,)) for block in _begun(operation, p, rank)} for rank in range(p)
    ]
    for rank, one in enumerate(heard):
        for at, value in zip(_addresses(one.result), one.result.ravel().tolist(), strict=True):
            if slots[rank][at] >= p and _block(value).ranks == (rank,):
                has[rank][slots[rank][at]] = _block(value)
    found = Moves(family.name, operation, nodes, [dict(one) for one in has], [])
    for step in (each for each in steps for _ in range(each.times)):
        stage = Stage()
        for source, dest, size, adds in zip(*map(np.ndarray.tolist, step[:4]), strict=True):
            sent, places = heard[source].sent[dest], heard[dest].places[source]
            arrives = len(sent[0][0]) if sent and places else "none"
            require(
                arrives == size,
                f"{about} a message {source}->{dest} of {size} elements, but {arrives} arrive",
            )
            (values, sent_from), there = sent.popleft(), places.popleft()
            link = "intra" if nodes[source] == nodes[dest] else "inter"
            for at, to, block in zip(sent_from, there, map(_block, values), strict=True):
                from_slot = to_slot = block.chunk
                if adds:
                    whole = has[source][from_slot]
                    assert sorted(whole.ranks) == list(block.ranks), (whole, block)
                    block = whole
                else:
                    from_slot, to_slot = slots[source][at], slots[dest][to]
                    block = has[source].get(block.chunk, block)
                    if from_slot >= p and from_slot not in has[source]:
                        assert not found.stages
                        has[source][from_slot] = found.start[source][from_slot] = block
                stage.moves.append(Move(source, from_slot, dest, to_slot, block, adds, link))
        needed = {(m.source, m.from_slot) for m in stage.moves}
        if any(slot < p and slot not in has[rank] for rank, slot in needed):
            _reorder(found.stages, has, p)
        _apply(stage, has)
        found.stages.append(stage)
    for source, one in enumerate(heard):
        for dest, sent in one.sent.items():
            require(not sent, f"{about} no message {source}->{dest} where one more is sent")
    if any(slot >= p and block.chunk not in one for one in has for slot, block in one.items()):
        _reorder(found.stages, has, p)
    return found


def heard(family: str, operation: str, p: int, k: int | None = None) -> Moves:
    """Return what moves on p ranks, on one node or on nodes of k."""
    require(k is None or k >= 1, f"nodes of {k} ranks: a node holds at least one")
    nodes = tuple(rank // (k or p) for rank in range(p))
    return moves(next(one for one in EXPLICIT if one.name == family), operation, nodes)


def _apply(stage: Stage, has: list[Holding]) -> None:
    """Let every rank have what it has when a stage is over."""
    for move in stage.moves:
        if move.adds and not stage.keeps(move.source, move.from_slot):
            del has[move.source][move.from_slot]
    for move in stage.moves:
        block = move.block
        if move.adds:
            mine = has[move.dest][move.to_slot]
            block = Block(block.chunk, block.ranks + mine.ranks)
        has[move.dest][move.to_slot] = block
    stage.after = [dict(one) for one in has]


def _reorder(stages: list[Stage], has: list[Holding], p: int) -> None:
    """Add a stage that brings what is in scratch to its places in x."""
    stage = Stage()
    for rank, one in enumerate(has):
        for slot in [slot for slot in one if slot >= p]:
            block = one.pop(slot)
            stage.moves.append(Move(rank, slot, rank, block.chunk, block, False, "intra"))
            one[block.chunk] = block
    stage.after = [dict(one) for one in has]
    stages.append(stage)
