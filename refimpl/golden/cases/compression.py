"""The second rung: what GTC encodes, sends and decodes.

Values are dyadic, so every residual is exact; a few are exactly tau, -tau and zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, Rule, padded
from refimpl.golden.cases import messages, onebit
from refimpl.golden.cases.ask import BYTES, EXACT, INTEGERS, Answer, Arrays, Settings, case
from refimpl.methods.gradient.gtc import exchange as gtc
from refimpl.methods.gradient.gtc import threshold, wire
from refimpl.methods.gradient.gtc.header import FORMATS
from refimpl.world.communicator import Communicator
from refimpl.world.threads import spawn

# ---------------------------------------------------------------------------------- operations


def gtc_encode(inputs: Arrays, settings: Settings) -> Arrays:
    """Add the gradient to the residual and take out the message, step after step.

    gradient (steps, n), residual (n,), setting tau -> for each step the words (steps, longest),
    how many (steps,), and the residual afterwards (steps, n).
    """
    residual, words, after = inputs["residual"], [], []
    memory = np.empty(residual.size, np.uint32)
    for gradient in inputs["gradient"]:
        words.append(threshold.encode(residual, gradient, settings["tau"], memory).copy())
        after.append(residual.copy())
    entries = np.array([len(one) for one in words])
    return {"entries": entries, "words": padded(words), "residual_after": np.stack(after)}


def gtc_message(inputs: Arrays, settings: Settings) -> Arrays:
    """Write words (m,) as bytes: settings n, tau and format -> message (bytes,)."""
    n, tau, form = settings["n"], settings["tau"], settings["format"]
    return {"message": wire.encode(inputs["words"], n, tau, form)}


def gtc_decode(inputs: Arrays, settings: Settings) -> Arrays:
    """Read a message (bytes,) and say what it stands for: words (m,), values (n,)."""
    n, tau = settings["n"], settings["tau"]
    _, words = wire.decode(inputs["message"], n, tau)
    counts, values = threshold.Counts(n, 1), np.empty(n, np.float32)
    counts.add(words)
    counts.total(tau, values)
    return {"words": words, "values": values}


def gtc_exchange(inputs: Arrays, settings: Settings) -> Arrays:
    """Encode on every rank, exchange, decode and add, step after step.

    gradient (steps, ranks, n), settings tau and format -> total (steps, ranks, n), residual
    (steps, ranks, n), message (steps, ranks, longest) and message_size (steps, ranks).
    """
    steps, ranks, n = inputs["gradient"].shape
    tau, dtype = settings["tau"], inputs["gradient"].dtype

    def body(comm: Communicator) -> Any:
        residual, words = np.zeros(n, dtype), np.empty(n, np.uint32)
        counts, found = threshold.Counts(n, ranks), []
        for gradient in inputs["gradient"][:, comm.rank]:
            mine = threshold.encode(residual, gradient, tau, words)
            form = wire.choose(mine, n, settings["format"])
            message = wire.encode(mine, n, tau, form)
            total = np.empty(n, dtype)
            gtc.exchange(comm, mine, tau, counts, total, settings["format"])
            found.append((message, residual.copy(), total))
        return found

    ends = spawn((0,) * ranks, body)
    messages = [[ends[r][s][0] for r in range(ranks)] for s in range(steps)]
    longest = max(m.size for row in messages for m in row)
    return {
        "message_size": np.array([[m.size for m in row] for row in messages]),
        "message": np.stack([padded(row, longest) for row in messages]),
        "residual": np.stack([[ends[r][s][1] for r in range(ranks)] for s in range(steps)]),
        "total": np.stack([[ends[r][s][2] for r in range(ranks)] for s in range(steps)]),
    }


def gtc_adapt(inputs: Arrays, settings: Settings) -> Arrays:
    """Steer tau to a density: entries (steps,) -> the tau after each step (steps,), float64."""
    tau, found = settings["tau"], []
    for entries in inputs["entries"].tolist():
        tau = threshold.adapted(tau, entries, settings["n"], settings["target"], np.float32)
        found.append(tau)
    return {"tau": np.array(found)}


# --------------------------------------------------------------------------------------- cases


def bundles() -> Iterator[Bundle]:
    """Yield the bundles of this rung."""
    yield Bundle(
        "compression.gtc",
        "compression",
        "Gradient threshold compression: residuals, words, the bytes of all formats, sums.",
        (*_gtc(), *messages.gtc()),
    )
    yield Bundle(
        "compression.onebit",
        "compression",
        "One bit per value with error feedback at sender and owner.",
        (*onebit.cases(), *messages.one_bit(), *onebit.by_columns()),
    )


def _gtc() -> Iterator[Case]:
    tiny = np.array([[0.5, 1.0, 1.25, -1.0, -1.25, 0.0, 3.0, -0.5]], np.float32)
    yield _encode("tiny", np.repeat(tiny, 3, 0), np.zeros(8, np.float32), 1.0)
    start = draw.dyadic("gtc residual", 200, 1.0)
    start[:4] = [0.5, -0.5, 0.0, 0.125]
    yield _encode("steps", draw.dyadic("gtc gradient", (4, 200), 0.75), start, 0.5)
    yield _encode("silent", np.zeros((1, 5), np.float32), start[:5], 1.0)

    words = {
        "empty": (np.empty(0, np.uint32), 40),
        "one": (np.array([39 << 1 | 1], np.uint32), 40),
        "all": (np.arange(0, 26, 2, dtype=np.uint32) | np.array([0, 1] * 6 + [1], np.uint32), 13),
        "sparse": (_words("gtc sparse", 300, 11), 300),
        "dense": (_words("gtc dense", 300, 120), 300),
        # A quotient of 64, more than a word's bits.
        "far": (np.append(np.arange(40), 299).astype(np.uint32) << 1 | 1, 300),
    }
    for name, (some, n) in words.items():
        for form in FORMATS:
            settings = {"n": n, "tau": 0.5, "format": form}
            made = case(
                f"message.{form}.{name}",
                gtc_message,
                f"{some.size} entries of {n} values in the format {form}",
                settings,
                {"words": (some, "entry")},
                {"message": Answer("byte", BYTES)},
            )
            yield made
            yield case(
                f"decode.{form}.{name}",
                gtc_decode,
                "the same message, read",
                {"n": n, "tau": 0.5},
                {"message": (made.arrays["message"].value, "byte")},
                {"words": Answer("entry", INTEGERS), "values": Answer("element", EXACT)},
            )
    ones = np.array([[[1.0, 2.0, 0.0, -3.0], [1.0, -2.0, 0.5, -3.0]]], np.float32)
    yield _exchange("tiny.n2", np.repeat(ones, 3, 0), 1.0, "auto")
    for ranks in (1, 2, 4, 8):
        for form in ("auto", "rice"):
            gradient = draw.dyadic(f"gtc exchange {ranks}", (3, ranks, 50), 0.75)
            yield _exchange(f"{form}.n{ranks}", gradient, 0.5, form)
    steered = (
        "tau falls while too little is sent, rises while too much is, and stays at the target"
    )
    end = "tau stays at the {} normal number of float32, and comes back"
    for name, tau, entries, text in (
        ("", 8.0, [0, 1, 4, 5, 6, 50, 1000, 5, 0], steered),
        (".smallest", 1.25e-38, [0, 0, 0, 1000], end.format("smallest")),
        (".largest", 3.25e38, [1000, 1000, 1000, 0], end.format("largest")),
    ):
        yield case(
            f"adapt{name}",
            gtc_adapt,
            text,
            {"tau": threshold.rounded(tau, np.float32), "target": 0.005, "n": 1000},
            {"entries": (np.array(entries), "step")},
            {"tau": Answer("step", _FLOAT32)},
        )
    rough = draw.rough("gtc rough", (3, 12), 0.5)
    yield _encode("rough", rough, np.zeros(12, np.float32), messages.TAU, messages.ROUNDED)
    gradient = draw.rough("gtc rough exchange", (3, 3, 12), 0.5)
    yield _exchange("rough.n3", gradient, messages.TAU, "smallest", messages.ROUNDED)


_FLOAT32 = Rule("one division or product in float64, rounded to float32")


def _words(name: str, n: int, entries: int) -> NDArray[np.uint32]:
    """Return a message of so many different indices below n, signs at random."""
    order = np.argsort(draw.integers(name, 0, 1 << 30, n), kind="stable")
    index = np.sort(order[:entries])
    return (index << 1 | draw.integers(f"{name} signs", 0, 2, entries)).astype(np.uint32)


def _encode(
    name: str, gradient: np.ndarray, residual: np.ndarray, tau: float, rule: Rule = EXACT
) -> Case:
    return case(
        f"encode.{name}",
        gtc_encode,
        f"{len(gradient)} steps of error feedback; residuals of exactly tau stay",
        {"tau": tau},
        {"gradient": (gradient, "step element"), "residual": (residual, "element")},
        {
            "entries": Answer("step", INTEGERS),
            "words": Answer("step entry", INTEGERS),
            "residual_after": Answer("step element", rule),
        },
    )


def _exchange(name: str, gradient: np.ndarray, tau: float, form: str, rule: Rule = EXACT) -> Case:
    return case(
        f"exchange.{name}",
        gtc_exchange,
        f"{gradient.shape[1]} ranks encode, exchange and add, {len(gradient)} steps",
        {"tau": tau, "format": form, "ranks": gradient.shape[1]},
        {"gradient": (gradient, "step rank element")},
        {
            "residual": Answer("step rank element", rule),
            "message_size": Answer("step rank", INTEGERS, "detail"),
            "message": Answer("step rank byte", BYTES, "detail"),
            "total": Answer("step rank element", rule),
        },
    )
