"""The third rung: the block filter of BMUF, CBM and NBM."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl import collectives
from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case
from refimpl.golden.cases.ask import EXACT, Answer, Arrays, Settings, case
from refimpl.methods.block.bmuf import Bmuf
from refimpl.methods.protocol import Context
from refimpl.nn.flat import one_unit
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid


def bmuf(inputs: Arrays, settings: Settings) -> Arrays:
    """Average and filter, block after block.

    Model i of block t is trained to start + found[t, i]: initial (n,), found (blocks, models, n),
    settings eta (null: 1 - 1/models), zeta and nesterov -> after each block the global model W
    (blocks, n), its last update D (blocks, n), and the start of the next block (blocks, n).
    """
    found = inputs["found"]
    number, models, _ = found.shape
    options = Bmuf(
        steps=1, eta=settings["eta"], zeta=settings["zeta"], nesterov=settings["nesterov"]
    )

    def body(comm: Communicator) -> Any:
        groups, initial = Groups.split(comm, Grid(models, 1, 1)), inputs["initial"]
        layout = one_unit(initial.size)
        filtered = options.build(Context(groups, collectives.get("ring"), layout, initial.dtype))
        weights = inputs["initial"].copy()
        filtered.begin(weights)
        seen = []
        for block in range(number):
            weights += found[block, comm.rank]
            filtered.sync(weights)
            seen.append((filtered.model.copy(), filtered.update.copy(), weights.copy()))
        return seen

    seen = spawn((0,) * models, body)[0]
    names = ("model", "update", "start")
    return {name: np.stack([one[i] for one in seen]) for i, name in enumerate(names)}


def bundles() -> Iterator[Bundle]:
    """Yield the bundle of this rung."""
    yield Bundle("blocks.bmuf", "blocks", "Blockwise model-update filtering.", tuple(_cases()))


def _cases() -> Iterator[Case]:
    two = np.array([[[1.0], [3.0]]] * 3, np.float32)
    for name, nesterov in (("cbm", False), ("nbm", True)):
        yield _case(f"{name}.tiny", two, np.zeros(1, np.float32), 0.5, 1.0, nesterov)
        for models in (2, 4, 8):
            initial = draw.dyadic(f"bmuf {models} initial", 12, 2.0, 0.25)
            found = draw.dyadic(f"bmuf {models}", (3, models, 12), 1.0, 0.125)
            yield _case(f"{name}.n{models}", found, initial, None, 1.0, nesterov)
        initial = draw.dyadic("bmuf zeta initial", 12, 2.0, 0.25)
        found = draw.dyadic("bmuf zeta", (3, 2, 12), 1.0, 0.125)
        yield _case(f"{name}.zeta", found, initial, 0.25, 0.5, nesterov)
        yield _case(f"{name}.average", found, initial, 0.0, 1.0, nesterov)


def _case(
    name: str,
    found: np.ndarray,
    initial: np.ndarray,
    eta: float | None,
    zeta: float,
    nesterov: bool,
) -> Case:
    return case(
        name,
        bmuf,
        f"{len(found)} blocks of {found.shape[1]} models, "
        f"{'Nesterov' if nesterov else 'classical'} block momentum",
        {"eta": eta, "zeta": zeta, "nesterov": nesterov, "models": found.shape[1]},
        {"initial": (initial, "element"), "found": (found, "block model element")},
        {
            "model": Answer("block element", EXACT),
            "update": Answer("block element", EXACT),
            "start": Answer("block element", EXACT),
        },
    )
