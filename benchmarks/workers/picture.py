"""The error column as a picture: what was published, and here frames and words."""

from __future__ import annotations

from benchmarks.workers.jobs import METHODS, Size
from benchmarks.workers.table import PUBLISHED, SOURCE, Increase, increase
from benchmarks.workers.work import Book
from refimpl.support import svg

WIDE, HIGH, LEFT, TOP, GAP = 250, 260, 56, 64, 44
COLOURS = dict(zip(METHODS[1:], (svg.SKY, svg.BLUE, svg.VERMILION, svg.GREEN), strict=True))
DASHES = {"ddp": "2 3", "gtc": None, "bmuf": "7 3", "gtc-bmuf": "9 3 2 3"}

Points = dict[str, list[tuple[int, Increase]]]


def panels(size: Size, book: Book) -> dict[str, Points]:
    """Return what is drawn: title -> method -> (workers, increase in per cent)."""
    published: Points = {}
    for (method, n), value in PUBLISHED.items():
        if value is not None:
            published.setdefault(method, []).append((n, Increase(value, value, value)))
    found = {"published, word errors": published}
    base = book.cells["serial", 1].runs if ("serial", 1) in book.cells else []
    for kind, title in (("frames", "here, frame errors"), ("words", "here, word errors")):
        points: Points = {}
        for (method, n), cell in book.cells.items():
            one = increase(cell.runs, base, kind, size.draws) if n > 1 else None
            if one is not None:
                points.setdefault(method, []).append((n, one))
        found[title] = points
    return found


def draw(size: Size, book: Book) -> str:
    """Return the picture."""
    parts = [svg.text(LEFT, 26, "increase of the error rate over one worker, per cent", size=15)]
    x = LEFT
    for method in METHODS[1:]:
        parts.append(_line(x, 44, x + 30, 44, method))
        parts.append(svg.text(x + 36, 48, method, size=12))
        x += 50 + svg.breadth(method, 12)
    every = panels(size, book)
    for place, (title, points) in enumerate(every.items()):
        parts += _panel(LEFT + place * (WIDE + GAP), title, points, size.workers)
    about = f"Published: {SOURCE}; the hybrid at 32 reduces the error, by how much is not said."
    width = LEFT + len(every) * (WIDE + GAP)
    return svg.picture(width, TOP + HIGH + 60, "Error over the number of workers", about, parts)


def _line(x: float, y: float, to_x: float, to_y: float, method: str) -> str:
    return svg.line(
        *(x, y, to_x, to_y),
        kind=None,
        stroke=COLOURS[method],
        stroke_width=2.5,
        stroke_dasharray=DASHES[method],
    )


def _panel(left: float, title: str, points: Points, workers: tuple[int, ...]) -> list[str]:
    """Return one panel: workers from left to right, each a step; its own scale upwards."""
    values = [v for line in points.values() for _, one in line for v in (one.low, one.high)]
    top, bottom = max([10.0, *values]) * 1.05, min([0.0, *values]) * 1.05
    ns = sorted({*workers} | {n for line in points.values() for n, _ in line})
    step = WIDE / max(1, len(ns))

    def at(n: int, value: float) -> tuple[float, float]:
        high = TOP + 24 + (HIGH - 24) * (top - value) / (top - bottom)
        return left + step * (ns.index(n) + 0.5), high

    parts = [svg.text(left, TOP + 10, title, size=13)]
    unit = next(u for u in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1e9) if (top - bottom) / u <= 7)
    mark = -(-bottom // unit) * unit
    while mark <= top:
        _, y = at(ns[0], mark)
        parts.append(svg.line(left, y, left + WIDE, y, kind="line" if mark == 0 else "grid"))
        parts.append(
            svg.text(left - 6, y + 4, f"{mark + 0.0:g}", size=11, anchor="end", kind="faint")
        )
        mark += unit
    for n in ns:
        x, _ = at(n, 0)
        parts.append(svg.text(x, TOP + HIGH + 20, str(n), size=12, anchor="middle"))
    for method, line in points.items():
        aside = 5 * (METHODS.index(method) - len(METHODS) / 2)  # intervals beside each other
        places = [(x + aside, y) for x, y in (at(n, one.value) for n, one in sorted(line))]
        for (x, y), (to_x, to_y) in zip(places, places[1:], strict=False):
            parts.append(_line(x, y, to_x, to_y, method))
        for (x, y), (n, one) in zip(places, sorted(line), strict=True):
            (_, low), (_, high) = at(n, one.low), at(n, one.high)
            bar = {"kind": None, "stroke": COLOURS[method], "stroke_width": 1.5}
            parts.append(svg.line(x, low, x, high, **bar))
            parts.append(svg.element("circle", cx=x, cy=y, r=4, fill=COLOURS[method]))
    parts.append(svg.text(left, TOP + HIGH + 40, "workers", size=12, kind="faint"))
    return parts
