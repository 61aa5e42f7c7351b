"""What fills an axis of the grid: one protocol per axis, and what a method is built from.

A method has two forms.  As it was *chosen* it is a frozen dataclass of options (a `Method`): it
knows its closed formula, and builds what runs.  As it *runs* (an `Axis`) it has buffers and talks.

    axis        chosen            running           what the step asks of it, in this order
    partition   PartitionMethod   PartitionAxis     gather, free, reduce; finish, update
    gradient    GradientMethod    GradientAxis      combine; settle
    block       BlockMethod       BlockAxis         begin, sync
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from refimpl.collectives import Collectives
from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.faults import Faults
from refimpl.methods.options import Options
from refimpl.nn import Layer, Sequential
from refimpl.nn.flat import Layout
from refimpl.numerics.exact import FixedPoint
from refimpl.optim import Optimizer
from refimpl.state.tree import Tree
from refimpl.world.groups import Groups


@dataclass(frozen=True)
class Context:
    """What methods are built from.

    ``groups``: the communicators of all axes.  ``layout``: where units and tensors lie in a
    padded vector, and what of it is a shard.  ``frames``: those behind one worker's gradient of
    a step.  ``exact``: sums are added in fixed point (``--reduction exact``).  ``network`` and
    ``optimizer`` are there for the partition axis.  ``faults`` hear of numbers that cannot be.
    """

    groups: Groups
    collectives: Collectives
    layout: Layout
    dtype: np.dtype
    microsteps: int = 1
    frames: int = 1
    exact: bool = False
    network: Sequential | None = None
    optimizer: Optimizer | None = None
    faults: Faults = field(default_factory=Faults)

    def fixed(self, terms: int, what: str = "the gradient") -> FixedPoint | None:
        """Return the fixed point for sums of so many terms; None with float sums."""
        return FixedPoint(terms, what, self.faults) if self.exact else None


@dataclass(frozen=True)
class Method(Options):
    """What fills an axis, as it was chosen; its fields are its options.

    ``name`` is what tables and golden values call it; ``title`` heads its options in the help.
    ``shown``: functions that return one step of it as text and as SVG, or None, if there are.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    shown: ClassVar[tuple[Callable[[], str], Callable[[], str] | None] | None] = None

    def traffic(self, setting: Setting, statistics: Sequence[Statistics] = ()) -> Iterator[Call]:
        """Yield what all ranks send in one step (on the block axis: at one sync).

        ``statistics``: that step's, by rank; messages that depend on data are a formula in these.
        """
        yield from ()

    def typical(self, setting: Setting, density: float) -> Sequence[Statistics]:
        """Return statistics that a step of this density would have, for a formula on paper."""
        return ()

    def refusal(self, collectives: Collectives) -> str | None:
        """Return why this cannot run with these collectives, if it cannot."""
        return None

    @classmethod
    def example(cls, models: int, steps: int) -> dict[str, Any]:
        """Return options, by field, with which a tiny run of so many steps shows the method.

        Golden values and tests of all rows train with them; ``models``: how many are averaged.
        """
        return {}


class Axis:
    """What runs on an axis."""

    def state(self) -> Tree:
        """Return all that the next step depends on, by name; arrays are not copies."""
        return {}

    def load(self, tree: Tree) -> None:
        """Set what `state` returned."""
        assert not tree

    def statistics(self) -> dict[str, Any]:
        """Return the last step's numbers of this rank, plain data."""
        return {}

    def told(self) -> dict[str, Any]:
        """Return what this rank counted since the last call, for `epoch` on all ranks."""
        return {}

    def epoch(self, ranks: Sequence[Statistics]) -> dict[str, Any]:
        """Return the numbers of an epoch, from what each rank `told`."""
        return self.statistics()

    def warnings(self) -> list[str]:
        """Return what is set so that training cannot go well, in words."""
        return []


