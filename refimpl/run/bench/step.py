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

from refimpl import collectives, nn, optim
from refimpl.methods.step import Replica, StepOptions
from refimpl.numerics.rng import stream
from refimpl.run.bench.timing import slowest
from refimpl.support import text
from refimpl.support.text import plural
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

WIDTHS = (440, 1024, 1024, 1024, 128)
BATCH = 64


def network(widths: tuple[int, ...] = WIDTHS, seed: int = 0) -> nn.Sequential:
    """Return the MLP that is measured."""
    layers: list[nn.Layer] = []
    for i, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layers.append(nn.Affine(f"layer{i}", inputs, outputs, seed))
        if i < len(widths) - 2:
            layers.append(nn.Relu())
    return nn.Sequential(*layers)


def products(widths: tuple[int, ...], batch: int) -> Callable[[], None]:
    """Return a function that does the matrix products of one step and nothing else.

    Per layer x (B, i), w (i, o), dy (B, o): the output x w, the weight gradient x' dy and, but
    for the first layer, the input gradient dy w'.
    """
    rng = stream(0, "bench")
    layers = [
        tuple(
            rng.normal(size=shape).astype(np.float32)
            for shape in ((batch, i), (i, o), (batch, o), (batch, o), (i, o), (batch, i))
        )
        for i, o in zip(widths[:-1], widths[1:], strict=True)
    ]

    def run() -> None:
        for x, w, _, y, _, _ in layers:
            np.matmul(x, w, out=y)
        for number, (x, w, dy, _, dw, dx) in reversed(list(enumerate(layers))):
            np.matmul(x.T, dy, out=dw)
            if number:
                np.matmul(dy, w.T, out=dx)

    return run


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
        StepOptions(stage=0, batch=BATCH, microsteps=1),
    )
    rng = stream(0, "bench step", comm.rank)
    x = rng.normal(size=(BATCH, WIDTHS[0])).astype(np.float32)
    y = rng.integers(0, WIDTHS[-1], BATCH)
    gradient = np.zeros(replica.states.layout.padded, np.float32)

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
