"""Collectives as pictures that move: of the same `Moves` as the text of `explain`.

Every rank is a column of slots, one for each chunk of x; a chunk has one colour, and a block shows
the ranks whose values are in it.  In every step blocks fly from column to column.  The picture
turns for ever without a script; where nothing moves (in print, or by the reader's wish) it shows
the end.
"""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.collectives.interface import WORDS
from refimpl.collectives.moves import Block, Moves, Stage
from refimpl.support import svg
from refimpl.support.text import plural

WIDTH, HEIGHT = 50, 24  # of a block
ACROSS, DOWN, BETWEEN = 74, 30, 26  # from column to column, slot to slot; more between nodes
LEFT = 84
STEP, FLIGHT, HOLD = 1.6, (0.25, 1.25), 2.0  # seconds: of a stage, its flights in it, at both ends


def title(moves: Moves) -> str:
    """Return what the picture is of."""
    name = f"{moves.family} {WORDS[moves.operation]}"
    nodes = len(set(moves.nodes))
    where = f" on {plural(nodes, 'node')}" if nodes > 1 else ""
    return f"{name}, {plural(moves.p, 'rank')}{where}"


def caption(moves: Moves, place: int) -> str:
    """Return what happens in a stage, in words."""
    stage = moves.stages[place]
    number = sum(not one.local for one in moves.stages[: place + 1])
    if stage.local:
        return "re-order: from scratch to their places in x"
    links = {move.link for move in stage.moves}
    where = ""
    if len(set(moves.nodes)) > 1:
        where = {"intra": ", inside nodes", "inter": ", between nodes"}.get(
            links.pop() if len(links) == 1 else "", ", inside and between nodes"
        )
    what = "what arrives is added" if stage.moves[0].adds else "what arrives is kept"
    return f"step {number} of {len(moves.sending)}{where}: {what}"


def draw(moves: Moves) -> str:
    """Return the picture as SVG."""
    return _Picture(moves).file()


