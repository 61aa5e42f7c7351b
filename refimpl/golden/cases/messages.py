"""More of the second rung: long vectors, many ranks, numbers that round, and what is no message.

sparse      a vector of more than 2^17 values, of which a few are told: indices of 18 bits
total       one weight that 130 ranks send: counts beyond an int8, times a tau that rounds
accepted    a message as it was written, and with one thing wrong at a time: a backend that
            reads what others send must refuse what `encode` cannot have written
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.golden import draw
from refimpl.golden.bundle import Case, Rule, padded
from refimpl.golden.cases.ask import BYTES, INTEGERS, Answer, Arrays, Settings, case
from refimpl.methods.gradient.gtc import threshold, wire
from refimpl.methods.gradient.gtc.header import FORMATS, HEADER_BYTES, MessageError
from refimpl.methods.gradient.onebit import message as onebit
from refimpl.methods.gradient.topk.message import Chunks
from refimpl.methods.gradient.topk.method import TopK
from refimpl.nn.flat import one_unit

Message = NDArray[np.uint8]
Change = Callable[[Message], Any]

ROUNDED = Rule("one operation after the other, each rounded to float32")
TAU = threshold.rounded(0.3, np.float32)  # no dyadic number: adding it is not multiplying it


def gtc_sparse(inputs: Arrays, settings: Settings) -> Arrays:
    """Encode a long vector and write the message, step after step.

    The gradient of n values is value[s] (entries,) at index (entries,), and 0 elsewhere ->
    entries, words, message, and the residual at these indices.
    """
    n, tau, form = settings["n"], settings["tau"], settings["format"]
    residual, gradient = np.zeros((2, n), inputs["value"].dtype)
    memory, found = np.empty(n, np.uint32), []
    for value in inputs["value"]:
        gradient[inputs["index"]] = value
        words = threshold.encode(residual, gradient, tau, memory).copy()
        said = wire.encode(words, n, tau, wire.choose(words, n, form))
        found.append((words, said, residual[inputs["index"]]))
    return {
        "entries": np.array([len(words) for words, _, _ in found]),
        "words": padded(words for words, _, _ in found),
        "message_size": np.array([len(said) for _, said, _ in found]),
        "message": padded(said for _, said, _ in found),
        "residual_at": np.stack([at for _, _, at in found]),
    }


def gtc_total(inputs: Arrays, settings: Settings) -> Arrays:
    """Read messages (ranks, bytes) of sizes (ranks,) and add them up -> total (n,)."""
    n, tau = settings["n"], settings["tau"]
    counts, total = threshold.Counts(n, len(inputs["message"])), np.empty(n, np.float32)
    for said, size in zip(inputs["message"], inputs["message_size"], strict=True):
        counts.add(wire.decode(said[:size], n, tau)[1])
    counts.total(tau, total)
    return {"total": total}


def gtc_accepts(inputs: Arrays, settings: Settings) -> Arrays:
    """Say of each of several messages whether it is one, for n values and tau: 1 or 0."""
    return _accepted(inputs, lambda said: wire.decode(said, settings["n"], settings["tau"]))


def onebit_accepts(inputs: Arrays, settings: Settings) -> Arrays:
    """Say of each of several messages whether it is one, for n values: 1 or 0."""
    return _accepted(inputs, lambda said: onebit.add(said, np.zeros(settings["n"], np.float32)))


def topk_accepts(inputs: Arrays, settings: Settings) -> Arrays:
    """Say of each of several messages whether it is one, for n values in chunks: 1 or 0."""
    return _accepted(inputs, _chunks(settings).decode)


def _chunks(settings: Settings) -> Chunks:
    options = TopK(**{key: settings[key] for key in ("most", "length", "two_bit")})
    return options.chunks(one_unit(settings["n"]), 0, np.dtype(np.float32))


def _accepted(inputs: Arrays, read: Callable[[Message], Any]) -> Arrays:
    found = []
    for said, size in zip(inputs["message"], inputs["message_size"], strict=True):
        try:
            read(said[:size].copy())
        except MessageError:
            found.append(0)
        else:
            found.append(1)
    return {"accepted": np.array(found)}


# --------------------------------------------------------------------------------------- cases

LONG = (1 << 17) + 77
INDEX = (0, 1, 255, 256, 32767, 32768, 65534, 65535, 65536, 65537, 131071, 131072, LONG - 1)


def gtc() -> Iterator[Case]:
    """Yield the cases of threshold compression."""
    value = draw.rough("gtc sparse value", (3, len(INDEX)), 0.5)
    for form in ("index", "rice"):
        yield case(
            f"sparse.{form}",
            gtc_sparse,
            f"{LONG} values, of which {len(INDEX)} have a gradient",
            {"n": LONG, "tau": TAU, "format": form},
            {"index": (np.array(INDEX), "entry"), "value": (value, "step entry")},
            {
                "entries": Answer("step", INTEGERS),
                "words": Answer("step entry", INTEGERS),
                "message_size": Answer("step", INTEGERS),
                "message": Answer("step byte", BYTES),
                "residual_at": Answer("step entry", ROUNDED),
            },
        )
    ranks, words = 130, np.array([1, 2, 4, 6], np.uint32)  # +0 -1 -2 -3
    said = [wire.encode(words[: 4 - (r < 3) - (r % 2)], 4, TAU, "index") for r in range(ranks)]
    yield case(
        "total.n130",
        gtc_total,
        "one value that all of 130 ranks send, others that some do",
        {"n": 4, "tau": TAU},
        _padded(said),
        {"total": Answer("element", Rule("one product of an integer and tau"))},
    )
    words = np.array([3, 10, 24, 31], np.uint32)
    for form, more in _spoiled().items():
        right = wire.encode(words, 19, TAU, form)
        yield _accepts(f"accepted.{form}", gtc_accepts, {"n": 19, "tau": TAU}, right, more)


def one_bit() -> Iterator[Case]:
    """Yield the cases of one bit per value."""
    right = np.empty(onebit.message_bytes(11), np.uint8)
    onebit.encode(draw.dyadic("one bit accepted", 11), right)
    negative = (np.float64(-0.5).tobytes(), "the scale is negative")
    more: list[tuple[str, Change]] = [
        ("cut off", lambda m: m[:-1]),
        ("too long", lambda m: np.append(m, np.uint8(0))),
        ("empty", lambda m: m[:0]),
        (negative[1], lambda m: _put(m, 0, *negative[0])),
        ("a bit is set after the last sign", lambda m: _put(m, -1, m[-1] | 1)),
    ]
    yield _accepts("accepted", onebit_accepts, {"n": 11}, right, more)


def top_k() -> Iterator[Case]:
    """Yield the cases of chunked top-k: 3 chunks of 4, 4 and 3 values, 2 entries of each."""
    both: list[tuple[str, Change]] = [
        ("cut off", lambda m: m[:-1]),
        ("too long", lambda m: np.append(m, np.uint8(0))),
        ("empty", lambda m: m[:0]),
        ("a place twice", lambda m: _put(m, 2, m[0])),
        ("places fall", lambda m: np.concatenate([m[2:4], m[:2], m[4:]])),
        ("a place after the last chunk's end", lambda m: _put(m, 10, 3)),
    ]
    more: dict[str, list[tuple[str, Change]]] = {
        "float": both,
        "two-bit": [
            *both,
            ("a bit is set after the last code", lambda m: _put(m, -1, m[-1] | 1)),
            ("a power of two that float32 has not", lambda m: _put(m, 12, 128, 0)),
        ],
    }
    for form, wrong in more.items():
        settings = {"n": 11, "most": 2, "length": 4, "two_bit": form == "two-bit"}
        chunks = _chunks(settings)
        right = np.empty(chunks.message_bytes, np.uint8)
        chunks.encode(draw.dyadic("top k accepted", 11), right)
        yield _accepts(f"accepted.{form}", topk_accepts, settings, right, wrong)


def _spoiled() -> dict[str, list[tuple[str, Change]]]:
    """Return for each format what is wrong with a message of 4 entries of 19, and how."""
    body = HEADER_BYTES
    head: list[tuple[str, Change]] = [
        ("empty", lambda m: m[:0]),
        ("the header is cut off", lambda m: m[: body - 1]),
        ("another magic", lambda m: _put(m, 3, ord("2"))),
        ("an unknown format", lambda m: _put(m, 4, len(FORMATS))),
        ("a c where there is none", lambda m: _put(m, 5, 1)),
        ("a reserved byte is set", lambda m: _put(m, 7, 1)),
        ("for 20 values", lambda m: _put(m, 8, 20)),
        ("an entry too many is announced", lambda m: _put(m, 12, 5)),
        ("an entry too few is announced", lambda m: _put(m, 12, 3)),
        ("tau as a float64", lambda m: _put(m, 16, *np.float64(0.3).tobytes())),
        ("tau is negative", lambda m: _put(m, 23, m[23] | 128)),
        ("tau is NaN", lambda m: _put(m, 16, *np.float64(np.nan).tobytes())),
    ]
    both: list[tuple[str, Change]] = [
        ("cut off", lambda m: m[:-1]),
        ("too long", lambda m: np.append(m, np.uint8(0))),
    ]
    return {
        "index": [
            *head,
            *both,
            ("an entry is missing", lambda m: m[:-4]),
            ("an index of 19", lambda m: _put(m, body + 12, 38)),
            ("an index twice", lambda m: _put(m, body + 4, 2)),
            (
                "indices fall",
                lambda m: np.concatenate([m[:body], m[body:].reshape(4, 4)[::-1].flat]),
            ),
        ],
        "two-bit": [
            *both,
            ("a code 01", lambda m: _put(m, body, m[body] | 0b01000000)),
            ("a code more than announced", lambda m: _put(m, body, m[body] | 0b11000000)),
            ("a code after the last value", lambda m: _put(m, -1, m[-1] | 0b11)),
        ],
        "rice": [
            *both,
            ("another c", lambda m: _put(m, 5, 1)),
            ("a bit after the signs", lambda m: _put(m, body, m[body] | 1)),
            ("a quotient more", lambda m: _put(m, -1, m[-1] | 1)),
            ("no quotients", lambda m: _put(m, -1, 0)),
            ("a gap beyond the end", lambda m: _put(m, body + 1, 255)),
        ],
    }


def _put(message: Message, place: int, *values: int) -> Message:
    """Return a message with other bytes from a place on."""
    changed = message.copy()
    place %= len(message)
    changed[place : place + len(values)] = values
    return changed


def _accepts(
    name: str,
    operation: Callable[[Arrays, Settings], Arrays],
    settings: Settings,
    right: Message,
    wrong: Iterable[tuple[str, Change]],
) -> Case:
    messages = [("as it was written", right)]
    messages += [(what, change(right).astype(np.uint8)) for what, change in wrong]
    made = case(
        name,
        operation,
        "one message as it was written, and others with one thing wrong",
        settings | {"what": [what for what, _ in messages]},
        _padded([said for _, said in messages], "message"),
        {"accepted": Answer("message", INTEGERS)},
    )
    accepted = made.arrays["accepted"].value.tolist()
    assert accepted == [1] + [0] * (len(messages) - 1), (name, accepted)
    return made


def _padded(said: list[Message], axis: str = "rank") -> dict[str, tuple[np.ndarray, str]]:
    """Return messages as two inputs."""
    sizes = np.array([one.size for one in said])
    return {"message": (padded(said), f"{axis} byte"), "message_size": (sizes, axis)}
