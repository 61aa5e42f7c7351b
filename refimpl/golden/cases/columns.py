"""More of the second rung: one bit per value with two values for every column.

Columns of several lengths, also of one value, some of which two owners share; columns that have
nothing below zero, nothing above, and nothing at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl.collectives import chunks
from refimpl.golden import draw
from refimpl.golden.bundle import Case, Rule, padded
from refimpl.golden.cases.ask import BYTES, INTEGERS, Answer, Arrays, Settings, case
from refimpl.methods.gradient.onebit import columns
from refimpl.methods.gradient.onebit import message as onebit
from refimpl.nn.flat import unit_of
from refimpl.world.communicator import Communicator
from refimpl.world.threads import spawn


def onebit_columns(inputs: Arrays, settings: Settings) -> Arrays:
    """Sum with one bit per value and two values per column, step after step.

    gradient (steps, ranks, n), settings ranks and shapes, of parameters end to end -> message and
    message_size, result, residual, owned (steps, ranks, longest chunk).
    """
    steps, ranks, n = inputs["gradient"].shape
    cut, dtype = np.diff(chunks.offsets(n, ranks)), inputs["gradient"].dtype
    layout = unit_of([tuple(shape) for shape in settings["shapes"]])

    def body(comm: Communicator) -> Any:
        residual, owned = np.zeros(n, dtype), np.zeros(cut[comm.rank], dtype)
        codes, found = columns.codes(layout, 0, ranks, dtype), []
        for gradient in inputs["gradient"][:, comm.rank]:
            got, said = gradient.copy(), list[np.ndarray]()
            onebit.allreduce(comm, got, residual, owned, said, codes)
            found.append((np.concatenate(said), residual.copy(), owned.copy(), got))
        return found

    ends = spawn((0,) * ranks, body)

    def of(which: int) -> np.ndarray:
        longest = max(end[s][which].size for end in ends for s in range(steps))
        return np.stack([padded([e[s][which] for e in ends], longest) for s in range(steps)])

    sizes = np.array([[end[s][0].size for end in ends] for s in range(steps)])
    found = dict(zip(("message", "residual", "owned", "result"), map(of, range(4)), strict=True))
    return {"message_size": sizes, **found}


MEANS = Rule("means are rounded to float32 once, and so is every other operation")


def cases() -> Iterator[Case]:
    """Yield the cases."""
    tiny = np.array(
        [[[3, 1, -1, -3, 0, 0, 2, -2, 5]] * 2, [[0] * 9, [1, 1, 1, 1, 1, 0, 0, 0, -1]]]
    )
    yield _case("tiny.n2", tiny.astype(np.float32), [[2, 3], [3]])
    shapes = [[3, 4], [4], [4, 1], [1]]
    for ranks in (1, 3):
        gradient = draw.dyadic(f"one bit, columns {ranks}", (3, ranks, 21), 2.0)
        gradient[..., 4:8] = 0  # of an input that is never set
        gradient[..., 12:16] = np.abs(gradient[..., 12:16])
        yield _case(f"n{ranks}", gradient, shapes)


def _case(name: str, gradient: np.ndarray, shapes: list[list[int]]) -> Case:
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
