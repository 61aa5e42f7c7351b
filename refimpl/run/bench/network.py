"""The network that is measured, and the least that a step of it must compute."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from refimpl import nn
from refimpl.numerics.rng import stream

WIDTHS = (440, 1024, 1024, 1024, 128)
BATCH = 64


def network(widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> nn.Sequential:
    """Return the MLP that is measured."""
    layers: list[nn.Layer] = []
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        layers.append(nn.Affine(f"layer{i}", inputs, outputs, seed))
        if i < len(widths) - 2:
            layers.append(nn.Relu())
    return nn.Sequential(*layers)


def products(widths: tuple[int, ...], batch: int) -> Callable[[], None]:
    """Return a function that does the matrix products of one step and nothing else.

    Per layer x (B, i), w (i, o), dy (B, o): the output x w, the weight gradient x' dy and, but
    for the first layer, the input gradient dy w'.
    """
    rng = stream(0, "bench")
    layers = [
        tuple(
            rng.normal(size=shape).astype(np.float32)
            for shape in ((batch, i), (i, o), (batch, o), (batch, o), (i, o), (batch, i))
        )
        for i, o in pairwise(widths)
    ]

    def run() -> None:
        for x, w, _, y, _, _ in layers:
            np.matmul(x, w, out=y)
        for number, (x, w, dy, _, dw, dx) in reversed(list(enumerate(layers))):
            np.matmul(x.T, dy, out=dw)
            if number:
                np.matmul(dy, w.T, out=dx)

    return run
