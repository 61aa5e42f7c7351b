"""The gradient axis with one bit per value: the dense sibling of `gtc`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refimpl.collectives import Collectives, chunks
from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.gradient import explain
from refimpl.methods.gradient.compressed import Compressed, dense_calls, warmup_option
from refimpl.methods.gradient.onebit import columns, message
from refimpl.methods.options import option
from refimpl.methods.protocol import Context, GradientMethod
from refimpl.nn.flat import Layout
from refimpl.state.tree import Leaf, Tree


@dataclass(frozen=True)
class OneBit(GradientMethod):
    """Gradients as signs, with error feedback at the sender and at a chunk's owner."""

    name: ClassVar[str] = "onebit"
    title: ClassVar[str] = "one bit per value"
    shown = (explain.onebit, None)

    warmup: int = warmup_option()
    mask: bool = option(
        "--onebit-mask", False, "leave alone what had no gradient in any dense step (--gtc-warmup)"
    )

    by_columns: bool = option(
        "--onebit-values",
        False,
        "what a sign stands for: +- one scale for each chunk (default); or two means, for each "
        "column of a weight matrix",
        choices={"chunk": False, "column": True},
        metavar="OF",
    )

    def refusal(self, collectives: Collectives) -> str | None:
        """Refuse a mask that no dense step could show."""
        if self.warmup or not self.mask:
            return None
        return "--onebit-mask: needs --gtc-warmup N, dense steps that show what has no gradient"

    def keeps_bits(self, layout: Layout) -> bool:
        """Return False where there are shards: a chunk of a shard has one scale."""
        return layout.partition == 1

    def codes(
        self, layout: Layout, shard: int, ranks: int, dtype: np.dtype
    ) -> Sequence[message.Code]:
        """Return how each chunk of a shard is said."""
        if self.by_columns:
            return columns.codes(layout, shard, ranks, dtype)
        return message.scaled(layout.shard, ranks)

    def build(self, context: Context) -> SignCompression:
        """Return the compression of one rank."""
        return SignCompression(self, context)

    def traffic(self, setting: Setting, statistics: Sequence[Statistics] = ()) -> Iterator[Call]:
        """Yield every group's exchange, the same in every step after the warm-up."""
        if statistics and statistics[0]["dense"]:
            yield from dense_calls(setting)
            return
        for group in setting.talking("gradient"):
            shard, dtype = setting.grid.place(group[0]).shard, np.dtype(f"f{setting.itemsize}")
            codes = self.codes(setting.layout, shard, len(group), dtype)
            one = message.cost(setting.layout.shard, setting.nodes.nodes_of(group), codes)
            yield Call(setting, "gradient", group, "gradients", own=one)


class SignCompression(Compressed):
    """Combines the gradients of a group by their signs.

    What a sign stands for is a float mean over a chunk of the group's shard, or what it has of a
    column, so the sums depend on how the vector is cut, and so on g, whatever the reduction.

    Attributes
    ----------
    residual : (shard,) array
        What this rank has not sent yet.
    owned : (chunk,) array
        What this rank has not passed on of the sum of its chunk of the shard.
    seen : (shard,) uint8 array
        With a mask: 1 where the group's gradient was not 0 in some dense step; else ().
    """

    def __init__(self, options: OneBit, context: Context) -> None:
        super().__init__(context, options.warmup)
        n, rank = context.layout.shard, self.group.rank
        cut = chunks.offsets(n, self.group.size)
        shard = context.groups.partition.rank
        self.codes = options.codes(context.layout, shard, self.group.size, context.dtype)
        self.residual = np.zeros(n, context.dtype)
        self.owned = np.zeros(int(cut[rank + 1] - cut[rank]), context.dtype)
        self.masked, self.seen = options.mask, np.zeros(n if options.mask else 0, np.uint8)

    def sum_densely(self, gradient: np.ndarray) -> None:
        """Replace ``gradient`` by its sum over the group, and look where there is any."""
        super().sum_densely(gradient)
        if self.masked:
            self.seen |= gradient != 0

    def compress(self, gradient: np.ndarray) -> None:
        """Replace ``gradient`` by what the group makes of its sum, in place.  Collective."""
        told = self.events.hears("value")
        said: list[np.ndarray] = []
        if told:
            self._tell(self.residual + gradient)
        memory = self.residual, self.owned
        message.allreduce(self.group, gradient, *memory, said if told else None, self.codes)
        if told:  # what the owner's signs were taken of: what it sent, and what it did not
            chunk = chunks.slices(gradient, self.group.size)[self.group.rank]
            self._tell(self.owned + gradient[chunk])
            self.events.tell("message", np.concatenate(said))
        if self.masked:
            silent = self.seen == 0
            gradient[silent] = self.residual[silent] = 0
            self.owned[chunks.slices(silent, self.group.size)[self.group.rank]] = 0

    def _tell(self, signed: np.ndarray) -> None:
        """Tell how near each sign is to being the other, in units of the largest value."""
        self.events.tell("margin", signed / max(np.abs(signed).max(initial=0), 1e-30))

    def compressed_step(self) -> dict[str, Any]:
        """Return ``message_bytes``, all that was sent; the largest ``residual`` and ``owned``."""
        cost = message.cost(self.residual.size, self.group.nodes, self.codes)
        sent = cost.sent_by(self.group.rank)
        return {
            "message_bytes": sum(count.bytes for count in sent.values()),
            "residual": float(np.abs(self.residual).max(initial=0)),
            "owned": float(np.abs(self.owned).max(initial=0)),
        }

    def state(self) -> Tree:
        """Return what is still owed, at both places."""
        seen = {"seen": Leaf(self.seen, "block")} if self.masked else {}
        return {
            "residual": Leaf(self.residual, "own"),
            "owned": Leaf(self.owned, "chunk"),
            "step": Leaf(self.step),
            **seen,
        }

    def load(self, tree: Tree) -> None:
        """Set what `state` returned."""
        self.residual[:], self.owned[:] = tree["residual"].value, tree["owned"].value
        self.step = int(tree["step"].value)
        if self.masked:
            self.seen[:] = tree["seen"].value
