"""The third rung: DiLoCo's outer optimizer, and plain averaging."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl import collectives
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case
from refimpl.golden.cases.ask import EXACT, Answer, Arrays, Settings, case
from refimpl.methods.block.diloco import DiLoCo
from refimpl.methods.protocol import Context
from refimpl.nn.flat import one_unit
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid


def outer_sgd(inputs: Arrays, settings: Settings) -> Arrays:
    """Average, and take a step of Nesterov's SGD, block after block.

    Model i of block t is trained to W + found[t, i]: initial (n,), found (blocks, models, n),
    settings rate and momentum -> after each block W (blocks, n), from where the next one starts,
    and the momentum's memory u (blocks, n).
    """
    found = inputs["found"]
    number, models, _ = found.shape
    options = DiLoCo(steps=1, rate=settings["rate"], momentum=settings["momentum"])

    def body(comm: Communicator) -> Any:
        groups, weights = Groups.split(comm, Grid(models, 1, 1)), inputs["initial"].copy()
        layout = one_unit(weights.size)
        outer = options.build(Context(groups, collectives.get("ring"), layout, weights.dtype))
        outer.begin(weights)
        seen = []
        for block in range(number):
            weights += found[block, comm.rank]
            outer.sync(weights)
            assert weights.tobytes() == outer.model.tobytes()
            seen.append((outer.model.copy(), outer.memory.copy()))
        return seen

    seen = spawn((0,) * models, body)[0]
    return {name: np.stack([one[i] for one in seen]) for i, name in enumerate(("model", "memory"))}


def bundles() -> Iterator[Bundle]:
    """Yield the bundle."""
    text = "DiLoCo: Nesterov's SGD on what blocks of training found; plain averaging."
    yield Bundle("blocks.diloco", "blocks", text, tuple(_cases()))


def _cases() -> Iterator[Case]:
    two = np.array([[[1.0], [3.0]]] * 3, np.float32)
    yield _case("tiny", two, np.zeros(1, np.float32), 0.5, 0.5)
    for models in (2, 4, 8):
        initial = draw.dyadic(f"outer {models} initial", 12, 2.0, 0.25)
        found = draw.dyadic(f"outer {models}", (3, models, 12), 1.0, 0.125)
        yield _case(f"n{models}", found, initial, 0.75, 0.5)
    yield _case("average", found, initial, 1.0, 0.0)


def _case(name: str, found: np.ndarray, initial: np.ndarray, rate: float, momentum: float) -> Case:
    return case(
        name,
        outer_sgd,
        f"{len(found)} blocks of {found.shape[1]} models",
        {"rate": rate, "momentum": momentum, "models": found.shape[1]},
        {"initial": (initial, "element"), "found": (found, "block model element")},
        {"model": Answer("block element", EXACT), "memory": Answer("block element", EXACT)},
    )
