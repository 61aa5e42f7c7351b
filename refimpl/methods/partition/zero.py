"""The partition axis: who holds which part of the model states (ZeRO's stages, MiCS's groups).

A partition group of p ranks holds one replica of the model states.  Every *unit* (a layer's
parameters) is padded to a multiple of p and cut into p pieces; rank s of the group owns piece s of
every unit, and its pieces end to end are its *shard*.

    stage   parameters          gradients           optimizer state    sent in a partition group
      0     whole               whole               whole              nothing (p = 1)
      1     whole               whole               shard              once a step
      2     whole               shard               shard              gradients every micro-step
      3     shard               shard               shard              both every micro-step

One path serves all of them: `gather` makes a unit's parameters whole before they are used, `free`
says that they are not needed any more, `reduce` takes the unit's gradient (hop 1 of the two-hop
synchronisation), `finish` completes the gradient of a step, and `update` publishes what it
changed.  With p = 1 a shard is the whole, and the messages of these calls vanish by themselves.

A unit's tensors lie side by side, so each of these is one collective per unit; all buffers are
allocated once.  In stage 3 whole parameters live in one gather buffer, as long as the largest
unit: gathering a unit overwrites the one before it, and nothing here ever holds all parameters at
once, neither to start (`initialise`), nor to evaluate, nor to save (`each`).

The closed formula of what a step sends, and the options, are in ``stages.py`` beside this file;
gathers that run ahead of computation in ``prefetch.py``, that stay on a node in ``secondary.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refimpl.methods.partition.prefetch import Prefetch
from refimpl.methods.partition.secondary import Secondary
from refimpl.methods.protocol import Context, PartitionAxis
from refimpl.nn import Layer
from refimpl.state.tree import Leaf, Tree, branch, under


class ModelStates(PartitionAxis):
    """Parameters, gradients and optimizer state of one rank of a partition group.

    The network's layers are bound to this object's memory.

    Parameters
    ----------
    context : Context
        Its partition group has p ranks.
    stage : int
        What is sharded, 0 to 3; stage 0 needs p = 1.
    prefetch, secondary : bool
        Stage 3: gather the next unit while one computes; gather for backward passes on nodes.

    Attributes
    ----------
    pieces : list of views
        This rank's piece of each unit's parameters, wherever they live.
    states : dict of (shard,) arrays
        Optimizer state by name.
    """

    def __init__(
        self, context: Context, stage: int, prefetch: bool = False, secondary: bool = False
    ) -> None:
        partition, layout, dtype = context.groups.partition, context.layout, context.dtype
        assert stage > 0 or partition.size == 1, "stage 0 replicates: p must be 1"
        assert prefetch + secondary <= (stage == 3), "these are for stage 3, and one at a time"
        assert context.network is not None and context.optimizer is not None
        self.network, self.optimizer = context.network, context.optimizer
        self.partition, self.layout, self.collectives = partition, layout, context.collectives
        self.stage = stage
        self.fixed = context.fixed(context.groups.grid.micro_batches(context.microsteps))
        self.unit = {layer.name: number for number, layer in enumerate(self.network.units)}
        largest = max((unit.padded for unit in layout.units), default=0)

        # Parameters: whole and bound for good, or a shard and gather buffers that units share.
        self.whole: np.ndarray | None = None
        self.shard: np.ndarray | None = None
        self._buffers: list[np.ndarray] = []
        self._in_use: set[int] = set()  # gather buffers whose unit was not freed yet
        if stage < 3:
            self.whole = np.zeros(layout.padded, dtype)
            self.seats = [self.whole[unit.place] for unit in layout.units]
            self.pieces = [self.whole[unit.piece_place(partition.rank)] for unit in layout.units]
        else:
            self.shard = np.zeros(layout.shard, dtype)
            self._buffers = [np.zeros(largest, dtype) for _ in range(1 + prefetch)]
            self.seats = [
                self._buffers[i % (1 + prefetch)][: unit.padded]
                for i, unit in enumerate(layout.units)
            ]
            self.pieces = [self.shard[unit.shard_place] for unit in layout.units]
        self.ahead: Prefetch | None = None
        if prefetch:
            assert self.collectives.ahead is not None
            in_steps, units = self.collectives.ahead, len(self.seats)
            self.ahead = Prefetch(partition, in_steps, self._seated, units)
        self.near = Secondary(partition, self.seats, dtype) if secondary else None

        # Gradients: backward writes one unit at a time into the bucket; what is kept is the
        # accumulator.  Where the two would be equal, backward writes to the accumulator itself.
        exact = self.fixed is not None
        kept = layout.padded if stage < 2 else layout.shard
        self.accumulator = np.zeros(kept, np.int64 if exact else dtype)
        self.direct = stage < 2 and context.microsteps == 1 and not exact
        self.bucket = np.zeros(0 if self.direct else largest, dtype)
        self.encoded = np.zeros(largest if exact else 0, np.int64)
        deferred = stage == 1 and partition.size > 1
        own = np.zeros(layout.shard if deferred else 0, self.accumulator.dtype)
        self.gradient = own if deferred else self.accumulator
        self.states = self.optimizer.allocate(layout.shard, dtype)
        self._bind()
        self.initialise()

    def _bind(self) -> None:
        for number, layer in enumerate(self.network.units):
            unit = self.layout.units[number]
            memory = self.accumulator[unit.place] if self.direct else self.bucket
            layer.bind(self.seats[number][: unit.size], memory[: unit.size])

    def initialise(self) -> None:
        """Set the initial parameters, unit by unit: the same on every rank and for every p."""
        for number, layer in enumerate(self.network.units):
            seat, unit = self.seats[number], self.layout.units[number]
            seat[:] = 0
            layer.initialise(seat[: unit.size])
            self._keep(number)

    def _keep(self, number: int) -> None:
        """Take this rank's piece out of a unit's whole parameters (stage 3)."""
        if self.shard is not None:
            piece = self.layout.units[number].piece
            start = self.partition.rank * piece
            self.pieces[number][:] = self.seats[number][start : start + piece]

    # ---------------------------------------------------------------------- in every micro-step

    def gather(self, layer: Layer, following: int) -> None:
        """Make a unit's parameters whole.  Stage 3: one all-gather, which may be under way."""
        if self.shard is None or not layer.parameters:
            return
        number = self.unit[layer.name]
        if self.near and following < 0:
            self.near.gather(number, self._seated(number), self.collectives)
        elif self.ahead is None or not self.ahead.complete(number):
            self._gather(number)
        if self.near and following > 0:
            self.near.keep(number, self.seats[number])
        self._in_use.add(number % len(self._buffers))
        if self.ahead is not None:
            self.ahead.start(number + following)

    def _seated(self, number: int) -> np.ndarray:
        """Return a unit's seat (padded,) with this rank's piece in its place (stage 3)."""
        assert number % len(self._buffers) not in self._in_use, "the buffer's unit was not freed"
        seat, piece = self.seats[number], self.pieces[number]
        start = self.partition.rank * piece.size
        seat[start : start + piece.size] = piece
        return seat

    def _gather(self, number: int) -> None:
        with self.partition.purpose("parameters"):
            self.collectives.allgather(self.partition, self._seated(number))

    def free(self, layer: Layer) -> None:
        """Give a unit's whole parameters up: its gather buffer is the next unit's (stage 3)."""
        if self.shard is not None and layer.parameters:
            self._in_use.discard(self.unit[layer.name] % len(self._buffers))

    def reduce(self, layer: Layer, first: bool) -> None:
        """Take a unit's gradient: hop 1, then accumulate in what this rank keeps.

        The reduce-scatter comes before the accumulation, and hop 2, the all-reduce of the gradient
        group, after the last one, so that it carries one shard a step.
        """
        if self.direct or not layer.parameters:
            return
        if self.ahead is not None:
            self.ahead.advance()
        unit = self.layout.units[self.unit[layer.name]]
        arrived = self.bucket[: unit.padded]
        arrived[unit.size :] = 0
        if self.fixed is not None:
            self.fixed.encode(arrived, self.encoded[: unit.padded], f" of unit {unit.name}")
            arrived = self.encoded[: unit.padded]
        if self.stage < 2:
            kept = self.accumulator[unit.place]
        else:
            with self.partition.purpose("gradients"):
                arrived = self.collectives.reduce_scatter(self.partition, arrived)
            kept = self.accumulator[unit.shard_place]
        if first:
            kept[:] = arrived
        else:
            kept += arrived

    # ----------------------------------------------------------------------------- once a step

    def finish(self) -> None:
        """Complete `gradient` after the last micro-step.  Stage 1: hop 1, once for all."""
        if self.gradient is self.accumulator:
            return
        for unit in self.layout.units:
            whole = self.accumulator[unit.place]
            whole[unit.size :] = 0  # the last reduce-scatter left no defined content there
            with self.partition.purpose("gradients"):
                piece = self.collectives.reduce_scatter(self.partition, whole)
            self.gradient[unit.shard_place] = piece

    def update(self, gradient: np.ndarray, lr: float, scale: float) -> None:
        """Let the optimizer move this rank's pieces by ``gradient`` (shard,), then publish."""
        assert self.ahead is None or self.ahead.idle, "a unit was prefetched that nobody used"
        self.optimizer.advance(self.states)
        for unit, piece in zip(self.layout.units, self.pieces, strict=True):
            own = unit.shard_place
            states = {
                name: value[own] if isinstance(value, np.ndarray) else value
                for name, value in self.states.items()
            }
            self.optimizer.update(piece, gradient[own], states, lr, scale)
        self.publish()

    def publish(self) -> None:
        """Make the whole parameters equal in the group.  Stages 1, 2: an all-gather per unit."""
        if self.shard is not None or self.partition.size == 1:
            return
        for seat in self.seats:
            with self.partition.purpose("parameters"):
                self.collectives.allgather(self.partition, seat)

    # ------------------------------------------------------------------------------ as a state

    def weights(self) -> np.ndarray:
        """Return this rank's shard of the parameters (shard,).

        Where it is one run of memory (p = 1, stage 3) it is that memory; otherwise a copy, which
        `replace` puts back.
        """
        if self.shard is not None:
            return self.shard
        assert self.whole is not None
        if self.partition.size == 1:
            return self.whole
        return np.concatenate([self.whole[:0], *self.pieces])

    def replace(self, weights: np.ndarray) -> None:
        """Set this rank's shard of the parameters (shard,), then publish.  Collective."""
        for unit, piece in zip(self.layout.units, self.pieces, strict=True):
            if not np.may_share_memory(piece, weights):
                piece[:] = weights[unit.shard_place]
        self.publish()

    def state(self) -> Tree:
        """Return parameters and optimizer state."""
        optimizer = {
            name: Leaf(value, "block" if isinstance(value, np.ndarray) else "whole")
            for name, value in self.states.items()
        }
        return {"parameters": Leaf(self.weights(), "block"), **under("optimizer", optimizer)}

    def load(self, tree: Tree) -> None:
        """Set what `state` returned.  Collective in the group."""
        for name, leaf in branch(tree, "optimizer").items():
            if isinstance(leaf.value, np.ndarray):
                self.states[name][:] = leaf.value
            else:
                self.states[name] = leaf.value
        self.replace(tree["parameters"].value)

    def each(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and value of every parameter, in order; a view, valid until the next one.

        Stage 3 gathers unit by unit: a model can be digested or saved by ranks that could not
        hold it.  Collective in the group: every rank goes to the end.
        """
        for number, unit in enumerate(self.layout.units):
            if self.shard is not None:
                self._gather(number)
            for name, place, shape in unit.tensors:
                yield name, self.seats[number][place].reshape(shape)

    @property
    def state_bytes(self) -> int:
        """Bytes of model states that this rank keeps between two micro-steps.

        Parameters, accumulated gradients, optimizer state: with P parameters and m states of 4
        bytes ddp's are 4 P (2 + m), and what is sharded is divided by p.
        """
        parameters = self.whole if self.shard is None else self.shard
        assert parameters is not None
        states = sum(a.nbytes for a in self.states.values() if isinstance(a, np.ndarray))
        return parameters.nbytes + self.accumulator.nbytes + states

    @property
    def work_bytes(self) -> int:
        """Bytes of this object's work space: what a unit passes through on its way."""
        arrays = [self.bucket, self.encoded, *self._buffers]
        arrays += [] if self.near is None else [self.near.shard]
        arrays += [] if self.gradient is self.accumulator else [self.gradient]
        return sum(array.nbytes for array in arrays)
