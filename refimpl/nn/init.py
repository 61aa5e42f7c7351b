"""Initial values of parameters, by name and not by order of creation.

The values of a parameter are a function of (seed, layer name, parameter name) alone.  Networks
that are cut over ranks in different ways, or built in another order, start from the same numbers,
and two layers of one shape get different ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from refimpl.numerics.rng import stream


class Initial(NamedTuple):
    """How a parameter starts: ``zeros``; ``normal`` of standard deviation ``scale``; or
    ``uniform`` between -scale and scale."""

    kind: str
    scale: float = 0.0


def fill(out: np.ndarray, how: Initial, seed: int, layer: str, parameter: str) -> None:
    """Set ``out`` to the initial values of a parameter.

    Numbers are drawn in float64 and rounded, so float32 and float64 networks start from the
    same ones, and drawn as one vector, so the shape does not matter.

    >>> import numpy as np
    >>> a, b = np.zeros(3), np.zeros((3, 1), np.float32)
    >>> fill(a, Initial("normal", 0.1), 1, "hidden0", "weight")
    >>> fill(b, Initial("normal", 0.1), 1, "hidden0", "weight")
    >>> bool((a.astype(np.float32) == b[:, 0]).all())
    True
    """
    generator = stream(seed, "init", layer, parameter)
    if how.kind == "zeros":
        out[...] = 0
    elif how.kind == "normal":
        drawn = generator.standard_normal(out.size)
        drawn *= how.scale
        out[...] = drawn.reshape(out.shape)
    else:
        assert how.kind == "uniform", how.kind
        out[...] = generator.uniform(-how.scale, how.scale, out.size).reshape(out.shape)