class _Picture:
    def __init__(self, moves: Moves) -> None:
        self.moves = moves
        self.seconds = 2 * HOLD + STEP * len(moves.stages)
        self.rules: dict[str, str] = {}
        last = len(set(moves.nodes)) - 1
        self.top = 112 if last else 92
        self.height = self.top + DOWN * self.rows + 58
        words = [
            (title(moves), 17.0),
            *((caption(moves, i), 13.0) for i in range(len(moves.stages))),
        ]
        told = max(svg.breadth(each, size) for each, size in words)
        self.width = max(LEFT + ACROSS * moves.p + BETWEEN * last + 8, told + 32)

    @property
    def rows(self) -> int:
        return self.moves.p + self.moves.scratch

    def file(self) -> str:
        moves = self.moves
        about = " ".join(
            [f"Each of {plural(moves.p, 'rank')} has a column with a slot for each chunk of x."]
            + [caption(moves, place) + "." for place in range(len(moves.stages))]
        )
        told = "in a block: the ranks whose values are in it"
        parts = [
            svg.text(16, 28, title(moves), 17, font_weight="bold"),
            svg.text(16, 48, told, 12, kind="faint"),
            *self._slots(),
            *self._blocks(),
            *self._flights(),
            *self._captions(),
        ]
        still = "@media(prefers-reduced-motion:reduce){.on,.fly{animation:none!important}}"
        turn = f"{svg.number(self.seconds)}s linear infinite"
        style = f".on,.fly{{opacity:0;animation:{turn}}}.end{{opacity:1}}{still}"
        return svg.picture(
            self.width,
            self.height,
            title(moves),
            about,
            parts,
            style + "".join(self.rules.values()),
        )

    # -------------------------------------------------------------------------------------- places

    def _x(self, rank: int) -> float:
        order = sorted(set(self.moves.nodes))
        return LEFT + ACROSS * rank + BETWEEN * order.index(self.moves.nodes[rank])

    def _y(self, slot: int) -> float:
        return self.top + DOWN * slot + (10 if slot >= self.moves.p else 0)

    def _slots(self) -> Iterator[str]:
        moves = self.moves
        if len(set(moves.nodes)) > 1:
            for node in sorted(set(moves.nodes)):
                ranks = [rank for rank in range(moves.p) if moves.nodes[rank] == node]
                first, last = self._x(ranks[0]) - 12, self._x(ranks[-1]) + WIDTH + 12
                high = DOWN * self.rows + (10 if moves.scratch else 0) + 52
                yield svg.rect(first, self.top - 48, last - first, high, rx=8, kind="box")
                yield svg.text(first + 10, self.top - 31, f"node {node}", 12, kind="faint")
        for slot in range(moves.p):
            yield svg.text(16, self._y(slot) + 17, f"chunk {slot}", 12, kind="faint")
        if moves.scratch:
            yield svg.text(16, self._y(moves.p) + 17, "scratch", 12, kind="faint")
        for rank in range(moves.p):
            x = self._x(rank)
            yield svg.text(x + WIDTH / 2, self.top - 10, f"rank {rank}", 13, "middle")
            for slot in range(self.rows):
                yield svg.rect(x, self._y(slot), WIDTH, HEIGHT, rx=3, kind="slot")

    # -------------------------------------------------------------------------------------- blocks

    def _block(self, x: float, y: float, block: Block, edge: float = 0) -> str:
        colour = svg.fill(block.chunk)
        told = "+".join(map(str, block.ranks))
        if len(block.ranks) > 4:
            told = f"{len(block.ranks)} of {self.moves.p}"
            told = "all" if len(block.ranks) == self.moves.p else told
        size = 12 if len(told) < 6 else 11
        parts = [
            svg.rect(x, y, WIDTH, HEIGHT, rx=3, fill=colour, kind="edge", stroke_width=edge),
            svg.text(x + WIDTH / 2, y + 16.5, told, size, "middle", svg.on(colour)),
        ]
        return "".join(parts)

    def _blocks(self) -> Iterator[str]:
        """Yield every block that is somewhere for some time: from one stage's end to another."""
        stages = self.moves.stages
        for rank in range(self.moves.p):
            having = [self.moves.start[rank], *(stage.after[rank] for stage in stages)]
            for slot in range(self.rows):
                began = None
                for place, now in enumerate(having):
                    before = having[place - 1].get(slot) if place else None
                    after = now.get(slot)
                    if place and before is not None and after != before:
                        leaves = self._leaves(stages[place - 1], rank, slot)
                        yield self._held(rank, slot, before, began, (place - 1, leaves))
                    if after is not None and (place == 0 or after != before):
                        began = place - 1 if place else None
                if (held := having[-1].get(slot)) is not None:
                    yield self._held(rank, slot, held, began, None)

    @staticmethod
    def _leaves(stage: Stage, rank: int, slot: int) -> bool:
        """Tell whether what is in a slot before a stage flies away, and does not just change."""
        sent = any(move.source == rank and move.from_slot == slot for move in stage.moves)
        return sent and not stage.keeps(rank, slot)

    def _held(
        self, rank: int, slot: int, block: Block, began: int | None, end: tuple[int, bool] | None
    ) -> str:
        first = 0.0 if began is None else self._at(began, FLIGHT[1])
        last = self.seconds if end is None else self._at(end[0], FLIGHT[0 if end[1] else 1])
        return self._while(
            first, last, self._block(self._x(rank), self._y(slot), block), end is None
        )

    def _flights(self) -> Iterator[str]:
        for place, stage in enumerate(self.moves.stages):
            name = self._flight(place)
            for move in stage.moves:
                x, y = self._x(move.source), self._y(move.from_slot)
                by = f"--x:{svg.number(self._x(move.dest) - x)}px"
                by += f";--y:{svg.number(self._y(move.to_slot) - y)}px"
                block = self._block(x, y, move.block, 2.5 if move.link == "inter" else 1)
                yield svg.element("g", block, kind=f"fly {name}", style=by)

    def _captions(self) -> Iterator[str]:
        y = self.height - 14
        for place in range(len(self.moves.stages)):
            told = svg.text(16, y, caption(self.moves, place), 13)
            yield self._while(self._at(place, 0), self._at(place, STEP), told, False)
        edge = HOLD + STEP * len(self.moves.stages)
        yield self._while(0, HOLD, svg.text(16, y, "at the start", 13), False)
        told = f"at the end, after {plural(len(self.moves.sending), 'step')}"
        yield self._while(edge, self.seconds, svg.text(16, y, told, 13), True)

    # ------------------------------------------------------------------------------------- in time

    @staticmethod
    def _at(place: int, seconds: float) -> float:
        return HOLD + STEP * place + seconds

    def _percent(self, seconds: float) -> str:
        return f"{svg.number(100 * seconds / self.seconds)}%"

    def _while(self, first: float, last: float, content: str, at_the_end: bool) -> str:
        """Show something between two moments only."""
        if first == 0 and last == self.seconds:
            return svg.element("g", content)
        name = f"t{svg.number(100 * first)}-{svg.number(100 * last)}".replace(".", "_")
        if name not in self.rules:
            edges = [("0%", 1 if first == 0 else 0)]
            edges += [(self._percent(first), 1)] if first else []
            edges += [(self._percent(last), 0)] if last < self.seconds else []
            frames = "".join(f"{at}{{opacity:{shown}}}" for at, shown in edges)
            final = 1 if last == self.seconds else 0
            self.rules[name] = (
                f"@keyframes {name}{{{frames}100%{{opacity:{final}}}}}"
                f".{name}{{animation-name:{name}!important;animation-timing-function:step-end!important}}"
            )
        return svg.element("g", content, kind=f"on {name}" + (" end" if at_the_end else ""))

    def _flight(self, place: int) -> str:
        """Return the class of what flies in a stage."""
        name = f"f{place}"
        first, last = (self._percent(self._at(place, edge)) for edge in FLIGHT)
        gone = self._percent(self._at(place, FLIGHT[1]) + 0.02)
        there = "transform:translate(var(--x),var(--y))"
        self.rules[name] = (
            f"@keyframes {name}{{"
            "0%{opacity:0;transform:none;animation-timing-function:step-end}"
            f"{first}{{opacity:1;transform:none;animation-timing-function:ease-in-out}}"
            f"{last}{{opacity:1;{there};animation-timing-function:step-end}}"
            f"{gone}{{opacity:0;{there}}}100%{{opacity:0;{there}}}}}"
            f".{name}{{animation-name:{name}!important}}"
        )
        return name
