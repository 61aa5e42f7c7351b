"""The partition axis: who holds which part of the model states.

A partition group of p ranks holds one replica of the model states.  Every *unit* (a layer's
parameters) is padded to a multiple of p and cut into p pieces; rank s of the group owns piece s of
every unit, and its pieces end to end are its *shard*.

    stage   parameters          gradients           optimizer state    sent in a partition group
      0     whole               whole               whole              nothing (p = 1)
      1     whole               whole               shard              once a step
      2     whole               shard               shard              gradients every micro-step
      3     shard               shard               shard              both every micro-step

One path serves all of them: `fetch` makes a unit's parameters whole before they are used, `reduce`
takes its gradient afterwards (hop 1 of the two-hop synchronisation), `publish` follows the
update.  With p = 1 a shard is the whole and the messages of these calls vanish by themselves.

A unit's tensors lie side by side, so each of these is one collective per unit; all buffers are
allocated once.  In stage 3 whole parameters live in one gather buffer, as long as the largest
unit: fetching a unit frees the one before it, and nothing here ever holds all parameters at once,
neither to start (`initialise`), nor to evaluate, nor to save (`each`).

With ``prefetch`` there are two gather buffers, and units alternate between them.  Before a unit
computes, the messages that bring the next one are started; its own `fetch` completes them::

    without    | gather 0 | compute 0 | gather 1 | compute 1 | gather 2 | compute 2
    with       | gather 0 | compute 0            | compute 1            | compute 2
                          | gather 1 ...         | gather 2 ...
    buffer          A           B                      A

The same messages and the same bits; only MPI decides how much of a message moves meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refimpl.nn.flat import Layout
from refimpl.numerics.exact import FixedPoint

if TYPE_CHECKING:
    from refimpl.collectives import Collectives
    from refimpl.nn import Layer, Sequential
    from refimpl.optim import Optimizer
    from refimpl.world.communicator import Communicator


class ModelStates:
    """Parameters, gradients and optimizer state of one rank of a partition group.

    Parameters
    ----------
    network : Sequential
        Its layers are bound to this object's memory.
    partition : Communicator
        The p ranks of the partition group.
    collectives : Collectives
        The algorithms for all-gather and reduce-scatter.
    optimizer : Optimizer
        Decides which optimizer states there are.
    stage : int
        What is sharded, 0 to 3; stage 0 needs p = 1.
    microsteps : int
        Micro-steps of one step.
    fixed : FixedPoint or None
        Accumulate gradients as int64 fixed point (``--reduction exact``), or as they are.
    prefetch : bool
        Stage 3 with ring collectives: start to gather the next unit before one computes.

    Attributes
    ----------
    gradient : (shard,) array
        This rank's shard of the sum over the worker's frames of the step, once `reduce` has
        seen every unit in the last micro-step and `finish` was called; int64 with ``fixed``.
    pieces : list of views
        This rank's piece of each unit's parameters, wherever they live.
    states : dict of (shard,) arrays
        Optimizer state by name.
    """

    def __init__(
        self,
        network: Sequential,
        partition: Communicator,
        collectives: Collectives,
        optimizer: Optimizer,
        *,
        stage: int,
        microsteps: int,
        dtype: np.dtype,
        fixed: FixedPoint | None = None,
        prefetch: bool = False,
    ) -> None:
        assert stage > 0 or partition.size == 1, "stage 0 replicates: p must be 1"
        assert not prefetch or (stage == 3 and collectives.ahead is not None)
        self.network, self.partition, self.collectives = network, partition, collectives
        self.stage, self.microsteps, self.dtype, self.fixed = stage, microsteps, dtype, fixed
        self.layout = layout = Layout(network.units, partition.size)
        self.unit = {layer.name: number for number, layer in enumerate(network.units)}
        largest = max((unit.padded for unit in layout.units), default=0)

        # Parameters: whole and bound for good, or a shard and gather buffers that units share.
        if stage < 3:
            self.whole = np.zeros(layout.padded, dtype)
            self.shard = None
            self._buffers: list[NDArray] = []
            self.seats = [self.whole[unit.place] for unit in layout.units]
            self.pieces = [self.whole[unit.piece_place(partition.rank)] for unit in layout.units]
        else:
            self.whole = None
            self.shard = np.zeros(layout.shard, dtype)
            self._buffers = [np.zeros(largest, dtype) for _ in range(1 + prefetch)]
            self.seats = [
                self._buffers[i % (1 + prefetch)][: unit.padded]
                for i, unit in enumerate(layout.units)
            ]
            self.pieces = [self.shard[unit.shard_place] for unit in layout.units]

        self.prefetch = prefetch
        self._coming: tuple[int, Iterator[None]] | None = None  # the unit on its way, and how

        # Gradients: backward writes one unit at a time into the bucket; what is kept is the
        # accumulator.  Where the two would be equal, backward writes to the accumulator itself.
        kept = layout.padded if stage < 2 else layout.shard
        self.accumulator = np.zeros(kept, dtype if fixed is None else np.int64)
        self.direct = stage < 2 and microsteps == 1 and fixed is None
        self.bucket = np.zeros(0 if self.direct else largest, dtype)
        self.encoded = np.zeros(0 if fixed is None else largest, np.int64)
        deferred = stage == 1 and partition.size > 1
        self.gradient = (
            np.zeros(layout.shard, self.accumulator.dtype) if deferred else self.accumulator
        )
        self.states = optimizer.allocate(layout.shard, dtype)
        self._bind()

    def _bind(self) -> None:
        for number, layer in enumerate(self.network.units):
            unit = self.layout.units[number]
            memory = self.accumulator[unit.place] if self.direct else self.bucket
            layer.bind(self.seats[number][: unit.size], memory[: unit.size])

    @property
    def state_bytes(self) -> int:
        """Bytes of model states that this rank keeps between two micro-steps.

        Parameters, accumulated gradients and optimizer state; with P parameters (padded),
        4-byte floats and an optimizer of m states, the ddp formula is 4 P (2 + m), and each
        sharded part is divided by p.
        """
        parameters = self.whole if self.shard is None else self.shard
        states = sum(a.nbytes for a in self.states.values() if isinstance(a, np.ndarray))
        return parameters.nbytes + self.accumulator.nbytes + states

    @property
    def work_bytes(self) -> int:
        """Bytes of this object's work space: what a unit passes through on its way."""
        arrays = [self.bucket, self.encoded, *self._buffers]
        if self.gradient is not self.accumulator:
            arrays.append(self.gradient)
        return sum(array.nbytes for array in arrays)

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

    def fetch(self, layer: Layer) -> None:
        """Make a unit's parameters whole, in a forward pass.  Stage 3: one all-gather."""
        self._fetch(self.unit[layer.name], following=+1)

    def fetch_again(self, layer: Layer) -> None:
        """Make a unit's parameters whole, in a backward pass.  Stage 3: one all-gather."""
        self._fetch(self.unit[layer.name], following=-1)

    def _fetch(self, number: int, following: int) -> None:
        if self.shard is None:
            return
        if self._coming is None:
            self._gather(number)
        else:
            coming, steps = self._coming
            assert coming == number, f"unit {coming} was prefetched, not {number}"
            with self.partition.purpose("parameters"):
                for _ in steps:
                    pass
            self._coming = None
        following += number
        if self.prefetch and 0 <= following < len(self.seats):
            assert self.collectives.ahead is not None
            seat = self._seated(following)
            self._coming = following, self.collectives.ahead(self.partition, seat)
            self._advance()

    def _seated(self, number: int) -> NDArray:
        """Return a unit's seat (padded,) with this rank's piece in its place (stage 3)."""
        seat, piece = self.seats[number], self.pieces[number]
        start = self.partition.rank * piece.size
        seat[start : start + piece.size] = piece
        return seat

    def _gather(self, number: int) -> None:
        seat = self._seated(number)
        with self.partition.purpose("parameters"):
            self.collectives.allgather(self.partition, seat)

    def _advance(self) -> None:
        """Take one step of the gather that is under way, if any."""
        if self._coming is not None:
            _, steps = self._coming
            with self.partition.purpose("parameters"):
                next(steps, None)

    def reduce(self, layer: Layer, microstep: int) -> None:
        """Take a unit's gradient: hop 1, then accumulate in what this rank keeps.

        The reduce-scatter comes before the accumulation and the all-reduce along the
        replication group (hop 2) after the last one, so that hop 2 carries one shard a step.
        """
        if self.direct:
            return
        self._advance()
        unit = self.layout.units[self.unit[layer.name]]
        arrived = self.bucket[: unit.padded]
        arrived[unit.size :] = 0
        if self.fixed is not None:
            self.fixed.encode(arrived, self.encoded[: unit.padded])
            arrived = self.encoded[: unit.padded]
        if self.stage < 2:
            kept = self.accumulator[unit.place]
        else:
            with self.partition.purpose("gradients"):
                arrived = self.collectives.reduce_scatter(self.partition, arrived)
            kept = self.accumulator[unit.shard_place]
        if microstep == 0:
            kept[:] = arrived
        else:
            kept += arrived

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

    def update(self, optimizer: Optimizer, gradient: NDArray, lr: float, scale: float) -> None:
        """Let the optimizer move this rank's pieces by ``gradient`` (shard,), then publish."""
        assert self._coming is None, "a unit was prefetched that nobody fetched"
        optimizer.advance(self.states)
        for unit, piece in zip(self.layout.units, self.pieces, strict=True):
            own = unit.shard_place
            states = {
                name: value[own] if isinstance(value, np.ndarray) else value
                for name, value in self.states.items()
            }
            optimizer.update(piece, gradient[own], states, lr, scale)
        self.publish()

    def publish(self) -> None:
        """Make the whole parameters equal in the group.  Stages 1, 2: an all-gather per unit."""
        if self.shard is not None or self.partition.size == 1:
            return
        for seat in self.seats:
            with self.partition.purpose("parameters"):
                self.collectives.allgather(self.partition, seat)

    def own(self, out: NDArray) -> NDArray:
        """Return ``out`` (shard,), filled with this rank's shard of the parameters."""
        for unit, piece in zip(self.layout.units, self.pieces, strict=True):
            out[unit.shard_place] = piece
        return out

    def replace(self, shard: NDArray) -> None:
        """Set this rank's shard of the parameters to ``shard``, then publish."""
        for unit, piece in zip(self.layout.units, self.pieces, strict=True):
            piece[:] = shard[unit.shard_place]
        self.publish()

    def snapshot(self) -> dict[str, Any]:
        """Return copies of this rank's parameters and optimizer state."""
        states = {n: v.copy() if isinstance(v, np.ndarray) else v for n, v in self.states.items()}
        return {"parameters": [piece.copy() for piece in self.pieces], "states": states}

    def restore(self, saved: dict[str, Any]) -> None:
        """Go back to a `snapshot`.  Collective in the group."""
        for piece, value in zip(self.pieces, saved["parameters"], strict=True):
            piece[:] = value
        for name, value in saved["states"].items():
            if isinstance(value, np.ndarray):
                self.states[name][:] = value
            else:
                self.states[name] = value
        self.publish()

    def each(self) -> Iterator[tuple[str, NDArray]]:
        """Yield name and value of every parameter, in order; a view, valid until the next one.

        Stage 3 gathers unit by unit, so that a model can be digested or saved by ranks that
        could not hold it.  Collective in the group: every rank goes to the end.
        """
        for number, unit in enumerate(self.layout.units):
            if self.shard is not None:
                self._gather(number)
            for name, place, shape in unit.tensors:
                yield name, self.seats[number][place].reshape(shape)

    def parameters(self) -> dict[str, NDArray]:
        """Return copies of all parameters by name: the whole model, on every rank.  Collective."""
        return {name: value.copy() for name, value in self.each()}

    def load(self, named: dict[str, NDArray]) -> None:
        """Set all parameters from whole arrays by name; every rank gives the same."""
        for number, unit in enumerate(self.layout.units):
            seat = self.seats[number]
            seat[:] = 0
            for name, place, shape in unit.tensors:
                seat[place].reshape(shape)[...] = named[name]
            self._keep(number)
