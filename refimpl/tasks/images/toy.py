"""Toy digit images: strokes under random shear, rotation, scale and shift, with noise.

They need no download and take seconds to learn, so that the image model runs anywhere.  They stand
for nothing: for figures that mean something give an MNIST folder.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from refimpl.numerics.rng import stream

SIDE = 28

# Each digit as polylines in the unit square, x to the right and y down.
STROKES: tuple[tuple[tuple[tuple[float, float], ...], ...], ...] = (
    (((0.5, 0), (0.85, 0.2), (0.85, 0.8), (0.5, 1), (0.15, 0.8), (0.15, 0.2), (0.5, 0)),),
    (((0.3, 0.2), (0.55, 0), (0.55, 1)),),
    (((0.1, 0.2), (0.5, 0), (0.85, 0.25), (0.15, 1), (0.9, 1)),),
    (((0.15, 0.05), (0.8, 0.2), (0.4, 0.47), (0.85, 0.75), (0.5, 1), (0.1, 0.9)),),
    (((0.6, 1), (0.65, 0), (0.1, 0.65), (0.9, 0.65)),),
    (((0.85, 0), (0.2, 0), (0.15, 0.45), (0.7, 0.45), (0.85, 0.75), (0.5, 1), (0.1, 0.9)),),
    (((0.75, 0), (0.25, 0.4), (0.15, 0.8), (0.5, 1), (0.85, 0.75), (0.5, 0.5), (0.2, 0.7)),),
    (((0.1, 0), (0.9, 0), (0.4, 1)),),
    (
        ((0.5, 0), (0.8, 0.2), (0.2, 0.75), (0.5, 1), (0.8, 0.75), (0.2, 0.2), (0.5, 0)),
        ((0.35, 0.5), (0.65, 0.5)),
    ),
    (((0.8, 0.3), (0.5, 0.5), (0.2, 0.25), (0.5, 0), (0.8, 0.3), (0.7, 1)),),
)


def segments(digit: int) -> NDArray[np.float64]:
    """Return the strokes of a digit as segments (count, 2 ends, 2 coordinates)."""
    ends = [pair for line in STROKES[digit] for pair in zip(line[:-1], line[1:], strict=True)]
    return np.array(ends)


def image(digit: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one digit: (28, 28), ink 255 on 0.

    The ink at a pixel falls off with its distance to the nearest stroke.
    """
    angle, shear = rng.normal(0, 0.15, 2)
    scale = rng.uniform(0.55, 0.8, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.diag(scale) @ turn @ np.array([[1, shear], [0, 1]])
    wobble = rng.normal(0, 0.03, (1, 2, 2))
    ends = (segments(digit) - 0.5 + wobble) @ matrix.T + 0.5 + rng.normal(0, 0.05, 2)

    grid = (np.arange(SIDE) + 0.5) / SIDE
    start, along = ends[:, 0], ends[:, 1] - ends[:, 0]
    x, y = grid[:, None] - start[:, 0], grid[:, None, None] - start[:, 1]  # from each start
    length2 = np.maximum((along**2).sum(-1), 1e-12)
    t = np.clip((x * along[:, 0] + y * along[:, 1]) / length2, 0, 1)
    distance = np.sqrt(((x - t * along[:, 0]) ** 2 + (y - t * along[:, 1]) ** 2).min(-1))
    ink = np.clip(1.5 - distance / rng.uniform(0.03, 0.06), 0, 1)
    noisy = ink + rng.normal(0, 0.15, ink.shape)
    return np.clip(np.rint(255 * noisy), 0, 255).astype(np.uint8)


def images(
    split: str, first: int, end: int, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images first .. end-1 of a split, (count, 28, 28), and their labels (count,).

    Image i is a function of (seed, split, i) and shows the digit i mod 10.

    >>> x, y = images("test", 5, 17)
    >>> x.shape, y.tolist()
    ((12, 28, 28), [5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6])
    """
    numbers = range(first, end)
    drawn = [image(i % 10, stream(seed, "toy digits", split, i)) for i in numbers]
    labels = np.array([i % 10 for i in numbers], np.uint8)
    return np.array(drawn, np.uint8).reshape(len(numbers), SIDE, SIDE), labels