class PartitionAxis(Axis):
    """Parameters, gradients and optimizer state of one rank of a partition group.

    ``gradient``: (shard,), this rank's shard of the sum over the worker's frames of a step, once
    every unit was reduced in the last micro-step and `finish` was called; int64 with
    ``--reduction exact``.  ``states``: the optimizer's, by name.  ``state_bytes``: of all three.
    """

    gradient: np.ndarray
    states: dict[str, Any]

    @property
    def state_bytes(self) -> int:
        raise NotImplementedError

    def gather(self, layer: Layer, following: int) -> None:
        """Make a unit's parameters whole; ``following``: +1 in a forward pass, else -1."""
        raise NotImplementedError

    def free(self, layer: Layer) -> None:
        """Say that a unit's whole parameters are not read any more."""
        raise NotImplementedError

    def reduce(self, layer: Layer, first: bool) -> None:
        """Take a unit's gradient: the first of a step, or another to be added."""
        raise NotImplementedError

    def finish(self) -> None:
        """Complete `gradient` after the last micro-step."""
        raise NotImplementedError

    def update(self, gradient: np.ndarray, lr: float, scale: float) -> None:
        """Let the optimizer move the parameters by gradient * scale."""
        raise NotImplementedError

    def weights(self) -> np.ndarray:
        """Return this rank's shard of the parameters (shard,); `replace` puts it back."""
        raise NotImplementedError

    def replace(self, weights: np.ndarray) -> None:
        """Set this rank's shard of the parameters.  Collective in the partition group."""
        raise NotImplementedError

    def each(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yield name and value of every parameter; a value is valid until the next one.

        Collective in the partition group: every rank goes to the end.
        """
        raise NotImplementedError


class GradientAxis(Axis):
    """How the gradients of a group become one; `every_microstep`: `combine_now` is called, too."""

    every_microstep: bool = False

    def combine(self, gradient: np.ndarray) -> np.ndarray:
        """Return what the group makes of the sum of its gradients (shard,), as floats.

        ``gradient`` is this worker's: floats, or the int64 of ``--reduction exact``.  It may be
        overwritten, and be what is returned: the same bits on all ranks of the group.  Collective.
        """
        raise NotImplementedError

    def combine_now(self, gradient: np.ndarray, first: bool) -> None:
        """Take one micro-step's gradient, a step's first or another; `combine` then has all."""
        raise NotImplementedError

    def settle(self, memory: np.ndarray) -> np.ndarray | None:
        """Deal with what is still owed before models are averaged.

        Returns the gradient of one more step, in ``memory`` or elsewhere, or None.  Collective.
        """
        return None


class BlockAxis(Axis):
    """How the blocks' models become one.

    ``steps``: local steps of a block.  ``resets``: whether the optimizer begins a block without
    memory.  ``model``: (shard,), what is evaluated and saved.  ``early``: so many steps before the
    end of a block `prepare` is called; 0, never.  ``together``: whether all groups hold one model
    since the last sync.  ``frames``: those behind this group's steps since then.
    """

    steps: int
    resets: bool
    model: np.ndarray
    early: int = 0
    together: bool = True
    frames: int = 0

    def begin(self, weights: np.ndarray) -> None:
        """Take the first model (shard,), the same on all ranks with this shard; or a later one."""
        raise NotImplementedError

    def prepare(self, weights: np.ndarray) -> None:
        """Take the weights (shard,) that the coming sync is about; sends nothing."""

    def sync(self, weights: np.ndarray, closing: bool = False) -> None:
        """End a block: set the weights (shard,) to the start of the next.  Collective.

        ``closing``: bring all groups together, as `model` is to be evaluated.
        """
        raise NotImplementedError

    def said(self) -> Statistics:
        """Return what the formula of the last sync depends on, without a message."""
        return {}

    def start(self) -> np.ndarray:
        """Return where the block that begins starts from (shard,): what `sync` set."""
        raise NotImplementedError


@dataclass(frozen=True)
class PartitionMethod(Method):
    """A method of the partition axis; ``stage``: what is sharded, 0 for nothing."""

    stage = 0

    def publishing(self, setting: Setting) -> Iterator[Call]:
        """Yield what it takes to make parameters whole after each change, beside the steps'."""
        yield from ()

    def beside(self, setting: Setting) -> Iterator[tuple[str, str, int]]:
        """Yield what a rank keeps beside the model states: what, as a formula, and bytes."""
        yield from ()

    def build(self, context: Context) -> PartitionAxis:
        """Return what runs.  Collective."""
        raise NotImplementedError


@dataclass(frozen=True)
class GradientMethod(Method):
    """A method of the gradient axis.

    ``every_microstep``: it is asked after each of them, too.  ``warmup``: dense steps first.
    ``by_columns``: what it sends depends on parameters' shapes, not on their number alone.
    """

    every_microstep = False
    warmup = 0
    by_columns = False

    def keeps_bits(self, layout: Layout) -> bool:
        """Return whether, with ``--reduction exact``, these shards take the whole's steps."""
        return True

    def settling(self, setting: Setting) -> Iterator[Call] | None:
        """Return what `GradientAxis.settle` sends, if it makes one more step; else None."""
        return None

    @property
    def sometimes_dense(self) -> bool:
        """Whether the run's collectives sum in some steps what its own messages do in others."""
        return self.warmup > 0

    def build(self, context: Context) -> GradientAxis:
        """Return what runs.  Collective."""
        raise NotImplementedError


@dataclass(frozen=True)
class BlockMethod(Method):
    """A method of the block axis; ``warm``: steps of a warm start; ``fragments``: of the model."""

    warm = 0
    fragments = 1

    @property
    def together(self) -> bool:
        """Whether all groups hold one model after every sync."""
        return True

    def build(self, context: Context) -> BlockAxis:
        """Return what runs.  Collective."""
        raise NotImplementedError
