"""The gradient axis with chunked top-k: every rank sends the largest values of every chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.gradient import explain
from refimpl.methods.gradient.compressed import Compressed, dense_calls, warmup_option
from refimpl.methods.gradient.topk import exchange, message
from refimpl.methods.options import Check, least, option
from refimpl.methods.protocol import Context, GradientMethod
from refimpl.nn.flat import Layout
from refimpl.state.tree import Leaf, Tree


@dataclass(frozen=True)
class TopK(GradientMethod):
    """The largest values of every chunk; what was not sent stays in the residual."""

    name: ClassVar[str] = "topk"
    title: ClassVar[str] = "chunked top-k with error feedback"
    shown = (explain.topk, None)

    most: int = option("--topk", 32, "values of a chunk that are sent", least(1))
    length: int = option(
        "--topk-chunk",
        4096,
        "values of a chunk",
        Check(lambda c: 1 <= c <= message.LONGEST, f"at least 1 and at most {message.LONGEST}"),
    )
    decay: float = option(
        "--topk-decay",
        1.0,
        "what a step leaves of the residual (default: 1, all)",
        Check(lambda decay: 0 <= decay <= 1, "at least 0 and at most 1"),
    )
    two_bit: bool = option(
        "--topk-values",
        False,
        "how values are sent: float (default), two-bit",
        choices={"float": False, "two-bit": True},
        metavar="KIND",
    )
    over_senders: bool = option(
        "--topk-mean",
        False,
        "a value's mean is over all ranks (default) or over the senders, those that sent it",
        choices={"all": False, "senders": True},
        metavar="OVER",
    )
    warmup: int = warmup_option()

    def keeps_bits(self, layout: Layout) -> bool:
        """Return whether every piece of a unit that was cut is a multiple of the chunk."""
        return message.aligned(layout, self.length)

    def build(self, context: Context) -> TopKCompression:
        """Return the compression of one rank."""
        return TopKCompression(self, context)

    @classmethod
    def example(cls, models: int, steps: int) -> dict[str, Any]:
        """Return chunks of a few values, a quarter of which is sent."""
        return {"most": 1, "length": 4, "decay": 0.5, "two_bit": False, "over_senders": False}

    def chunks(self, layout: Layout, shard: int, dtype: np.dtype) -> message.Chunks:
        """Return the chunks of a shard."""
        return message.Chunks(layout, shard, self.length, self.most, self.two_bit, dtype)

    def traffic(self, setting: Setting, statistics: Sequence[Statistics] = ()) -> Iterator[Call]:
        """Yield every group's exchange, the same in every step after the warm-up.

        Groups differ by what of their shard is padding.
        """
        if statistics and statistics[0]["dense"]:
            yield from dense_calls(setting)
            return
        dtype = np.dtype(f"f{setting.itemsize}")
        for group in setting.talking("gradient"):
            shard = setting.grid.place(group[0]).shard
            nbytes = self.chunks(setting.layout, shard, dtype).message_bytes
            one = exchange.cost(nbytes, setting.nodes.nodes_of(group))
            yield Call(setting, "gradient", group, "gradients", own=one)


class TopKCompression(Compressed):
    """Combines the gradients of a group by the largest values of their chunks.

    Attributes
    ----------
    residual : (shard,) array
        What this rank has not sent yet.
    """

    def __init__(self, options: TopK, context: Context) -> None:
        super().__init__(context, options.warmup)
        n, self.options = context.layout.shard, options
        shard = context.groups.partition.rank
        self.chunks = options.chunks(context.layout, shard, context.dtype)
        self.residual = np.zeros(n, context.dtype)
        self._senders = np.zeros(n, np.uint16) if options.over_senders else None

    def compress(self, gradient: np.ndarray) -> None:
        """Replace ``gradient`` by what the group makes of its sum, in place.  Collective.

        The optimizer divides by all frames of the group; so a mean over the senders comes as g
        times that mean.
        """
        residual = self.residual
        if self.options.decay != 1:
            residual *= residual.dtype.type(self.options.decay)
        residual += gradient
        if self.events.hears("value"):
            self.events.tell("margin", self.chunks.margin(residual))
        exchange.exchange(self.group, self.chunks, residual, gradient, self._senders)

    def compressed_step(self) -> dict[str, Any]:
        """Return ``entries`` and ``message_bytes`` of the message; the largest ``residual``."""
        return {
            "entries": self.chunks.entries,
            "message_bytes": self.chunks.message_bytes,
            "residual": float(np.abs(self.residual).max(initial=0)),
        }

    def state(self) -> Tree:
        """Return the residual, this worker's own."""
        return {"residual": Leaf(self.residual, "own"), "step": Leaf(self.step)}

    def load(self, tree: Tree) -> None:
        """Set what `state` returned."""
        self.residual[:] = tree["residual"].value
        self.step = int(tree["step"].value)
