"""From the figures of `ranks` to tables and verdicts: arithmetic, no MPI and no root.

Times are medians over rounds, ratios medians of the ratios within a round.  Beside each time
stands what the cost functions predict from the alpha and beta that the same run has measured:

    collective    `Cost.time` of the schedule of `refimpl.collectives`
    step          the time of the same step with nothing sent, plus `refimpl.plan.model.predict`'s
                  time of all that is sent; and `refimpl.plan.simulate`'s of the same program, in
                  which the same time is computed
"""

from __future__ import annotations

import math
from statistics import median
from typing import Any

from messages import ADDED, MESSAGES, Message

from refimpl import collectives, optim
from refimpl.collectives.cost import Link, Links
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.partition.stages import Sharded
from refimpl.methods.step import StepOptions
from refimpl.methods.strategies import Methods
from refimpl.plan import model, simulate
from refimpl.run.bench.network import network
from refimpl.support.text import table
from refimpl.world.topology import Grid

HEADLINE = 2.82  # "up to 2.82x": MiCS beside ZeRO-3, amazon.science blog post of its authors
DEVIATION, OVERHEAD = 0.20, 0.10  # what is allowed: of a prediction, of a byte counter

WORDS = {"allgather": "all-gather", "reduce_scatter": "reduce-scatter"}


def entering_fraction(p: int, k: int, hierarchical: bool) -> float:
    """Return the share of a gathered vector that enters each node, p ranks on nodes of k.

    >>> entering_fraction(4, 2, hierarchical=False), entering_fraction(4, 2, hierarchical=True)
    (0.75, 0.5)
    """
    if p <= k:
        return 0.0
    return (p - k) / p if hierarchical else (p - 1) / p


def links_of(run: dict) -> Links:
    """Return alpha, beta and gamma as measured in turn with the rest of a run.

    alpha is the time of a small message, beta what a byte of a large one takes beyond it.
    """
    figures = run["figures"]

    def link(name: str) -> Link:
        small, large = (seconds_each(figures[f"{name} {s}"], MESSAGES[s]) for s in MESSAGES)
        sizes = MESSAGES["small"].bytes, MESSAGES["large"].bytes
        beta = max(large - small, 0.0) / (sizes[1] - sizes[0])
        return Link(max(small - sizes[0] * beta, 0.0), beta)

    gamma = seconds_each(figures["add"], ADDED) / ADDED.bytes
    return Links(link("intra"), link("inter"), gamma)


def seconds_each(figure: dict, message: Message) -> float:
    """Return the seconds of one of the messages of a measurement.

    >>> seconds_each({"seconds": [8.0, 2.0, 4.0]}, Message(bytes=100, times=4))
    1.0
    """
    return median(figure["seconds"]) / message.times


