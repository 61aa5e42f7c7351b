"""A threshold that is far off is told early, and what to do about it.

The right tau depends on the model, on the frames behind a gradient and on whether it is their sum
or their mean; a value from a paper in other units sends nothing, or nearly everything, and
training then fails without an error.  So the first steps are watched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Steps that are watched, and the density above which a threshold is too low.
STEPS = 100
MOST = 1 / 16


class Guard:
    """Counts entries over the first steps, and says in words what is wrong with tau.

    Parameters
    ----------
    values : int
        Entries that one step could have had at most: those of a vector times the ranks.
    """

    def __init__(self, values: int) -> None:
        self.values, self.steps, self.entries = values, 0, 0

    @property
    def watching(self) -> bool:
        """Whether the first steps are not over yet."""
        return self.steps < STEPS

    def observe(self, entries: int) -> None:
        """Count the entries of all ranks in one step."""
        if self.watching:
            self.steps += 1
            self.entries += entries

    def verdict(self, tau: float, units: str, residual: float) -> str | None:
        """Return a warning, or None if the density of the steps so far is fit to train with.

        Parameters
        ----------
        tau : float
            The threshold now, in ``units`` ("sum" or "mean", of the gradient over frames).
        residual : float
            The largest |residual|, in the same units.

        Examples
        --------
        >>> guard = Guard(values=1000)
        >>> guard.observe(0)
        >>> print(guard.verdict(8.0, "mean", 0.0123))
        tau = 8 (mean units) sends nothing: no entry in the first 1 steps, so nothing is learned; \
the largest residual is 0.0123, so tau must be below that; a tau that was found for sums needs \
sum units
        """
        if not (self.steps and self.values):
            return None
        density = self.entries / (self.values * self.steps)
        seen = f"in the first {self.steps} steps"
        if self.entries == 0:
            text = (
                f"sends nothing: no entry {seen}, so nothing is learned; the largest residual is "
                f"{residual:.3g}, so tau must be below that"
            )
        elif density > MOST:
            text = (
                f"sends nearly everything: {density:.1%} of all values {seen}, each cut to +-tau; "
                f"the largest residual is {residual:.3g}: raise tau towards that, or set a target "
                f"density (0.005) that finds it"
            )
        else:
            return None
        other = "mean" if units == "sum" else "sum"
        return (
            f"tau = {tau:g} ({units} units) {text}; a tau that was found for {other}s needs "
            f"{other} units"
        )


def lost(residual: float, dtype: np.dtype) -> str | None:
    """Return a warning if |residual| / tau is so large that sent + rest = given fails.

    Beyond 2^24 tau (2^53 in float64) tau is too small to be taken out of a residual.
    """
    digits = np.finfo(dtype).nmant + 1
    if residual < 2.0**digits:
        return None
    return (
        f"residuals have grown beyond 2^{digits} tau: what is sent is not taken out of them any "
        "more, and nothing they owe is ever paid; raise tau, set a target density, or clip "
        "residuals (--residual-clip-every)"
    )


def means(ranks: Sequence[Mapping[str, Any]], values: int) -> dict[str, Any]:
    """Return means over an epoch's compressed steps, of all ranks: of all groups and shards.

    Of a rank in a step: ``density``, entries over the values of its shard, ``entries`` and
    ``message_bytes``; none of them without such steps.  ``residual`` is the largest there is now.

    >>> one = {"steps": 2, "entries": 3, "message_bytes": 50, "residual": 1.5}
    >>> means([one, one | {"entries": 1}], values=10)
    {'residual': 1.5, 'density': 0.1, 'entries': 1.0, 'message_bytes': 25.0}
    """
    found: dict[str, Any] = {"residual": max(rank["residual"] for rank in ranks)}
    steps, entries, sent = (
        sum(rank[name] for rank in ranks) for name in ("steps", "entries", "message_bytes")
    )
    if steps:
        found["density"] = entries / max(1, steps * values)
        found |= {"entries": entries / steps, "message_bytes": sent / steps}
    return found
