"""Steps of a traced run: who computed, sent, received and waited when, in figures or drawn.

Reads the files of ``train --trace`` (`refimpl.world.trace`).  Several are drawn one below the
other on one scale, so that runs can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from refimpl.support import perfetto, svg
from refimpl.support.errors import UserError, refused, require
from refimpl.support.files import check_is_file
from refimpl.support.text import plural, size, table

LANES = {"compute": svg.GREEN, "send": svg.BLUE, "receive": svg.SKY, "wait": svg.ORANGE}
DOING = ("compute", "moving", "waiting")
NARROW = 0.5  # points: what is shorter is drawn so wide
LANE, RANK = 11, 14  # height of a lane, space between ranks
LEFT, WIDE, RIGHT = 128, 820, 24


class Piece(NamedTuple):
    """Something that a rank did: nanoseconds from the step's begin, arrows by number."""

    lane: str
    name: str
    begin: int
    end: int
    nbytes: int
    link: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]


class Timeline(NamedTuple):
    """Steps, first and last: what each rank did in them, and how long until all were done."""

    name: str
    steps: tuple[int, int]
    length: int
    ranks: list[list[Piece]]
    nodes: list[str]

    @property
    def when(self) -> str:
        """Which steps it is of, in words."""
        first, last = self.steps
        return f"step {first}" if first == last else f"steps {first} to {last}"

    def shares(self) -> list[dict[str, float]]:
        """Return for each rank which share of the step it spent on what: `DOING`.

        A moment counts once: it is computing if the rank computes, whatever moves meanwhile; else
        moving if a message arrives; else waiting if it waits; else moving if it sends.
        """
        found = []
        for pieces in self.ranks:
            shares = dict.fromkeys(DOING, 0.0)
            covered: list[tuple[int, int]] = []
            for lane, doing in (
                ("compute", "compute"),
                ("receive", "moving"),
                ("wait", "waiting"),
                ("send", "moving"),
            ):
                before = _length(covered)
                covered = _union([*covered, *((p.begin, p.end) for p in pieces if p.lane == lane)])
                shares[doing] += (_length(covered) - before) / max(self.length, 1)
            found.append(shares)
        return found

    def sent(self, rank: int) -> dict[str, int]:
        """Return the bytes that a rank has sent, by link class."""
        pieces = [piece for piece in self.ranks[rank] if piece.lane == "send" and piece.starts]
        return {
            link: sum(piece.nbytes for piece in pieces if piece.link == link)
            for link in ("intra", "inter")
        }


