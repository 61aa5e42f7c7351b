"""The gradient axis with threshold compression (GTC).

    in each of the first ``warmup`` steps:    gradient = dense sum over the group
    then, in every step:                      words    = encode(residual, gradient, tau)
                                              gradient = sum over the group of words, times tau

The optimizer runs afterwards, on what is the same sum on all ranks of the group; so its state is
the same too, and weight decay, clipping and momentum never meet the threshold.

Ranks of a partition group compress a shard each.  Only the adaptive threshold looks at more than
one value, and it counts the entries of all shards; so any cut takes the same steps, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from refimpl.collectives import Collectives, small
from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.gradient import local
from refimpl.methods.gradient.compressed import Compressed, dense_calls, warmup_option
from refimpl.methods.gradient.gtc import explain, guard, threshold, wire
from refimpl.methods.gradient.gtc.exchange import Exchanged, exchange
from refimpl.methods.gradient.gtc.exchange import cost as exchange_cost
from refimpl.methods.options import POSITIVE, Check, least, option
from refimpl.methods.protocol import Context, GradientMethod
from refimpl.state.tree import Leaf, Tree


@dataclass(frozen=True)
class Threshold(GradientMethod):
    """Gradients as messages of +-tau; what was not sent stays in the residual."""

    name: ClassVar[str] = "gtc"
    title: ClassVar[str] = "gradient threshold compression (GTC)"
    shown = (explain.explain, explain.picture)

    tau: float = option("--tau", 8.0, "the threshold", POSITIVE)
    units: str = option(
        "--tau-units",
        "sum",
        "what tau is a threshold of: the gradient's sum (default) or mean over a worker's frames",
        choices=("sum", "mean"),
        metavar="UNITS",
    )
    format: str = option(
        "--wire-format",
        "auto",
        f"of the messages: {', '.join(wire.CHOICES)}",
        choices=wire.CHOICES,
        metavar="NAME",
    )
    warmup: int = warmup_option()
    target: float | None = option(
        "--target-density",
        None,
        "steer tau to this density, by a factor of 0.5 ** (1/20) a step",
        Check(lambda density: 0 < density < 1, "between 0 and 1, for example 0.005"),
    )
    clip_at: float = option(
        "--residual-clip", 5.0, "clip residuals at so many tau (default: 5)", least(1)
    )
    clip_every: int = option(
        "--residual-clip-every",
        0,
        "steps from one clipping to the next (default: 0, never)",
        least(0),
    )
    local_clip: float | None = local.clip_option()
    correction: float = local.momentum_option()
    at_sync: str = option(
        "--residuals",
        "keep",
        "at the end of a block: keep (default), zero, fold into one more step",
        choices=("keep", "zero", "fold"),
        axis="block",
    )

    def refusal(self, collectives: Collectives) -> str | None:
        """Refuse a clip of residuals that is never made."""
        idle = not self.clip_every and self.clip_at != Threshold.clip_at
        return f"--residual-clip {self.clip_at:g}: needs --residual-clip-every N" if idle else None

    def build(self, context: Context) -> ThresholdCompression:
        """Return the compression of one rank."""
        return ThresholdCompression(self, context)

    @classmethod
    def example(cls, models: int, steps: int) -> dict[str, Any]:
        """Return a threshold that some of a tiny run's values pass."""
        return {"tau": 4.0, "units": "sum", "format": "auto"}

    def traffic(self, setting: Setting, statistics: Sequence[Statistics] = ()) -> Iterator[Call]:
        """Yield every group's exchange, by the bytes that each rank's message had.

        Without statistics, and in a warm-up step, the dense sum.
        """
        if not statistics or statistics[0]["dense"]:
            yield from dense_calls(setting)
            return
        if self.target is not None:
            yield from self._asking(setting)
        if self.local_clip is not None:
            yield from local.calls(setting)
        for group in setting.talking("gradient"):
            lengths = [statistics[rank]["message_bytes"] for rank in group]
            one = exchange_cost(lengths, setting.nodes.nodes_of(group))
            yield Call(setting, "gradient", group, "gradients", own=one)

    def settling(self, setting: Setting) -> Iterator[Call] | None:
        """Return the dense sum of what is folded, and the question whether it is anything."""
        if self.at_sync != "fold":
            return None
        return chain(dense_calls(setting), self._asking(setting))

    def _asking(self, setting: Setting) -> Iterator[Call]:
        """Yield what the shards tell each other in one number."""
        for group in setting.talking("partition"):
            one = small.cost(1, setting.nodes.nodes_of(group))
            yield Call(setting, "partition", group, "control", own=one)

    def typical(self, setting: Setting, density: float) -> Sequence[Statistics]:
        """Return the statistics of a step in which every rank sends this share of its values."""
        n = setting.layout.shard
        entries = np.linspace(0, n, round(density * n), endpoint=False).astype(np.uint32)
        words = entries << np.uint32(1)
        form = wire.choose(words, n, self.format)
        one = {"dense": False, "message_bytes": wire.size(words, n, form)}
        return [one] * setting.grid.world


