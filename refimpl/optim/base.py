"""What all optimizers have: flat vectors, state under names, work in strips that fit the cache.

An update is elementwise and made of IEEE additions, multiplications, divisions and square roots,
each correctly rounded.  An element's new value therefore depends on that element alone: any cut
of the vector into shards gives the same bits as the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

# Elements per strip.  Parameters, gradients, a state and scratch of 256 KB each (float32) stay in
# a core's second-level cache while several operations pass over them; shorter strips spend more
# on calls than they save.
STRIP = 1 << 16


class Optimizer:
    """A rule that moves parameters against a gradient.

    ``states``: names of the state arrays, each as long as the vector.  ``counters``: names of
    state that is a plain int.  ``lasting``: whether the state is worth more than a direction, so
    that it is kept where models are averaged.
    """

    states: tuple[str, ...] = ()
    counters: tuple[str, ...] = ()
    lasting = False
    scratches = 2

    def allocate(self, n: int, dtype: DTypeLike) -> dict[str, Any]:
        """Return the state for n parameters, by name: zero arrays (n,) and counters at 0."""
        self._scratch = np.zeros((self.scratches, STRIP), dtype)
        state: dict[str, Any] = {name: np.zeros(n, dtype) for name in self.states}
        return state | dict.fromkeys(self.counters, 0)

    def reset(self, states: dict[str, Any]) -> None:
        """Set the state back to that of a new optimizer, in place."""
        for name in self.states:
            states[name].fill(0)
        for name in self.counters:
            states[name] = 0

    def advance(self, states: dict[str, Any]) -> None:
        """Count a step: call once before the `update`s of a step, however many shards."""

    def update(
        self, w: np.ndarray, g: np.ndarray, states: dict[str, Any], lr: float, scale: float = 1.0
    ) -> None:
        """Move w (n,) in place by the gradient g * scale, and bring the state up to date.

        Parameters
        ----------
        w, g : (n,) arrays of one dtype
            Parameters, modified; gradient, not modified.
        states : dict
            From `allocate`, or slices of its arrays that belong to w.
        lr : float
            The learning rate.
        scale : float
            1 / frames for the mean of a summed gradient, times the clipping coefficient.
        """
        raise NotImplementedError

    def _strips(
        self, w: np.ndarray, g: np.ndarray, states: dict[str, Any]
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield (w, g, each state, each scratch) strip by strip, as views of one length."""
        assert w.shape == g.shape and w.dtype == g.dtype == self._scratch.dtype
        arrays = (w, g, *(states[name] for name in self.states))
        assert all(array.shape == w.shape for array in arrays)
        scratches = tuple(self._scratch)
        for start in range(0, w.size, STRIP):
            end = min(start + STRIP, w.size)
            yield (
                *(array[start:end] for array in arrays),
                *(scratch[: end - start] for scratch in scratches),
            )