def _union(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def _length(spans: Sequence[tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in spans)


def read(path: Path, steps: tuple[int, int] | None = None) -> Timeline:
    """Return steps of a trace, first and last; by default the middle one of those that it has.

    The end of a block belongs to the step after which it comes.  Raises `UserError` if the file is
    no trace, or has no such steps.
    """
    check_is_file(path)
    try:
        tracks = perfetto.read(path.read_bytes())
    except OSError as error:
        raise refused(error, f"cannot read {path}") from error
    except ValueError as error:
        raise UserError(f"{path} is no trace of train --trace: {error}") from None
    ranks = sorted(number for number, track in tracks.items() if track.parent is None)
    slices = {
        rank: [
            each for track in tracks.values() if track.parent == rank for each in _slices(track)
        ]
        for rank in ranks
    }
    spans: dict[int, list[tuple[int, int]]] = {}
    for rank in ranks:
        for lane, edge, end in slices[rank]:
            step = edge.arguments.get("step")
            if lane == "steps" and edge.name in ("step", "end of block") and isinstance(step, int):
                spans.setdefault(step, []).append((edge.at, end))
    whole = sorted(spans)
    require(bool(whole), f"{path} has no step: trace some with --trace-steps A:B")
    first, last = steps or (whole[len(whole) // 2],) * 2
    for step in {first, last} - spans.keys():
        raise UserError(f"{path} has steps {whole[0]} to {whole[-1]}: {step} is none of them")
    begin, end = min(a for a, _ in spans[first]), max(b for _, b in spans[last])
    found = [
        [
            Piece(
                lane,
                edge.name,
                max(edge.at, begin) - begin,
                min(last, end) - begin,
                int(edge.arguments.get("bytes", 0)),
                str(edge.arguments.get("link", "")),
                tuple(edge.starts),
                tuple(edge.ends),
            )
            for lane, edge, last in slices[rank]
            if lane in LANES and edge.at < end and last > begin
        ]
        for rank in ranks
    ]
    nodes = [tracks[rank].name.partition("(")[2].partition(",")[0] for rank in ranks]
    return Timeline(path.stem, (first, last), end - begin, found, nodes)


def _slices(track: perfetto.Track) -> Iterator[tuple[str, perfetto.Edge, int]]:
    """Yield (track, begin, time of the end) of what is on a track."""
    opened: list[perfetto.Edge] = []
    for edge in track.edges:
        if edge.kind == perfetto.BEGIN:
            opened.append(edge)
        elif opened:
            yield track.name, opened.pop(), edge.at


def told(lines: Sequence[Timeline]) -> str:
    """Return the figures of a step of each run as text."""
    parts = []
    for one in lines:
        rows = [
            [
                f"rank {rank}",
                *(f"{share[doing]:.0%}" for doing in DOING),
                size(one.sent(rank)["intra"]),
                size(one.sent(rank)["inter"]),
            ]
            for rank, share in enumerate(one.shares())
        ]
        head = ["", *DOING, "sent intra", "sent inter"]
        parts.append(f"{one.name}: {one.when}, {_time(one.length)}\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def _time(nanoseconds: float) -> str:
    for unit, length in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanoseconds >= length:
            return f"{nanoseconds / length:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


# ------------------------------------------------------------------------------------------ drawn


def draw(lines: Sequence[Timeline]) -> str:
    """Return the picture as SVG: a panel for each run, all on the scale of the longest."""
    longest = max(one.length for one in lines) or 1
    scale = WIDE / longest
    y, parts = 66.0, list(_legend())
    for one in lines:
        high = len(one.ranks) * (len(LANES) * LANE + RANK) + 30
        parts += [svg.text(16, y + 14, f"{one.name}: {one.when}, {_time(one.length)}", 14)]
        parts += _ticks(longest, scale, y + 22, y + high)
        parts += _panel(one, scale, y + 30)
        y += high + 34
    names = " and ".join(one.name for one in lines)
    which = "Steps" if any(one.steps[0] < one.steps[1] for one in lines) else "One step"
    title = f"{which} of {names}, on {plural(len(lines[0].ranks), 'rank')}"
    parts[:0] = [svg.text(16, 28, title, 17, font_weight="bold")]
    about = "For each rank, from left to right in time: computing, sending, receiving, waiting. "
    return svg.picture(
        LEFT + WIDE + RIGHT, y, title, about + told(lines).replace("\n", " "), parts
    )


def _legend() -> Iterator[str]:
    x = 16.0
    for name, colour in LANES.items():
        yield svg.rect(x, 42, 14, 10, fill=colour)
        yield svg.text(x + 20, 51, name, 12, kind="faint")
        x += 34 + svg.breadth(name, 12)
    yield svg.line(x, 47, x + 16, 47, stroke_width=1)
    yield svg.text(x + 22, 51, "a message", 12, kind="faint")
    yield svg.line(x + 110, 47, x + 126, 47, stroke_width=2.5)
    yield svg.text(x + 132, 51, "one between nodes", 12, kind="faint")


def _ticks(longest: int, scale: float, top: float, bottom: float) -> Iterator[str]:
    """Yield the axis of time: at most ten marks at round numbers."""
    power = 10 ** max(0, len(str(longest // 10)) - 1)
    apart = next(
        apart for apart in (power, 2 * power, 5 * power, 10 * power) if longest / apart <= 10
    )
    for at in range(0, longest + 1, apart):
        x = LEFT + at * scale
        yield svg.line(x, top, x, bottom, kind="grid")
        yield svg.text(x, bottom + 15, _time(at) if at else "0", 11, "middle", "faint")


def _panel(one: Timeline, scale: float, top: float) -> Iterator[str]:
    lanes = list(LANES)
    place: dict[int, tuple[float, float, str]] = {}
    arrows = []
    for rank, pieces in enumerate(one.ranks):
        base = top + rank * (len(lanes) * LANE + RANK)
        yield svg.text(16, base + 20, f"rank {rank}", 13)
        yield svg.text(16, base + 36, one.nodes[rank], 11, kind="faint")
        for i, lane in enumerate(lanes):
            yield svg.text(LEFT - 8, base + LANE * i + 9, lane, 9, "end", "faint")
        for piece in sorted(pieces, key=lambda piece: (lanes.index(piece.lane), piece.begin)):
            y = base + LANE * lanes.index(piece.lane)
            x, width = LEFT + piece.begin * scale, (piece.end - piece.begin) * scale
            about = f"{piece.name}, {_time(piece.end - piece.begin)}"
            about += f", {size(piece.nbytes)} {piece.link}" if piece.nbytes else ""
            yield svg.element(
                "rect",
                svg.element("title", svg.escaped(about)),
                x=x,
                y=y,
                width=max(width, NARROW),
                height=LANE - 2,
                fill=LANES[piece.lane],
            )
            if svg.breadth(piece.name, 8) < width:
                yield svg.text(x + 3, y + 7.5, piece.name, 8, kind=svg.on(LANES[piece.lane]))
            for arrow in piece.starts:
                place[arrow] = x, y + LANE - 2, piece.link
            arrows += [(arrow, x + width, y) for arrow in piece.ends]
    for arrow, x, y in arrows:
        if arrow in place:
            from_x, from_y, link = place[arrow]
            thick = 1.6 if link == "inter" else 0.6
            yield svg.line(from_x, from_y, x, y, stroke_width=thick, stroke_opacity=0.75)
