"""``refimpl bench step``: what a training step costs beside what it must cost.

The step of an MLP needs its matrix products and, on several ranks, one all-reduce of the gradient;
everything else (activations, the loss, the optimizer, copies) is overhead.  The two necessary
parts are timed alone, in turn with the whole step, in one run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from refimpl import collectives, optim
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import Methods
from refimpl.numerics.rng import stream
from refimpl.run.bench.network import BATCH, WIDTHS, network, products
from refimpl.run.bench.timing import slowest
from refimpl.support import text
from refimpl.support.text import plural
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator


def measure(comm: Communicator, repeats: int = 30, collective: str = "ring") -> dict[str, Any]:
    """Return times of a ddp step and of its necessary parts, and their ratio.  Collective.

    Medians over ``repeats`` rounds in which the three are timed in turn; the ratio is the
    median over rounds of step / (products + all-reduce).
    """
    net = network()
    net.plan(BATCH, np.dtype(np.float32))
    algorithms = collectives.get(collective)
    replica = Replica(
        net,
        Groups.split(comm, Grid.cut(comm.size)),
        algorithms,
        optim.make("momentum", momentum=0.9),
        Methods(),
        StepOptions(batch=BATCH, microsteps=1),
    )
    rng = stream(0, "bench step", comm.rank)
    x = rng.normal(size=(BATCH, WIDTHS[0])).astype(np.float32)
    y = rng.integers(0, WIDTHS[-1], BATCH)
    gradient = np.zeros(replica.context.layout.padded, np.float32)

    parts: dict[str, Callable[[], Any]] = {
        "products": products(WIDTHS, BATCH),
        "all-reduce": lambda: algorithms.allreduce(comm, gradient),
        "step": lambda: replica.step(lambda _: (x, y), 1e-4),
    }
    for work in parts.values():
        work()
    rounds = [{name: slowest(comm, work) for name, work in parts.items()} for _ in range(repeats)]
    ratios = [r["step"] / (r["products"] + r["all-reduce"]) for r in rounds]
    return {
        "ranks": comm.size,
        "widths": list(WIDTHS),
        "batch": BATCH,
        "collective": collective,
        "parameters": sum(layer.size for layer in net.units),
        "seconds": {name: statistics.median(r[name] for r in rounds) for name in parts},
        "ratio": statistics.median(ratios),
        "ratio_quartiles": statistics.quantiles(ratios, n=4)[::2],
    }


def table(result: dict[str, Any]) -> str:
    """Return the result as lines for a person."""
    widths = "-".join(map(str, result["widths"]))
    low, high = result["ratio_quartiles"]
    seconds = [(name, f"{1e3 * s:.2f} ms") for name, s in result["seconds"].items()]
    return "\n".join(
        [
            f"{plural(result['ranks'], 'rank')}, {widths}, batch {result['batch']} per rank, "
            f"{result['collective']} all-reduce of {result['parameters']:,} float32",
            text.table((), seconds, indent=2),
            f"  step / (products + all-reduce) = {result['ratio']:.3f} "
            f"(quartiles {low:.3f}, {high:.3f})",
        ]
    )
