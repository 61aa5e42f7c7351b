"""One step of GTC on one rank, value by value: as text and as a picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refimpl.methods.gradient.gtc import threshold
from refimpl.support import svg, text

TAU = 2.0
RESIDUAL = np.array([1, 1, 1, 3, -1, -1, -1, -8], np.float32)
GRADIENT = np.array([0.5, 1, 1.5, 4, -0.5, -1, -1.5, 0], np.float32)

COLUMN, LEFT, SCALE = 70, 200, 9  # points: of a value, before the first, of a unit
ROWS = ("r before", "gradient", "together", "sent", "r after")


def step() -> dict[str, np.ndarray]:
    """Return what a value is before and after, by `threshold.plain`: `ROWS`, each (8,)."""
    words, after = threshold.plain(RESIDUAL, GRADIENT, TAU)
    sent = np.zeros_like(RESIDUAL)
    sent[threshold.indices(words)] = TAU * threshold.signs(words)
    return owing(sent, after)


def owing(sent: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """Return a step of a method in which this is sent, and this is owed then: `ROWS`."""
    return dict(zip(ROWS, (RESIDUAL, GRADIENT, RESIDUAL + GRADIENT, sent, after), strict=True))


def _cells(name: str, values: np.ndarray, digits: int = 1, sent: int = 0) -> list[str]:
    if name == "sent":
        return [f"{value:+.{sent}f}" if value else "." for value in values]
    sign = "+" if name == "gradient" else ""
    return [f"{value:{sign if value else ''}.{digits}f}" for value in values]


def table(found: dict[str, np.ndarray], *digits: int) -> str:
    """Return a step as a table; ``digits``: of all numbers but those sent, and of these."""
    rows = [[name, *_cells(name, values, *digits)] for name, values in found.items()]
    return text.table([], rows, even=True)


def explain() -> str:
    """Return the step as a table."""
    return f"one step of GTC, tau = {TAU:g}\n\n{table(step())}"


def picture() -> str:
    """Return the step as SVG: bars for what is there, what is sent, what stays."""
    found, y = step(), 74.0
    width = LEFT + COLUMN * RESIDUAL.size + 16
    title = f"One step of GTC on one rank, \u03c4 = {TAU:g}"
    parts = [svg.text(16, 28, title, 17, font_weight="bold")]
    told = "a value is sent where residual and gradient together are beyond \u03c4; the rest stays"
    parts += [svg.text(16, 48, told, 12, kind="faint")]
    for place in range(RESIDUAL.size):
        x = LEFT + COLUMN * place + COLUMN / 2
        parts += [svg.text(x, y + 8, f"value {place}", 11, "middle", "faint")]
    for name, words in (
        ("together", "r + gradient"),
        ("sent", "sent: +\u03c4 or -\u03c4"),
        ("r after", "r afterwards: owed"),
    ):
        values = found[name]
        above = y + 38 + SCALE * max(float(values.max()), TAU)
        parts += [svg.text(16, above + 4, words, 13)]
        for sign in (1, 0, -1):
            level = above - sign * TAU * SCALE
            kind = "line" if sign == 0 else "grid"
            parts += [svg.line(LEFT, level, width - 16, level, kind=kind, stroke_width=1)]
            if sign:
                mark = "+\u03c4" if sign > 0 else "-\u03c4"
                parts += [svg.text(LEFT - 8, level + 4, mark, 11, "end", "faint")]
        parts += _bars(name, values, found, above)
        y = above - SCALE * min(float(values.min()), -TAU) + 14
    about = f"{told}. " + explain().replace("\n", " ")
    return svg.picture(width, y + 22, title, about, parts)


def _bars(
    name: str, values: np.ndarray, found: dict[str, np.ndarray], zero: float
) -> Iterator[str]:
    for place, (value, cell) in enumerate(zip(values.tolist(), _cells(name, values), strict=True)):
        sent = float(found["sent"][place])
        colour = (svg.ORANGE if sent > 0 else svg.BLUE) if sent else svg.SKY
        x, high = LEFT + COLUMN * place + 20, abs(value) * SCALE
        if value and (name != "sent" or sent):
            top = zero - high if value > 0 else zero
            yield svg.rect(
                x, top, COLUMN - 40, high, fill=svg.SKY if name == "r after" else colour
            )
        under = zero - high - 4 if value >= 0 else zero + high + 13
        yield svg.text(x + COLUMN / 2 - 20, under, cell, 11, "middle")