class ThresholdCompression(Compressed):
    """Combines the gradients of a group by messages of +-tau.

    Attributes
    ----------
    residual : (shard,) array
        What this rank still owes.
    tau : float
        The threshold of the next step, in sum units, a value of the gradient's dtype.
    """

    def __init__(self, options: Threshold, context: Context) -> None:
        super().__init__(context, options.warmup)
        n, self.options = context.layout.shard, options
        partition = context.groups.partition
        self.partition = partition if partition.size > 1 else None
        # Entries that a step can have at most.  Only the adaptive threshold asks the other shards.
        counted = n if options.target is None else context.layout.size
        self.values = counted * self.group.size
        self.scale = 1 if options.units == "sum" else context.frames
        self.tau = threshold.rounded(options.tau * self.scale, context.dtype)
        threshold.check_tau(self.tau, n)
        self.compressed = 0
        self.residual = np.zeros(n, context.dtype)
        self.local = local.Local(options.local_clip, options.correction, context)
        self.guard = guard.Guard(self.values)
        self._words = np.empty(n, np.uint32)
        self._counts = threshold.Counts(n, self.group.size)
        self._last: dict[str, Any] = {}
        self._told = dict.fromkeys(("steps", "entries", "message_bytes"), 0)
        self._largest = 0.0

    def compress(self, gradient: np.ndarray) -> None:
        """Replace ``gradient`` by what the group makes of its sum, in place.

        Collective over the group, and with an adaptive threshold over the partition group too.
        """
        self.local(gradient)
        if self.events.hears("value"):
            # How near each value is to being decided otherwise, in units of tau.
            self.events.tell("margin", np.abs(self.residual + gradient) / self.tau - 1)
        with self.events.during("compute", "encode"):
            words = threshold.encode(self.residual, gradient, self.tau, self._words)
        if self.local.momentum:
            self.local.sent(threshold.indices(words))
        form, counts = self.options.format, self._counts
        self._conclude(exchange(self.group, words, self.tau, counts, gradient, form))

    def sum_densely(self, gradient: np.ndarray) -> None:
        """Replace ``gradient`` by its sum over the group: a step of the warm-up."""
        super().sum_densely(gradient)
        self._last = {"dense": True, "tau": self.tau / self.scale}

    def _conclude(self, sent: Exchanged) -> None:
        """Count, steer the threshold, clip the residual."""
        self.compressed += 1
        tau, options, dtype = self.tau, self.options, self.residual.dtype
        entries = sum(sent.entries)
        if options.target is not None:
            entries = self._over_shards(entries)
        self.guard.observe(entries)
        self._last = {
            "dense": False,
            "tau": tau / self.scale,
            "density": entries / max(1, self.values),
            "entries": sent.entries[self.group.rank],
            "format": sent.format,
            "message_bytes": sent.bytes,
        }
        for name, number in self._told.items():
            self._told[name] = number + self._last.get(name, 1)
        if options.target is not None:
            self.tau = threshold.adapted(tau, entries, self.values, options.target, dtype)
        if options.clip_every and self.compressed % options.clip_every == 0:
            threshold.clip(self.residual, options.clip_at * tau)

    def _over_shards(self, entries: int) -> int:
        """Return the sum over the partition group."""
        if self.partition is None:
            return entries
        return int(small.gathered(self.partition, [entries]).sum())

    def statistics(self) -> dict[str, Any]:
        """Return the last step's numbers, plain data; empty before the first.

        ``dense``: whether it was a warm-up step; ``tau`` in ``units``; and if it was compressed
        ``density`` (the group's entries over what they could have been; with an adaptive
        threshold those of all shards), this rank's ``entries``, ``format`` and
        ``message_bytes``, and ``residual``: max |residual| / tau now.
        """
        if not self._last:
            return {}
        numbers = self._last | {"units": self.options.units}
        if not numbers["dense"]:
            numbers["residual"] = threshold.peak(self.residual) / self.scale / numbers["tau"]
        return numbers

    def told(self) -> dict[str, Any]:
        """Return steps, entries, message bytes since the last call; max |residual| / tau now."""
        told, self._told = self._told, dict.fromkeys(self._told, 0)
        return told | {"residual": threshold.peak(self.residual) / self.tau}

    def epoch(self, ranks: Sequence[Statistics]) -> dict[str, Any]:
        """Return the last step's numbers, but means over the epoch's steps: `guard.means`."""
        means = guard.means(ranks, self.residual.size)
        self._largest = means["residual"]
        return self.statistics() | (means if "density" in means else {})

    def warnings(self) -> list[str]:
        """Return what is wrong with the residuals, momentum or tau, if anything is.

        Of tau once `Guard.watching` turns false, or at the end of a shorter run: the same on all
        ranks with this shard, but for this rank's residual.  Of any rank's at the last `epoch`.
        """
        largest = threshold.peak(self.residual)
        lost = guard.lost(max(self._largest, largest / self.tau), self.residual.dtype)
        units, scale = self.options.units, self.scale
        verdict = self.guard.verdict(self.tau / scale, units, largest / scale)
        return [text for text in (lost, self.local.warning(), verdict) if text]

    def settle(self, memory: np.ndarray) -> np.ndarray | None:
        """Deal with the residuals before models are averaged, as ``--residuals`` says.

        ``keep``: leave them.  ``zero``: forget them.  ``fold``: set them to zero, and return their
        dense sum over the group as the gradient of one more step, if it is not zero on all shards.
        With plain SGD at one rate, without decay and clip, the group has then applied exactly what
        it computed; momentum, decay and a clip act on this step as on any other.
        """
        policy = self.options.at_sync
        owed = None
        if policy == "fold":
            owed = memory if self.fixed is None else self._floats
            owed[:] = self.residual
            with self.group.purpose("gradients"):
                super().sum_densely(owed)
            if not self._over_shards(int(owed.any())):
                owed = None
        if policy != "keep":
            self.residual.fill(0)
        self.local.velocity.fill(0)
        return owed

    def state(self) -> Tree:
        """Return the residual, this worker's own, the block's threshold, and what was counted."""
        return {
            "residual": Leaf(self.residual, "own"),
            "tau": Leaf([self.tau, self.scale], "block"),
            "step": Leaf(self.step),
            "compressed": Leaf(self.compressed),
            "guard": Leaf([self.guard.steps, self.guard.entries], "own"),
            "told": Leaf([*self._told.values()], "part"),
            **self.local.state(),
        }

    def load(self, tree: Tree) -> None:
        """Set what `state` returned."""
        self.residual[:] = tree["residual"].value
        self.local.load(tree)
        tau, scale = tree["tau"].value  # perhaps of workers that had more frames, or fewer
        self.tau = threshold.rounded(tau * (self.scale / scale), self.residual.dtype)
        self.step = int(tree["step"].value)
        self.compressed = int(tree["compressed"].value)
        self.guard.steps, self.guard.entries = map(int, tree["guard"].value)
        self._told = dict(zip(self._told, tree["told"].value, strict=True))
