"""The grid on its nodes, as text and as a picture."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.support import svg
from refimpl.support.errors import require
from refimpl.world.topology import Grid, Nodes


def drawing(grid: Grid, nodes: Nodes) -> str:
    """Return the grid as text: one line per worker, then the groups of each axis."""
    width = len(str(grid.world - 1)) + 1
    shards = range(grid.partition)
    head = " " * 20 + "".join(f"{'shard ' + str(s):>{width + 8}}" for s in shards)
    lines = [f"{grid.sentence()}, {nodes.count} node{'s' * (nodes.count > 1)}", "", head]
    for worker in range(grid.workers):
        block, member = divmod(worker, grid.gradient)
        ranks = [grid.rank(block, member, shard) for shard in shards]
        where = sorted({nodes.node[rank] for rank in ranks})
        label = f"block {block:<3}" if member == 0 else " " * 9
        cells = "".join(f"{rank:>{width + 7}} " for rank in ranks)
        on = f"node {where[0]}" if len(where) == 1 else f"nodes {where[0]}-{where[-1]}"
        lines.append(f"{label} member {member:<3}{cells}   {on}")
    lines.append("")
    for title, told, groups in groups_told(grid, nodes):
        lines.append(f"{title + ' groups':<19}{told}")
        if not groups:
            continue
        shown = groups if len(groups) <= 8 else [*groups[:7], groups[-1]]
        text = ["{" + ", ".join(map(str, group)) + "}" for group in shown]
        if len(groups) > 8:
            text.insert(-1, "...")
        lines.append(" " * 19 + " ".join(text))
    return "\n".join(lines)


def groups_told(grid: Grid, nodes: Nodes) -> Iterator[tuple[str, str, list[list[int]]]]:
    """Yield every axis, what is to be said of its groups, and these; none if its length is 1."""
    for title, use in (
        ("partition", "parameters, gradients: every micro-step"),
        ("gradient", "gradients of one shard: every step"),
        ("block", "models, a part at each place: every block"),
        ("replication", "all ranks with the same shard"),
    ):
        groups = grid.groups(title)
        size, number = len(groups[0]), len(groups)
        if size == 1:
            yield title, f"none ({title} axis of length 1)", []
            continue
        crossing = sum(nodes.spanned(members) > 1 for members in groups)
        yield title, f"{number} of {size} ranks, {crossing} across nodes; {use}", groups


ACROSS, DOWN, SIDE = 66, 40, (46, 28)  # from shard to shard, worker to worker; a rank's box
LEFT, MOST = 120, (16, 256)  # shards, ranks of a picture


def picture(grid: Grid, nodes: Nodes) -> str:
    """Return the same as SVG: a box for each rank, in the colour of its node, lines for groups.

    Raises `UserError` where there are more ranks than can be told apart.
    """
    require(
        grid.partition <= MOST[0] and grid.world <= MOST[1],
        f"cannot draw {grid.workers} workers of {grid.partition} ranks so that they can be told "
        f"apart: leave --svg out, or take at most {MOST[1]} ranks, {MOST[0]} of them a worker",
    )
    title = f"{grid.sentence()}, {nodes.count} node{'s' * (nodes.count > 1)}"
    told = list(groups_told(grid, nodes))
    bottom = _y(grid, grid.workers - 1) + 52
    parts = [svg.text(16, 28, title, 17, font_weight="bold")]
    parts += [
        svg.text(_x(shard), 62, f"shard {shard}", 12, "middle", "faint")
        for shard in range(grid.partition)
    ]
    for block in range(grid.blocks):
        first = _y(grid, block * grid.gradient)
        parts.append(svg.text(16, first + 5, f"block {block}", 13))
    for worker in range(grid.workers):
        parts.append(_worker(grid, nodes, worker))
    parts[1:1] = [*_lines(grid, "gradient"), *_lines(grid, "block")]
    for place, (name, words, _) in enumerate(told):
        y = bottom + 22 * place
        dashes = {"block": "5 4"}.get(name)
        if name == "partition":
            parts.append(svg.rect(18, y - 12, 28, 14, rx=5, kind="line"))
        elif name != "replication":
            parts.append(svg.line(32, y - 13, 32, y + 3, stroke_width=2, stroke_dasharray=dashes))
        parts.append(svg.text(60, y, f"{name} groups", 12))
        parts.append(svg.text(180, y, words, 12, kind="faint"))
    wide = max(180 + svg.breadth(words, 12) for _, words, _ in told)
    width = max(_x(grid.partition) + 60, wide, svg.breadth(title, 17) + 32)
    about = " ".join(f"{name} groups: {words}." for name, words, _ in told)
    return svg.picture(width, bottom + 82, title, about, parts)


def _x(shard: int) -> float:
    return LEFT + 90 + ACROSS * shard


def _y(grid: Grid, worker: int) -> float:
    return 90 + DOWN * worker + 18 * (worker // grid.gradient)


def _worker(grid: Grid, nodes: Nodes, worker: int) -> str:
    """Return a row: the member, an outline around its ranks, where they are."""
    block, member = divmod(worker, grid.gradient)
    y, wide, high = _y(grid, worker), *SIDE
    parts = [svg.text(LEFT - 40, y + 5, f"member {member}", 12, kind="faint")]
    if grid.partition > 1:
        width = ACROSS * (grid.partition - 1) + wide + 12
        parts.append(
            svg.rect(_x(0) - wide / 2 - 6, y - high / 2 - 5, width, high + 10, rx=9, kind="line")
        )
    ranks = [grid.rank(block, member, shard) for shard in range(grid.partition)]
    for shard, rank in enumerate(ranks):
        colour = svg.fill(nodes.node[rank])
        parts += [
            svg.rect(_x(shard) - wide / 2, y - high / 2, wide, high, rx=4, fill=colour),
            svg.text(_x(shard), y + 5, str(rank), 13, "middle", svg.on(colour)),
        ]
    where = sorted({nodes.node[rank] for rank in ranks})
    on = f"node {where[0]}" if len(where) == 1 else f"nodes {where[0]}-{where[-1]}"
    parts.append(svg.text(_x(grid.partition - 1) + wide / 2 + 16, y + 5, on, 12, kind="faint"))
    return svg.group(parts)


def _lines(grid: Grid, axis: str) -> Iterator[str]:
    """Yield a line for every group of an axis, from its first rank to its last.

    Those of the block axis pass beside the members that are in none.
    """
    for ranks in grid.groups(axis):
        if len(ranks) == 1:
            continue
        x = _x(grid.place(ranks[0]).shard)
        ys = [_y(grid, grid.worker(rank)) for rank in ranks]
        if axis == "gradient":
            yield svg.line(x, ys[0], x, ys[-1], stroke_width=2)
            continue
        beside = x + SIDE[0] / 2 + 10
        yield svg.line(beside, ys[0], beside, ys[-1], stroke_width=2, stroke_dasharray="5 4")
        for y in ys:
            yield svg.line(x, y, beside, y, stroke_width=2)
