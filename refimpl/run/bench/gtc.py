"""``refimpl bench gtc``: what compressing a gradient costs beside adding it to the residual.

No compression can do with less than one pass ``residual += gradient``, so that is what encoding is
measured in.  Encoding, writing and reading each wire format, and summing up one decoded message
are timed in turn with it, in one run, on one rank.  On several ranks `traffic` counts, too, what
the strategies send in the first steps of the main job.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from refimpl.methods.block.bmuf import Bmuf
from refimpl.methods.gradient.gtc import threshold, wire
from refimpl.methods.gradient.gtc.header import FORMATS
from refimpl.methods.gradient.onebit import message as onebit
from refimpl.numerics.rng import stream
from refimpl.run.config import Run
from refimpl.run.trainer import Trainer
from refimpl.support import text
from refimpl.support.text import plural

if TYPE_CHECKING:
    from refimpl.run.modelfile import ModelFile
    from refimpl.world.communicator import Communicator


def seconds(work: Callable[[], Any]) -> float:
    """Return the CPU seconds of one call.

    Every part runs on one thread and waits for nothing, so this is its time on an idle machine,
    and on one that is not idle it leaves out the others' turns.
    """
    start = time.thread_time()
    work()
    return time.thread_time() - start


def measure(
    n: int = 10_000_000, density: float = 0.005, repeats: int = 15, dtype: str = "float32"
) -> dict[str, Any]:
    """Return times of the parts of one GTC step on one rank, and their ratios.

    Medians over ``repeats`` rounds, in each of which all parts are timed in turn; ratios are
    medians over rounds too.  The residual is zero before each encoding, and tau is such that the
    given share of a normal gradient is beyond it.

    ``encode / add``: encoding in units of ``residual += gradient``.  ``decode / encode``: reading
    one message of the default format and adding it to the sum, with the sum's last pass.
    """
    gradient = stream(0, "bench gtc").standard_normal(n, dtype=np.float32).astype(dtype)
    tau = threshold.rounded(float(np.quantile(np.abs(gradient[:1_000_000]), 1 - density)), dtype)
    residual, out = np.zeros(n, dtype), np.zeros(n, dtype)
    memory, counts = np.empty(n, np.uint32), threshold.Counts(n, terms=2)
    bits = np.zeros(onebit.message_bytes(n), np.uint8)
    words = threshold.encode(residual, gradient, tau, memory).copy()
    messages = {form: wire.encode(words, n, tau, form) for form in FORMATS}

    def zero() -> None:
        residual.fill(0)

    def add() -> None:
        np.add(residual, gradient, out=residual)

    def encode() -> None:
        wire.encode(threshold.encode(residual, gradient, tau, memory), n, tau, "index")

    def decode() -> None:
        counts.add(wire.decode(messages["index"], n, tau)[1])
        counts.total(tau, out)

    parts: dict[str, Callable[[], Any]] = {"add": add, "encode": encode, "decode": decode}
    parts["count"] = lambda: counts.add(words)
    for form in FORMATS:
        parts[f"write {form}"] = partial(wire.encode, words, n, tau, form)
        parts[f"read {form}"] = partial(wire.decode, messages[form], n, tau)
    parts["one-bit encode"] = lambda: onebit.encode(residual, bits)
    parts["one-bit decode"] = lambda: onebit.add(bits, out)

    rounds = []
    for _ in range(repeats + 1):
        took = {}
        for name, work in parts.items():
            zero()
            took[name] = seconds(work)
        rounds.append(took)
    rounds = rounds[1:]  # the first one touches the memory

    def ratio(one: str, other: str) -> list[float]:
        return [took[one] / took[other] for took in rounds]

    pairs = {
        "encode / add": ratio("encode", "add"),
        "decode / encode": ratio("decode", "encode"),
        "one-bit encode / add": ratio("one-bit encode", "add"),
    }
    return {
        "n": n,
        "dtype": dtype,
        "tau": tau,
        "density": words.size / n,
        "bytes": {form: message.size for form, message in messages.items()}
        | {"dense": gradient.nbytes, "one-bit": bits.size},
        "seconds": {name: statistics.median(took[name] for took in rounds) for name in parts},
        "ratios": {name: statistics.median(values) for name, values in pairs.items()},
        "quartiles": {name: statistics.quantiles(r, n=4)[::2] for name, r in pairs.items()},
    }


def traffic(comm: Communicator, model: ModelFile, blocks: int = 2) -> dict[str, Any]:
    """Return what ddp, gtc and gtc-bmuf send in the first steps of a model's training.

    Each takes ``blocks`` blocks of steps of the model's recipe; a GTC group is a node, or half of
    the ranks where there is one node only.  Bytes per step of all ranks, by class of link.
    Collective.
    """
    recipe = model.recipe()
    nodes = len(set(comm.nodes))
    sent = {}
    steps = blocks * Bmuf.of(recipe.methods).steps
    for name in ("ddp", "gtc", "gtc-bmuf"):
        group = comm.size // (nodes if nodes > 1 else 2) if name == "gtc-bmuf" else None
        given = {} if group is None else {"gtc_group": group}
        run = Run(model.name, recipe, strategy=name, methods=given, steps=steps)
        with Trainer(comm, run, model, lambda text: None) as trainer:
            ledger = trainer.train()["ledger"]
        sent[name] = {link: count["bytes"] / steps for link, count in ledger.items()}
    return {"model": model.name, "ranks": comm.size, "nodes": nodes, "bytes_per_step": sent}


def traffic_table(result: dict[str, Any]) -> str:
    """Return the result of `traffic` as lines for a person."""
    where = f"{plural(result['ranks'], 'rank')} on {plural(result['nodes'], 'node')}"
    sent = result["bytes_per_step"]
    dense = sum(sent["ddp"].values())
    rows = [
        [
            name,
            *(f"{nbytes:,.0f} {link}" for link, nbytes in links.items()),
            f"1/{dense / sum(links.values()):.0f} of ddp",
        ]
        for name, links in sent.items()
    ]
    lines = [f"{result['model']}, {where}, bytes per step of all ranks:"]
    lines.append(text.table((), rows, indent=2))
    if result["nodes"] > 1:
        ratio = sent["gtc-bmuf"]["inter"] / sent["gtc"]["inter"]
        lines.append(f"  gtc-bmuf / gtc, between nodes = {ratio:.2f}")
    return "\n".join(lines)


def table(result: dict[str, Any]) -> str:
    """Return the result as lines for a person."""
    dense = result["bytes"]["dense"]
    seconds = [(name, f"{1e3 * s:.2f} ms") for name, s in result["seconds"].items()]
    sizes = [
        (name, f"{nbytes:,} bytes", f"1/{dense / nbytes:.0f} of dense")
        for name, nbytes in result["bytes"].items()
    ]
    sent = f"tau {result['tau']:.4g}: {result['density']:.2%} sent"
    lines = [
        f"{result['n']:,} {result['dtype']}, {sent}",
        text.table((), seconds, indent=2),
        text.table((), sizes, indent=2),
    ]
    for name, value in result["ratios"].items():
        low, high = result["quartiles"][name]
        lines.append(f"  {name} = {value:.2f} (quartiles {low:.2f}, {high:.2f})")
    return "\n".join(lines)
