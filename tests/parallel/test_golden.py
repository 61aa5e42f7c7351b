"""The committed golden values, written by threads, are what ranks of a real MPI compute.

What is wrong is collected, and told when all ranks are through: none is left waiting.
"""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from refimpl import collectives
from refimpl.golden import read
from refimpl.golden.bundle import padded
from refimpl.golden.cases import trained
from refimpl.golden.compare import verdict
from refimpl.world.communicator import Communicator
from refimpl.world.topology import Grid, Nodes

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@cache
def cases(bundles):
    """Return the cases of the bundles that are asked for: every rank reads for itself."""
    return [case for folder in sorted(GOLDEN.glob(bundles)) for case in read.load(folder).cases]


@pytest.mark.wide
@pytest.mark.parametrize("family", ["ring", "halving-doubling", "tree", "hierarchical"])
def test_collectives_give_the_golden_values(world, family):
    wrong = []
    for case in cases(f"collectives.{family}"):
        given = case.settings
        per_node = given["nodes"].count(0)
        if given["nodes"] != list(Nodes.of(world.size, per_node).node):
            continue  # other worlds, or nodes that do not hold neighbours
        comm = Communicator(world.mpi, per_node)
        x = case.inputs()["x"][comm.rank]
        operation = getattr(collectives.get(family), case.operation)
        more = (given["root"],) if "root" in given else ()
        got = operation(comm, x, *more)
        want = case.arrays["result"].value
        if case.operation == "reduce":
            right = comm.rank != given["root"] or x.tobytes() == want.tobytes()
        else:
            mine = got if case.operation == "reduce_scatter" else x
            right = mine.tobytes() == want[comm.rank, : mine.size].tobytes()
        wrong += [] if right else [case.name]
        comm.free()
    assert not wrong


@pytest.mark.parametrize(
    "rung",
    [
        pytest.param("one-step", marks=pytest.mark.wide),
        pytest.param("ten-steps", marks=pytest.mark.once),
    ],
)
def test_every_strategy_takes_the_golden_steps(world, rung):
    tried, wrong = 0, []
    for case in cases(f"{rung}.*"):
        kind = {"train": trained.Rank, "train_frames": trained.Unequal}.get(case.operation)
        here = case.settings.get("nodes", list(world.nodes)) == list(world.nodes)
        if kind is None or not here or np.prod(case.settings["grid"]) != world.size:
            continue
        grid = Grid(*case.settings["grid"])
        takes = {"micro_batch": trained.takes(grid, case.settings["microsteps"])}
        rank = kind(world, grid, case.inputs() | takes, case.settings)
        for name, rows in rank.train().items():
            want = case.arrays[name]
            if name != "model":
                mine = want.value[:, world.rank]
                want = replace(want, value=mine, axes=("step", "element"))
                rows = [padded(rows, mine.shape[1])]
            found = verdict(rows[0], want)
            if not found.right:
                wrong.append(f"{case.settings['strategy']}/{case.name}/{name}: {found.text}")
        tried += 1
    assert not wrong
    assert tried >= 12 or world.size not in (1, 2, 4, 8)
