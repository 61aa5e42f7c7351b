"""The grid on its nodes, drawn as text."""

from __future__ import annotations

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
    for title, use in (
        ("partition", "parameters, gradients: every micro-step"),
        ("gradient", "gradients of one shard: every step"),
        ("block", "models, a part at each place: every block"),
        ("replication", "all ranks with the same shard"),
    ):
        groups = grid.groups(title)
        size, number = len(groups[0]), len(groups)
        if size == 1:
            lines.append(f"{title + ' groups':<19}none ({title} axis of length 1)")
            continue
        crossing = sum(nodes.spanned(members) > 1 for members in groups)
        lines.append(
            f"{title + ' groups':<19}{number} of {size} ranks, {crossing} across nodes; {use}"
        )
        shown = groups if number <= 8 else [*groups[:7], groups[-1]]
        text = ["{" + ", ".join(map(str, group)) + "}" for group in shown]
        if number > 8:
            text.insert(-1, "...")
        lines.append(" " * 19 + " ".join(text))
    return "\n".join(lines)
