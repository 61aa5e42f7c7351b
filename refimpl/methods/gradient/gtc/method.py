"""The gradient axis with threshold compression (GTC).

    in each of the first ``warmup`` steps:    gradient = dense sum over the group
    then, in every step:                      words    = encode(residual, gradient, tau)
                                              gradient = sum over the group of words, times tau

The optimizer runs afterwards, on what is the same sum on all ranks of the group; so its state is
the same too, and weight decay, clipping and momentum never meet the threshold.

Ranks of a partition group compress a shard each.  Nothing here looks at more than one value at a
time but the adaptive threshold, which counts the entries of all shards; so any cut into shards
takes the same steps, to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from refimpl.collectives import ring
from refimpl.methods import dense
from refimpl.methods.gradient.exact import GradientAxis
from refimpl.methods.gradient.gtc import threshold, wire
from refimpl.methods.gradient.gtc.exchange import Exchanged, exchange
from refimpl.methods.gradient.gtc.guard import Guard
from refimpl.support.errors import listed, require

if TYPE_CHECKING:
    from refimpl.collectives import Collectives
    from refimpl.numerics.exact import FixedPoint
    from refimpl.world.communicator import Communicator

UNITS = ("sum", "mean")

# What becomes of the residuals when models are averaged (BMUF).
RESIDUALS = ("keep", "zero", "fold")


@dataclass(frozen=True)
class ThresholdOptions:
    """How gradients are compressed.

    Attributes
    ----------
    tau : float
        The threshold; with ``target`` where it starts.
    units : str
        What tau is a threshold of: the ``sum`` of the gradient over a worker's frames of a step,
        or their ``mean`` (tau in sum units is then tau times the frames).
    format : str
        Of the messages, one of `wire.CHOICES`.
    warmup : int
        Steps with the dense sum before the first compressed one.
    target : float, optional
        A density that tau is steered to, by a factor 0.5 ** (1/20) up or down in every step.
    clip_every : int
        Clip the residual after every so many compressed steps; 0 for never.
    clip_at : float
        To so many times tau.
    """

    tau: float
    units: str = "sum"
    format: str = "auto"
    warmup: int = 0
    target: float | None = None
    clip_every: int = 0
    clip_at: float = 5.0

    def check(self) -> None:
        """Refuse what cannot be meant."""
        threshold.check_tau(self.tau, 0)
        wire.check_format(self.format)
        require(
            self.units in UNITS, f"tau in units of {self.units!r}: choose one of {listed(UNITS)}"
        )
        require(self.warmup >= 0, f"{self.warmup} dense warm-up steps: must be at least 0")
        require(
            self.target is None or 0 < self.target < 1,
            f"target density {self.target}: must be between 0 and 1, for example 0.005",
        )
        require(
            self.clip_every >= 0,
            f"residual clipping every {self.clip_every} steps: must be at least 0 (never)",
        )
        require(
            self.clip_at >= 1, f"residual clipping at {self.clip_at} tau: must be at least 1 tau"
        )


class ThresholdCompression(GradientAxis):
    """Combines the gradients of a group by messages of +-tau.

    Parameters
    ----------
    group : Communicator
        The g ranks with this shard and other data.
    collectives : Collectives
        For the dense sums (warm-up, folded residuals).
    n : int
        The length of this rank's shard.
    dtype : dtype
        Of gradient and residual, float32 or float64.
    options : ThresholdOptions
        Checked here.
    frames : int
        Frames behind one gradient before it is combined: those of this worker's step.
    partition : Communicator, optional
        The ranks that hold the other shards.
    parameters : int, optional
        The number of parameters in all shards, without padding: what the target density is a
        share of.  By default n.
    fixed : FixedPoint, optional
        For dense sums that do not depend on their order (``--reduction exact``), g terms.

    Attributes
    ----------
    residual : (n,) array
        What this rank still owes.
    tau : float
        The threshold of the next step, in sum units, a value of the gradient's dtype.
    step, compressed : int
        Steps so far, and compressed ones among them.
    """

    def __init__(
        self,
        group: Communicator,
        collectives: Collectives,
        n: int,
        dtype: DTypeLike,
        options: ThresholdOptions,
        *,
        frames: int = 1,
        partition: Communicator | None = None,
        parameters: int | None = None,
        fixed: FixedPoint | None = None,
    ) -> None:
        options.check()
        self.group, self.collectives, self.options, self.fixed = group, collectives, options, fixed
        self.partition = partition if partition is not None and partition.size > 1 else None
        # Entries that a step can have at most.  Only the adaptive threshold asks the other shards.
        counted = n if options.target is None or parameters is None else parameters
        self.values = counted * group.size
        self.scale = 1 if options.units == "sum" else frames
        self.tau = threshold.rounded(options.tau * self.scale, dtype)
        threshold.check_tau(self.tau, n)
        self.step = self.compressed = 0
        self.residual = np.zeros(n, dtype)
        self.guard = Guard(self.values)
        self._words = np.empty(n, np.uint32)
        self._counts = threshold.Counts(n, group.size)
        self._last: dict[str, Any] = {}

    def combine(self, gradient: NDArray) -> None:
        """Replace ``gradient`` (n,) by what the group makes of its sum, in place.

        The same bits on all ranks of the group.  Collective over the group, and with an
        adaptive threshold over the partition group too.
        """
        tau = self.tau
        with self.group.purpose("gradients"):
            if self.step < self.options.warmup:
                dense.allreduce(self.group, self.collectives, gradient, self.fixed)
                self._last = {"dense": True, "tau": tau / self.scale}
            else:
                words = threshold.encode(self.residual, gradient, tau, self._words)
                sent = exchange(
                    self.group, words, tau, self._counts, gradient, self.options.format
                )
                self._conclude(sent)
        self.step += 1

    def _conclude(self, sent: Exchanged) -> None:
        """Count, steer the threshold, clip the residual."""
        self.compressed += 1
        tau, options = self.tau, self.options
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
        if options.target is not None:
            self.tau = threshold.adapted(
                tau, entries, self.values, options.target, self.residual.dtype
            )
        if options.clip_every and self.compressed % options.clip_every == 0:
            threshold.clip(self.residual, options.clip_at * tau)

    def _over_shards(self, entries: int) -> int:
        """Return the sum over the partition group: an all-gather of one int64, p - 1 messages."""
        if self.partition is None:
            return entries
        everyones = np.zeros(self.partition.size, np.int64)
        everyones[self.partition.rank] = entries
        with self.partition.purpose("control"):
            ring.allgather(self.partition, everyones)
        return int(everyones.sum())

    def statistics(self) -> dict[str, Any]:
        """Return the last step's numbers, plain data; empty before the first.

        ``dense``: whether it was a warm-up step; ``tau`` in the units of the options, named by
        ``units``; and if it was compressed ``density`` (entries of the group over what they
        could have been; of all shards with an adaptive threshold), this rank's ``entries``,
        ``format`` and ``message_bytes``, and ``residual``: max |residual| / tau now.  Costs one
        pass over the residual.
        """
        if not self._last:
            return {}
        numbers = self._last | {"units": self.options.units}
        if not numbers["dense"]:
            largest = threshold.peak(self.residual) / self.scale
            numbers["residual"] = largest / numbers["tau"]
        return numbers

    def warning(self) -> str | None:
        """Return what is wrong with tau by the first 100 compressed steps, if anything is.

        Call it when these are over (`Guard.watching` turns false), or at the end of a shorter
        run.  The same verdict on all ranks with this shard; the residual in it is this rank's.
        """
        largest = threshold.peak(self.residual)
        return self.guard.verdict(self.tau / self.scale, self.options.units, largest / self.scale)

    def settle(self, policy: str, gradient: NDArray) -> bool:
        """Deal with the residuals before models are averaged; return whether a step is due.

        Parameters
        ----------
        policy : str
            ``keep``: leave them.  ``zero``: forget them.  ``fold``: set ``gradient`` to their
            dense sum over the group, and them to zero; the caller gives it to the optimizer as
            the gradient of one more step, after which the group has applied exactly what it
            computed.
        gradient : (n,) array
            Overwritten by ``fold``.
        """
        assert policy in RESIDUALS
        if policy == "fold":
            gradient[:] = self.residual
            with self.group.purpose("gradients"):
                dense.allreduce(self.group, self.collectives, gradient, self.fixed)
        if policy != "keep":
            self.residual.fill(0)
        return policy == "fold"

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, by name; the residual is not a copy."""
        return {
            "residual": self.residual,
            "tau": self.tau,
            "step": self.step,
            "compressed": self.compressed,
            "guard": [self.guard.steps, self.guard.entries],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Set what `state` returned."""
        self.residual[:] = state["residual"]
        self.tau, self.step = float(state["tau"]), int(state["step"])
        self.compressed = int(state["compressed"])
        self.guard.steps, self.guard.entries = map(int, state["guard"])