def nodes_of(run: dict) -> tuple[int, ...]:
    """Return the host of each rank.

    >>> nodes_of({"hosts": 2, "ranks_per_host": 2})
    (0, 0, 1, 1)
    """
    return tuple(rank // run["ranks_per_host"] for rank in range(world(run)))


def world(run: dict) -> int:
    """Return the number of ranks."""
    return run["hosts"] * run["ranks_per_host"]


def ratio(one: dict, other: dict) -> float:
    """Return how many times as long one piece of work takes as another, round by round."""
    pairs = zip(one["seconds"], other["seconds"], strict=True)
    return median(a / b for a, b in pairs)


def overhead(figure: dict) -> float:
    """Return by how much a host's counters differ from the ledger, of the worst host.

    The ledger's bytes are those of all hosts; here every host sends and receives as many.

    >>> overhead({"ledger": 200.0, "entered": [101.0, 100.0], "left": [100.0, 125.0]})
    0.25
    """
    share = figure["ledger"] / len(figure["entered"])
    return max(abs(n / share - 1) for n in figure["entered"] + figure["left"])


def timed(figure: dict, predicted: float) -> dict:
    """Return a time beside its prediction."""
    seconds = median(figure["seconds"])
    return {
        "seconds": seconds,
        "predicted": predicted,
        "deviation": predicted / seconds - 1,
        "overhead": overhead(figure),
    }


def collective_rows(run: dict, nbytes: int) -> list[dict]:
    """Return one row per operation: flat beside hierarchical, in time and in volume."""
    links, nodes, p, k = links_of(run), nodes_of(run), world(run), run["ranks_per_host"]
    rows = []
    for operation in WORDS:
        figures = {
            name: run["figures"][f"{operation} {name}"] for name in ("ring", "hierarchical")
        }
        row: dict[str, Any] = {"hosts": run["hosts"], "ranks_per_host": k, "operation": operation}
        for name, figure in figures.items():
            cost = collectives.get(name).cost(operation, nbytes // 4, nodes, itemsize=4)
            row[name] = timed(figure, cost.time(links))
            row[name]["fraction"] = entering_fraction(p, k, name == "hierarchical")
            row[name]["counted"] = max(figure["entered"]) / nbytes
        flat, hierarchical = row["ring"], row["hierarchical"]
        row["ratio"] = ratio(figures["ring"], figures["hierarchical"])
        row["predicted_ratio"] = flat["predicted"] / hierarchical["predicted"]
        row["volume_ratio"] = flat["fraction"] / hierarchical["fraction"]
        rows.append(row)
    return rows


def sending(run: dict, job: dict, method: dict) -> float:
    """Return the predicted seconds of all that one step of a method sends."""
    split = model.predict(
        model.Model(model.perceptron(job["widths"]), job["batch"]),
        model.Cluster(world(run), run["ranks_per_host"], math.inf, links_of(run)),
        model.Method(
            partition=method["partition"],
            microsteps=job["microsteps"],
            family=method["family"],
            every_microstep=method["every_microstep"],
        ),
    )
    assert split is not None
    assert split.compute == 0
    return split.step


def simulated(run: dict, job: dict, method: dict, computing: float) -> float:
    """Return the seconds of one step of a method in virtual time, ``computing`` of which compute.

    Rows are counted, not computed: one stands for all.
    """
    widths, rows, microsteps = tuple(job["widths"]), job["batch"], job["microsteps"]
    operations = model.FORWARD_BACKWARD * sum(model.perceptron(widths)) * rows * microsteps
    cluster = model.Cluster(
        world(run), run["ranks_per_host"], operations / computing, links_of(run)
    )
    program = simulate.Program(
        lambda: network(widths),
        Grid.cut(world(run), method["partition"]),
        Methods(Sharded(), Exact(every_microstep=method["every_microstep"])),
        collectives.get(method["family"]),
        lambda: optim.make("momentum", momentum=0.9),
        StepOptions(batch=1, microsteps=microsteps),
    )
    return max(one.seconds for one in simulate.taken(program, cluster, rows=rows))


def step_rows(run: dict, job: dict) -> list[dict]:
    """Return one row per method; ``ratio``: the first method's time in units of this one's."""
    figures, methods = run["figures"], job["methods"]
    rows = []
    for name, method in methods.items():
        computing = median(figures[f"{name}, silent"]["seconds"])
        row = timed(figures[name], computing + sending(run, job, method))
        first = next(iter(methods))
        virtual = simulated(run, job, method, computing)
        rows.append(
            row
            | {
                "simulated": virtual,
                "simulated_deviation": virtual / row["seconds"] - 1,
                "method": name,
                "computing": computing,
                "ratio": ratio(figures[first], figures[name]),
                "megabytes": figures[name]["ledger"] / run["hosts"] / 1e6,
            }
        )
    return rows


def verdicts(collective: list[dict], steps: list[dict], full: bool) -> list[dict]:
    """Return what was to be shown: in words, the figure and whether it holds.

    ``full``: the headline was measured, and messages were so long that their bytes decide.
    """
    found = []
    if full:
        mics = next(row["ratio"] for row in steps if row["method"] == "mics, two-hop")
        found.append(
            {
                "what": f"a zero3 step takes {mics:.2f} times as long as mics: >= {HEADLINE}",
                "holds": mics >= HEADLINE,
            }
        )
    times = [
        (f"{row['hosts']} x {row['ranks_per_host']} {WORDS[row['operation']]}, {name}", row[name])
        for row in collective
        for name in ("ring", "hierarchical")
    ] + [(row["method"], row) for row in steps]
    return found + worst(times, full)


def worst(times: list[tuple[str, dict]], full: bool) -> list[dict]:
    """Return the verdicts on the worst prediction, if ``full``, and the worst byte counter."""
    found = []
    bars = [("overhead", OVERHEAD, "the byte counter farthest from the ledger")]
    if full:
        bars.insert(0, ("deviation", DEVIATION, "the worst prediction"))
    for key, allowed, what in bars:
        name, farthest = max(times, key=lambda pair: abs(pair[1][key]))
        off = farthest[key]
        found.append(
            {
                "what": f"{what} is {off:+.1%} off ({name}): within {allowed:.0%}",
                "holds": abs(off) <= allowed,
            }
        )
    return found


# ------------------------------------------------------------------------------------- as text


def links_text(run: dict) -> str:
    """Return the measured links in one line."""
    links = links_of(run)
    where = f"{run['hosts']} x {run['ranks_per_host']}"
    return (
        f"{where}   in a host {link_text(links.intra)}    between hosts {link_text(links.inter)}"
    )


def link_text(link: Link) -> str:
    """Return alpha and beta.

    >>> link_text(Link(alpha=1e-4, beta=4e-8))
    '0.10 ms + 40.00 ms/MB'
    """
    return f"{1e3 * link.alpha:.2f} ms + {1e9 * link.beta:.2f} ms/MB"


def collective_text(rows: list[dict]) -> str:
    """Return the rows of the collectives as a table."""
    head = ["ms", "flat", "predicted", "off", "two-level", "predicted", "off"]
    head += ["flat / two-level", "predicted", "volume", "enters, flat", "two-level"]
    lines = []
    for row in rows:
        flat, two = row["ring"], row["hierarchical"]
        label = f"{row['hosts']} x {row['ranks_per_host']} {WORDS[row['operation']]}"
        cells = [label, *times(flat, 1e3, 1), *times(two, 1e3, 1)]
        cells += [f"{row[key]:.2f}" for key in ("ratio", "predicted_ratio", "volume_ratio")]
        lines.append([*cells, f"{flat['counted']:.3f}", f"{two['counted']:.3f}"])
    return table(head, lines)


def step_text(rows: list[dict]) -> str:
    """Return the rows of the steps as a table."""
    head = ["s", "measured", "predicted", "off", "simulated", "off"]
    head += ["computing", "MB from a host", "counted"]
    lines = [
        [
            row["method"],
            *times(row, 1, 3),
            f"{row['simulated']:.3f}",
            f"{row['simulated_deviation']:+.0%}",
            f"{row['computing']:.3f}",
            f"{row['megabytes']:.1f}",
            f"{1 + row['overhead']:.3f}",
            f"{row['ratio']:.2f}",
        ]
        for row in rows
    ]
    return table([*head, f"{rows[0]['method']} / this"], lines)


def times(timed: dict, unit: float, digits: int) -> list[str]:
    """Return a time, its prediction and how far that is off."""
    seconds, predicted = unit * timed["seconds"], unit * timed["predicted"]
    return [f"{seconds:.{digits}f}", f"{predicted:.{digits}f}", f"{timed['deviation']:+.0%}"]


def verdict_text(found: list[dict]) -> str:
    """Return the verdicts, one line each."""
    return "\n".join(f"  {'ok    ' if v['holds'] else 'MISSED'} {v['what']}" for v in found)
