"""Frames a second of training strategies, beside a prediction: arithmetic, no MPI and no root.

    step = the twin's step  +  bytes of a step  +  those of a sync / steps of a block

A twin (`training`) does all that its run does, on the same cores in turn with it, and sends the
same messages, but empty.  So computing, encoding and decoding, a message's latency and waiting
for ranks that are later are measured; what the bytes take is predicted: the calls that the
methods state (`refimpl.methods.traffic`), each with its `Cost.time` on the beta that the same run
has measured.  How long GTC's messages are depends on the data; it is counted in the run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from statistics import mean, median

import report

from refimpl.collectives.cost import Links, at_once
from refimpl.methods import traffic
from refimpl.methods.calls import Call
from refimpl.nn.flat import Layout
from refimpl.plan.simulate import network_of
from refimpl.run.config import Run
from refimpl.run.modelfile import ModelFile
from refimpl.support.files import read_text
from refimpl.support.text import table
from refimpl.world.topology import Nodes

MODEL = Path(__file__).resolve().parents[2] / "models" / "acoustic_mlp.py"
FASTER = (("gtc", "ddp"), ("gtc-bmuf", "gtc"), ("bmuf", "gtc"))  # ddp: on paper; as published

# Ranks that wait sleep between two looks, and leave their core to those that compute, as ranks on
# cores of their own do.  A step with many short messages is waiting, mostly.
ASLEEP = {"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1"}


def opened() -> ModelFile:
    """Return the model that is trained."""
    return ModelFile.parse(MODEL.stem, read_text(MODEL), str(MODEL))


def jobs(quick: bool) -> list[dict]:
    """Return what is measured, one launch each: six strategies on the same frames.

    They and their twins take turns of a few steps, so that what else the machine does is
    everybody's; a round is as many ``turns`` as make a block.
    """
    shapes, rounds, turns, steps, batch, options = ((4, 2), (8, 1)), 3, 5, 10, 32, {}
    if quick:
        shapes, rounds, turns, steps, batch, options = ((2, 2),), 2, 2, 2, 8, {"hidden": "64"}
    blocks = {"block_steps": turns * steps}
    strategies = {
        "ddp": {},
        "gtc": {},
        "bmuf": blocks,
        "gtc-bmuf": blocks | {"gtc_group": 2},
        "mics": {"partition": 2},
        "mics-gtc-bmuf": blocks | {"partition": 2, "gtc_group": 1 if quick else 2},
    }
    recipe = replace(opened().recipe(), batch=batch)
    runs = {
        name: Run(MODEL.stem, recipe, options, strategy=name, methods=methods).to_dict()
        for name, methods in strategies.items()
    }
    taken = {f"{name}, empty": steps for name in runs}
    for name in runs:  # steps that send the whole gradient are long and all alike: few will do
        taken[name] = min(steps, 3) if name in ("ddp", "mics") else steps
    common = {"model": str(MODEL), "rounds": rounds * turns, "turns": turns, "runs": runs}
    common |= {"steps": taken, "surroundings": ASLEEP}
    return [common | {"hosts": hosts, "ranks_per_host": k} for hosts, k in shapes]


def seconds(calls: Iterable[Call], nodes: tuple[int, ...], links: Links) -> float:
    """Return what calls take one after the other, those of an axis' groups at the same moment.

    ``nodes``: of all ranks.  The groups' first calls of a kind are under way together, then their
    second ones, and share the links of their nodes.
    """
    kinds: dict[tuple[str, ...], dict[tuple[int, ...], list[Call]]] = defaultdict(dict)
    for call in calls:
        kind = kinds[call.axis, call.purpose, call.operation]
        kind.setdefault(tuple(call.group), []).append(call)
    total = 0.0
    for groups in kinds.values():
        for each in zip_longest(*groups.values()):
            together = [call for call in each if call is not None]
            parts = [(call.cost(), call.group) for call in together]
            one = at_once(parts, nodes, parts[0][0].itemsize)
            total += together[0].times * one.time(links)
    return total


def sending(run: Run, measured: dict, message_bytes: list[float]) -> float:
    """Return the predicted seconds of all that is sent, per step; those of a sync are shared out.

    Those of bytes only: the twin adds, and waits for messages, too.
    """
    nodes = Nodes(report.nodes_of(measured))
    layout = Layout(network_of(run, opened()).units, run.grid(len(nodes.node)).partition)
    setting, methods = run.setting(nodes, layout), run.chosen()
    links = report.links_of(measured).without_alpha()._replace(gamma=0.0)
    said = [{"dense": False, "message_bytes": round(nbytes)} for nbytes in message_bytes]
    step = seconds(traffic.step_calls(methods, setting, said), nodes.node, links)
    if methods.block is None:
        return step
    sync = seconds(traffic.sync_calls(methods, setting), nodes.node, links)
    return step + sync / methods.block.steps


def each(figure: dict, steps: int, turns: int) -> dict:
    """Return what was measured in turns of so many steps for one of them, seconds by rounds.

    >>> each({"seconds": [2.0, 4.0, 1.0, 1.0], "ledger": 10.0, "left": [6.0, 4.0]}, 2, turns=2)
    {'seconds': [1.5, 0.5], 'ledger': 5.0, 'left': [3.0, 2.0]}
    """
    found = {
        key: [one / steps for one in value] if isinstance(value, list) else value / steps
        for key, value in figure.items()
    }
    taken = found["seconds"]
    return found | {
        "seconds": [mean(taken[first : first + turns]) for first in range(0, len(taken), turns)]
    }


def rows(measured: dict, job: dict) -> list[dict]:
    """Return one row per strategy; seconds are those of a step, bytes those of a frame.

    ``twin``: of the twin.  ``ratio``: ddp's time in units of this one's.  It and ``deviation`` are
    medians of those within a round.
    """
    figures = {
        name: each(measured["figures"][name], steps, job["turns"])
        for name, steps in job["steps"].items()
    }
    found = []
    for name, plain in job["runs"].items():
        run, figure = Run.from_dict(plain), figures[name]
        twin, took = figures[f"{name}, empty"]["seconds"], figure["seconds"]
        message_bytes = measured["message_bytes"][name]
        sent = sending(run, measured, message_bytes)
        frames = report.world(measured) * run.recipe.batch
        ratios = [(mine + sent) / whole for mine, whole in zip(twin, took, strict=True)]
        found.append(
            {
                "hosts": measured["hosts"],
                "ranks_per_host": measured["ranks_per_host"],
                "method": name,
                "frames_per_second": frames / median(took),
                "ratio": report.ratio(figures["ddp"], figure),
                "rounds": took,
                "seconds": median(took),
                "predicted": median(twin) + sent,
                "deviation": median(ratios) - 1,
                "twin": median(twin),
                "sending": sent,
                "message_bytes": sum(message_bytes) / len(message_bytes),
                "between": figure["ledger"] / frames,
                "inside": figure["inside"] / frames,
                "overhead": sum(figure["left"]) / figure["ledger"] - 1,
            }
        )
    return found


def verdicts(rows: list[dict], full: bool) -> list[dict]:
    """Return what was to be shown: in words, the figure and whether it holds.

    Nothing is unless ``full``: small networks' messages are short, and so are their steps.
    """
    if not full:
        return []
    found, times = [], {f"{r['hosts']} x {r['ranks_per_host']} {r['method']}": r for r in rows}
    for where in dict.fromkeys(name.rpartition(" ")[0] for name in times):
        for fast, slow in FASTER:
            pairs = zip(*(times[f"{where} {one}"]["rounds"] for one in (slow, fast)), strict=True)
            ratios = [theirs / mine for theirs, mine in pairs]
            words = (
                f"{where}: {fast} trains {median(ratios):.2f} times as many frames a second as "
                f"{slow} ({min(ratios):.2f} to {max(ratios):.2f} in a round)"
            )
            found.append({"what": words, "holds": median(ratios) > 1})
    return found + report.worst([*times.items()], full=True)


def about(job: dict) -> str:
    """Return what was trained, in a line."""
    run = Run.from_dict(job["runs"]["ddp"])
    return (
        f"{MODEL.stem}, {network_of(run, opened()).size:,} parameters, {run.recipe.batch} frames "
        f"a rank and step, blocks of {job['turns'] * job['steps']['bmuf']} steps; a step:"
    )


def text(rows: list[dict]) -> str:
    """Return the rows as a table."""
    head = ["", "frames/s", "/ ddp", "ms", "predicted", "off", "twin", "bytes"]
    head += ["message, KB", "between, B/frame", "inside", "counted"]
    lines = [
        [
            f"{row['hosts']} x {row['ranks_per_host']} {row['method']}",
            f"{row['frames_per_second']:,.0f}",
            f"{row['ratio']:.2f}",
            *report.times(row, 1e3, 1),
            *(f"{1e3 * row[part]:.1f}" for part in ("twin", "sending")),
            f"{row['message_bytes'] / 1e3:.1f}" if row["message_bytes"] else "",
            f"{row['between']:,.0f}",
            f"{row['inside']:,.0f}",
            f"{1 + row['overhead']:.3f}",
        ]
        for row in rows
    ]
    return table(head, lines)
