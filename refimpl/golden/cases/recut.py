"""More of the last rung: what ranks of another grid have when a run goes on from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl.collectives import chunks
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, padded
from refimpl.golden.cases import springs
from refimpl.golden.cases.ask import COPIES, EXACT, Answer, Arrays, Settings, case
from refimpl.nn.flat import Layout
from refimpl.state.checkpoint import Saved
from refimpl.state.reshard import fitted
from refimpl.state.tree import Leaf, recut
from refimpl.world.topology import Grid, Place

UNITS = [7, 0, 1, 3]
PLACEMENTS = {"parameters": "block", "residual": "own", "owned": "chunk"}


def cut_anew(inputs: Arrays, settings: Settings) -> Arrays:
    """Cut the state of ranks of one grid for those of another.

    parameters and residual (ranks, shard), owned (ranks, longest chunk), settings units, saved and
    grid, both (b, g, p) -> those of the new ranks: parameters_after, residual_after, owned_after.
    """
    saved, grid = Held(inputs, settings), Grid(*settings["grid"])
    layout = _layout(settings["units"], grid.partition)
    ends = []
    for rank in range(grid.world):
        n, member = layout.shard, grid.place(rank).member
        sizes = {"owned": int(np.diff(chunks.offsets(n, grid.gradient))[member])}
        state = {
            name: Leaf(np.zeros(sizes.get(name, n), inputs[name].dtype), placement)
            for name, placement in PLACEMENTS.items()
        }
        ends.append(fitted(saved, state, grid, rank, layout))
    return {f"{name}_after": padded([end[name].value for end in ends]) for name in PLACEMENTS}


class Held(Saved):
    """What all ranks of a grid had, in memory."""

    def __init__(self, inputs: Arrays, settings: Settings) -> None:
        self.name, self.grid, self.values = "the saved run", Grid(*settings["saved"]), {}
        self.layout = _layout(settings["units"], self.grid.partition)
        cut = np.diff(chunks.offsets(self.layout.shard, self.grid.gradient))
        self.held: dict[tuple[str, Place], np.ndarray] = {}
        self.arrays: dict[tuple[str, Place], Any] = {}
        for name, placement in PLACEMENTS.items():
            for rank, row in enumerate(inputs[name]):
                place = self.grid.place(rank)
                size = int(cut[place.member]) if name == "owned" else self.layout.shard
                self.held[name, place] = row[:size]
                self.arrays[name, place] = {"name": name, "placement": placement}

    def array(self, name: str, place: Place) -> np.ndarray:
        """Return the array of the rank at a place."""
        return self.held[name, place]


def _layout(units: list[int], partition: int) -> Layout:
    net = springs.network(units, np.zeros(sum(units), np.float32))
    return Layout(net.units, partition)


def bundles() -> Iterator[Bundle]:
    """Yield the bundle."""
    text = "A state that is cut anew: saved on one grid, gone on with on another."
    yield Bundle("ten-steps.cut-anew", "ten steps", text, tuple(_cases()))


def _cases() -> Iterator[Case]:
    for old, new in (
        ((1, 2, 3), (1, 3, 2)),
        ((1, 4, 1), (1, 1, 3)),
        ((2, 2, 1), (2, 1, 2)),
    ):
        label = f"{'x'.join(map(str, old))}.to.{'x'.join(map(str, new))}"
        grid = Grid(*old)
        layout = _layout(UNITS, grid.partition)
        cut = chunks.offsets(layout.shard, grid.gradient)

        def vector(name: str, rank: int, layout: Layout = layout, grid: Grid = grid) -> np.ndarray:
            """Return this rank's shard of a vector of that name, its padding 0."""
            full = draw.dyadic(f"recut {name}", sum(UNITS))
            return recut(layout, grid.place(rank).shard, _layout(UNITS, 1), [full])

        ranks = [(rank, grid.place(rank)) for rank in range(grid.world)]
        parameters = [vector(f"parameters {at.block}", rank) for rank, at in ranks]
        residual = [vector(f"residual {at.block} {at.member}", rank) for rank, at in ranks]
        owed = [vector(f"owned {at.block}", rank) for rank, at in ranks]
        parts = [slice(cut[at.member], cut[at.member + 1]) for _, at in ranks]
        owned = [one[part] for one, part in zip(owed, parts, strict=True)]
        yield case(
            label,
            cut_anew,
            f"{grid.sentence()}, then {Grid(*new).sentence()}",
            {"units": UNITS, "saved": list(old), "grid": list(new)},
            {
                "parameters": (np.stack(parameters), "rank element"),
                "residual": (np.stack(residual), "rank element"),
                "owned": (padded(owned), "rank element"),
            },
            {
                "parameters_after": Answer("rank element", COPIES),
                "residual_after": Answer("rank element", EXACT),
                "owned_after": Answer("rank element", EXACT),
            },
        )
