"""More of the second rung: one bit per value, by one scale or by two values for every column.

Columns are of several lengths, also of one value, and some are shared by two owners; some have
nothing below zero, nothing above, or nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from refimpl.collectives import chunks
from refimpl.golden import draw
from refimpl.golden.bundle import Case, Rule, padded
from refimpl.golden.cases import messages
from refimpl.golden.cases.ask import BYTES, INTEGERS, Answer, Arrays, Settings, case
from refimpl.methods.gradient.onebit import columns, message
from refimpl.nn.flat import unit_of
from refimpl.world.communicator import Communicator
from refimpl.world.threads import spawn


def onebit_encode(inputs: Arrays, settings: Settings) -> Arrays:
    """Write x (n,) as a scale and signs -> message (bytes,), and x less what was sent (n,)."""
    x = inputs["x"]
    out = np.empty(message.message_bytes(x.size), np.uint8)
    message.encode(x, out)
    return {"message": out, "residual": x}


def onebit_allreduce(inputs: Arrays, settings: Settings) -> Arrays:
    """Sum with one bit per value and way: gradient (steps, ranks, n) -> result, residual, owned.

    owned (steps, ranks, longest chunk) is what a chunk's owner has not passed on.
    """
    found = _sums(inputs["gradient"])
    return {name: found[name] for name in ("residual", "owned", "result")}


def onebit_columns(inputs: Arrays, settings: Settings) -> Arrays:
    """Sum with one bit per value and two values per column, step after step.

    gradient (steps, ranks, n), settings ranks and shapes, of parameters end to end -> message and
    message_size, result, residual, owned (steps, ranks, longest chunk).
    """
    gradient = inputs["gradient"]
    layout = unit_of([tuple(shape) for shape in settings["shapes"]])
    return _sums(gradient, columns.codes(layout, 0, gradient.shape[1], gradient.dtype))


def _sums(gradients: np.ndarray, codes: Sequence[message.Code] | None = None) -> Arrays:
    """Return what the ranks of a sum say, keep and get, by (step, rank)."""
    steps, ranks, n = gradients.shape
    cut, dtype = np.diff(chunks.offsets(n, ranks)), gradients.dtype

    def body(comm: Communicator) -> Any:
        residual, owned, found = np.zeros(n, dtype), np.zeros(cut[comm.rank], dtype), []
        for gradient in gradients[:, comm.rank]:
            got, said = gradient.copy(), list[np.ndarray]()
            message.allreduce(comm, got, residual, owned, said, codes)
            found.append((np.concatenate(said), residual.copy(), owned.copy(), got))
        return found

    ends = spawn((0,) * ranks, body)

    def of(which: int) -> np.ndarray:
        longest = max(end[s][which].size for end in ends for s in range(steps))
        return np.stack([padded([e[s][which] for e in ends], longest) for s in range(steps)])

    sizes = np.array([[end[s][0].size for end in ends] for s in range(steps)])
    found = dict(zip(("message", "residual", "owned", "result"), map(of, range(4)), strict=True))
    return {"message_size": sizes, **found}


SCALED = Rule(
    "the mean of |x| over 8 or 64 values is exact in float64; every other operation is too"
)
MEANS = Rule("means are rounded to float32 once, and so is every other operation")


def cases() -> Iterator[Case]:
    """Yield the cases of one scale."""
    vectors = {
        "tiny": np.array([3.0, -1.0, 0.5, 0.0, -0.5, 0.25, 1.75, -1.0], np.float32),
        "zero": np.zeros(9, np.float32),
        "long": draw.dyadic("onebit", 64, 4.0),
        "thousands": draw.rough("onebit thousands", 4099, 3.0),  # summed in float64, or seen
    }
    for name, x in vectors.items():
        rule = messages.ROUNDED if name == "thousands" else SCALED
        yield case(
            f"encode.{name}",
            onebit_encode,
            "a scale, the mean of |x|, and a sign for each value",
            {},
            {"x": (x, "element")},
            {"message": Answer("byte", BYTES), "residual": Answer("element", rule)},
        )
    for ranks in (1, 2, 4, 8):
        # Chunks of 8 values: a mean of 8 dyadic numbers is dyadic.
        gradient = draw.dyadic(f"onebit {ranks}", (3, ranks, 8 * ranks), 2.0)
        yield case(
            f"allreduce.n{ranks}",
            onebit_allreduce,
            f"three steps on {ranks} ranks",
            {"ranks": ranks},
            {"gradient": (gradient, "step rank element")},
            {
                "residual": Answer("step rank element", SCALED),
                "owned": Answer("step rank element", SCALED),
                "result": Answer("step rank element", SCALED),
            },
        )


def by_columns() -> Iterator[Case]:
    """Yield the cases of two values for every column."""
    tiny = np.array(
        [[[3, 1, -1, -3, 0, 0, 2, -2, 5]] * 2, [[0] * 9, [1, 1, 1, 1, 1, 0, 0, 0, -1]]]
    )
    yield _columns("tiny.n2", tiny.astype(np.float32), [[2, 3], [3]])
    shapes = [[3, 4], [4], [4, 1], [1]]
    for ranks in (1, 3):
        gradient = draw.dyadic(f"one bit, columns {ranks}", (3, ranks, 21), 2.0)
        gradient[..., 4:8] = 0  # of an input that is never set
        gradient[..., 12:16] = np.abs(gradient[..., 12:16])
        yield _columns(f"n{ranks}", gradient, shapes)


def _columns(name: str, gradient: np.ndarray, shapes: list[list[int]]) -> Case:
    ranks = gradient.shape[1]
    return case(
        f"columns.{name}",
        onebit_columns,
        f"{len(gradient)} steps on {ranks} ranks, a pair of values for every column",
        {"ranks": ranks, "shapes": shapes},
        {"gradient": (gradient, "step rank element")},
        {
            "message_size": Answer("step rank", INTEGERS),
            "message": Answer("step rank byte", BYTES),
            "residual": Answer("step rank element", MEANS),
            "owned": Answer("step rank element", MEANS),
            "result": Answer("step rank element", MEANS),
        },
    )
