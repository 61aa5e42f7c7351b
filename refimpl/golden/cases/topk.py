"""The second rung: what chunked top-k encodes, sends and adds up, step after step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, Rule
from refimpl.golden.cases import messages
from refimpl.golden.cases.ask import BYTES, EXACT, Answer, Arrays, Settings, case
from refimpl.methods.gradient.topk.exchange import exchange
from refimpl.methods.gradient.topk.method import TopK
from refimpl.nn.flat import one_unit
from refimpl.world.communicator import Communicator
from refimpl.world.threads import spawn


def topk_exchange(inputs: Arrays, settings: Settings) -> Arrays:
    """Encode the largest of every chunk on every rank, exchange, decode and add.

    gradient (steps, ranks, n), settings most, length, decay, two_bit and over_senders -> message
    (steps, ranks, bytes), residual (steps, ranks, n) and total (steps, ranks, n).
    """
    steps, ranks, n = inputs["gradient"].shape
    dtype = inputs["gradient"].dtype
    options = TopK(**{key: value for key, value in settings.items() if key != "ranks"})
    chunks = options.chunks(one_unit(n), 0, dtype)

    def body(comm: Communicator) -> Any:
        residual, total, found = np.zeros(n, dtype), np.empty(n, dtype), []
        senders = np.zeros(n, np.uint16) if options.over_senders else None
        for gradient in inputs["gradient"][:, comm.rank]:
            residual *= dtype.type(options.decay)
            residual += gradient
            said = np.empty(chunks.message_bytes, np.uint8)
            chunks.encode(residual.copy(), said)
            exchange(comm, chunks, residual, total, senders)
            found.append((said, residual.copy(), total.copy()))
        return found

    ends = spawn((0,) * ranks, body)
    names = ("message", "residual", "total")
    return {
        name: np.stack([[ends[r][s][i] for r in range(ranks)] for s in range(steps)])
        for i, name in enumerate(names)
    }


def bundles() -> Iterator[Bundle]:
    """Yield the bundle."""
    yield Bundle(
        "compression.topk",
        "compression",
        "Chunked top-k with error feedback: places, values in both forms, sums.",
        (*_cases(), *messages.top_k()),
    )


def _cases() -> Iterator[Case]:
    # Equals: the first of them; a chunk of zeros, a short one; t at both of its ends.
    tiny = [
        [1, -3, 3, 0.5, 0, 0, 0, 0, 2, -2, 4],
        [-1, 2, 0, 3.5, 0, 0.5, 0, -0.5, -4, 3, 0],
    ]
    one = np.array([tiny] * 2, np.float32)
    few = {"most": 2, "length": 4, "decay": 1.0, "two_bit": False, "over_senders": False}
    for name, more in (
        ("float", {}),
        ("two-bit", {"two_bit": True}),
        ("decay", {"decay": 0.5}),
        ("senders", {"over_senders": True}),
        ("everything", {"most": 4}),
    ):
        yield _case(f"tiny.{name}", one, few | more)
    usual = {"most": 3, "length": 16, "decay": 0.5, "two_bit": False, "over_senders": False}
    for ranks in (1, 4):
        gradient = draw.dyadic(f"top k {ranks}", (3, ranks, 40), 2.0)
        yield _case(f"float.n{ranks}", gradient, usual)
        yield _case(f"two-bit.n{ranks}", gradient, usual | {"two_bit": True})
    yield _case("senders.n4", gradient, usual | {"over_senders": True})
    # Places of more than 8 bits.
    yield _case("long.n2", draw.dyadic("top k long", (1, 2, 700), 64.0), usual | {"length": 512})


def _case(name: str, gradient: np.ndarray, settings: Settings) -> Case:
    ranks = gradient.shape[1]
    rule = EXACT if not settings["over_senders"] else _DIVIDED
    return case(
        f"exchange.{name}",
        topk_exchange,
        f"{ranks} ranks send {settings['most']} values of {settings['length']}, "
        f"{len(gradient)} steps",
        settings | {"ranks": ranks},
        {"gradient": (gradient, "step rank element")},
        {
            "message": Answer("step rank byte", BYTES, "detail"),
            "residual": Answer("step rank element", EXACT),
            "total": Answer("step rank element", rule),
        },
    )


_DIVIDED = Rule("one division, of exact sums and counts; every other operation is exact")
