"""Advice on a user's own model, and what a simulation shows, as text and as plain data."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from refimpl.plan.advise import STAGES, Advice, Choice
from refimpl.plan.model import Cluster
from refimpl.plan.simulate import Simulated
from refimpl.support.text import WIDTH, amount, plural, size, table
from refimpl.world.virtual import Spent


def advice_text(advice: Advice, partition: int | None, assumed: list[str]) -> str:
    """Return the output of ``refimpl plan`` for a user's own model.

    ``assumed`` names what the user has not given.
    """
    parts = [_asked(advice, assumed), _table(advice), _recommendation(advice)]
    if partition is not None:
        parts.append(_about(advice, advice.choice(partition)))
    return "\n\n".join(parts)


def links_text(cluster: Cluster) -> list[str]:
    """Return what a message takes on a cluster, a line for each class of link."""
    links = cluster.links
    return [
        f"a message inside a node: {_link(*links.intra)}",
        f"a message between nodes: {_link(*links.inter)}, the node's ranks together",
        *([f"an addition: bytes / {size(1 / links.gamma)}/s"] if links.gamma else []),
    ]


def _link(alpha: float, beta: float) -> str:
    return f"{alpha:.3g} s" + (f" + bytes / {size(1 / beta)}/s" if beta else "")


def _asked(advice: Advice, assumed: list[str]) -> str:
    asked = advice.question
    model, cluster, method = asked.model, asked.cluster, asked.method
    each = model.size
    nodes = -(-cluster.ranks // cluster.ranks_per_node)
    lines = [
        f"{plural(cluster.ranks, 'rank')} on {plural(nodes, 'node')} of {cluster.ranks_per_node}, "
        f"{amount(cluster.flops, 'FLOPS')} each",
        f"{amount(model.parameters, '')} parameters in {len(model.units)} units; bytes of "
        f"each: parameter {each.parameter:g} + gradient {each.gradient:g} + state {each.state:g}",
        f"stage {method.stage}, {plural(method.microsteps, 'micro-step')} of {model.rows:g} rows "
        f"a rank, {model.operations:g} operations per parameter and row, "
        f"overlap {method.overlap:g}" + ", secondary shards" * method.secondary,
        *links_text(cluster),
        "memory per rank: "
        + ("any" if asked.memory is None else size(asked.memory))
        + f", of which activations take {size(asked.activations)}",
    ]
    if assumed:
        lines.append(textwrap.fill("assumed, not given: " + ", ".join(assumed), WIDTH))
    return "\n".join(lines)


def _table(advice: Advice) -> str:
    head = ["p", "replicas", *(f"stage {s}" for s in STAGES), "fits", "collectives"]
    head += ["step ms", "compute", "gather", "reduce-sc.", "hidden", "hop 2"]
    rows = []
    for c in advice.choices:
        split = c.split
        parts = (split.step, split.compute, split.gather, split.reduce_scatter, split.hidden)
        rows.append(
            [
                f"{c.partition}{'*' if c is advice.recommended else ' '}",
                str(c.replicas),
                *(size(c.memory[s].total) for s in STAGES),
                "yes" if c.fits else "no",
                c.family,
                *(f"{1e3 * seconds:.4g}" for seconds in (*parts, split.second_hop)),
            ]
        )
    note = "memory: model states and work space of the three ZeRO stages, without activations"
    if advice.question.method.overlap:
        note += "\nhidden: gathers of stage 3 by ring collectives, with --prefetch; nothing else"
    return table(head, rows, left=0) + "\n" + note


def _recommendation(advice: Advice) -> str:
    best, asked = advice.recommended, advice.question
    if best is None:
        assert asked.memory is not None
        least = min(advice.choices, key=lambda c: c.needed)
        return (
            f"recommended: none, no p fits; stage {asked.method.stage} needs at least "
            f"{size(least.needed)} (p = {least.partition}) of {size(asked.memory)}\n"
            f"  take more ranks, a higher --zero-stage, smaller units or less for --activations"
        )
    lines = [f"recommended: p = {best.partition}{_how(best)}"]
    smaller = [c for c in advice.choices if c.partition < best.partition]
    if smaller:
        assert asked.memory is not None
        lines.append(
            f"  the smallest p that fits: {size(best.needed)} of {size(asked.memory)}; "
            f"p = {smaller[-1].partition} needs {size(smaller[-1].needed)}"
        )
    else:
        lines.append(f"  every rank can hold all of it: {size(best.needed)}")
    lines += textwrap.indent(_more(best, asked.cluster), "  ").splitlines()
    fast = advice.fastest
    assert fast is not None
    if 1.01 * fast.split.step < best.split.step:  # less than a hundredth is no difference
        lines.append(
            f"  p = {fast.partition} is predicted to be faster: {1e3 * fast.split.step:.4g} ms "
            f"instead of {1e3 * best.split.step:.4g} ms"
        )
    lines.append("  " + command(advice, best))
    return "\n".join(lines)


def _how(choice: Choice) -> str:
    if choice.partition == 1:
        return f", data parallel on {plural(choice.replicas, 'rank')}, {choice.family} collectives"
    return (
        f", {plural(choice.replicas, 'replica')} x {choice.partition} shards, "
        f"{choice.family} collectives"
    )


def _more(choice: Choice, cluster: Cluster) -> str:
    """Return what there is to say of the messages of a choice, in lines."""
    if cluster.ranks <= cluster.ranks_per_node:
        return _families(choice)
    sent = f"all ranks together send {size(choice.split.between)} to other nodes in a step"
    return f"{_families(choice)}\n{sent}"


def _families(choice: Choice) -> str:
    times = ", ".join(f"{name} {1e3 * seconds:.4g} ms" for name, seconds in choice.times.items())
    refused = "" if "hierarchical" in choice.times else "; hierarchical: groups fill no nodes"
    return f"a step with each of the collectives: {times}{refused}"


def command(advice: Advice, choice: Choice) -> str:
    """Return the command that trains like this; MODEL is the user's."""
    n, method = advice.question.cluster.ranks, advice.question.method
    strategy = f"zero{method.stage}" if choice.partition == n else "mics"
    words = [f"./run_mpi.sh -n {n} train MODEL --strategy"]
    if choice.partition == 1:
        words.append("ddp")
    else:
        words.append(strategy)
        if strategy == "mics":
            words.append(f"--partition {choice.partition} --zero-stage {method.stage}")
        if method.secondary:
            words.append("--secondary-shards node")
    if method.microsteps > 1:
        words.append(f"--microsteps {method.microsteps}")
    words.append(f"--collectives {choice.family}" + " --prefetch" * choice.prefetch)
    return " ".join(words)


def _about(advice: Advice, choice: Choice) -> str:
    best = advice.recommended
    text = (
        f"p = {choice.partition}, as asked: {size(choice.needed)} a rank, "
        f"{'fits' if choice.fits else 'does not fit'}; {1e3 * choice.split.step:.4g} ms a step"
        f"{_how(choice)}"
    )
    if best is not None and best is not choice:
        text += f", {choice.split.step / best.split.step:.3g} times that of p = {best.partition}"
    return text + "\n" + textwrap.indent(_more(choice, advice.question.cluster), "  ")


def advice_data(advice: Advice, partition: int | None, assumed: list[str]) -> dict[str, Any]:
    """Return the same as plain data, for ``--json``."""

    def plain(choice: Choice | None) -> dict[str, Any] | None:
        if choice is None:
            return None
        return {
            "partition": choice.partition,
            "replicas": choice.replicas,
            "collectives": choice.family,
            "seconds": choice.split.plain(),
            "bytes_between_nodes": choice.split.between,
            "step_by_collectives": choice.times,
            "prefetch": choice.prefetch,
            "memory": {
                f"stage{s}": {"total": m.total, **m._asdict()} for s, m in choice.memory.items()
            },
            "needed": choice.needed,
            "fits": choice.fits,
        }

    asked = advice.question
    recommended = plain(advice.recommended)
    if recommended is not None and advice.recommended is not None:
        recommended["command"] = command(advice, advice.recommended)
    return {
        "ranks": asked.cluster.ranks,
        "ranks_per_node": asked.cluster.ranks_per_node,
        "parameters": asked.model.parameters,
        "units": len(asked.model.units),
        "stage": asked.method.stage,
        "microsteps": asked.method.microsteps,
        "memory": asked.memory,
        "assumed": assumed,
        "choices": [plain(choice) for choice in advice.choices],
        "recommended": recommended,
        "fastest": advice.fastest.partition if advice.fastest else None,
        "asked": None if partition is None else plain(advice.choice(partition)),
    }


# --------------------------------------------------------------------------- in virtual time

EACH = 8  # ranks up to which each has a row


def simulated_text(found: Simulated, cluster: Cluster, assumed: list[str]) -> str:
    """Return the output of ``refimpl simulate``; ``assumed`` names what was not given."""
    run, grid = found.run, found.grid
    stands = "" if found.scale == 1 else f", each of which stands for {found.scale:g}"
    head = [
        f"{grid.sentence()} on {plural(-(-grid.world // cluster.ranks_per_node), 'node')} "
        f"({run.strategy}), {run.collectives} collectives",
        f"{Path(run.model).stem}: {sum(found.units):,} parameters in {len(found.units)} units"
        f"{stands}; {plural(run.recipe.microsteps, 'micro-step')} of {run.recipe.batch} rows a "
        f"rank, {amount(cluster.flops, 'FLOPS')}",
        *links_text(cluster),
        *([f"assumed, not given: {', '.join(assumed)}"] if assumed else []),
    ]
    means = "" if found.steps == 1 else f", the mean of {found.steps}"
    step = [
        f"a step takes {_ms(found.seconds)} ms of virtual time{means}; on paper: {_paper(found)}"
    ]
    sent = [
        f"sent in a step: {_many(count.messages / found.steps)} messages, "
        f"{size(count.bytes * found.scale / found.steps)} {link}"
        for link, count in found.sent.items()
    ]
    return "\n".join([*head, "", *step, "", _rows(found.spent), "", *sent])


def _many(number: float) -> str:
    return f"{number:,.0f}" if number == round(number) else f"{number:,.6g}"


def _rows(spent: list[Spent]) -> str:
    """Return the table of what ranks' steps consist of: each, or the extremes of each column."""
    whole = [(sum(one), *one) for one in spent]
    if len(whole) <= EACH:
        rows = {f"rank {rank}": one for rank, one in enumerate(whole)}
    else:
        columns = list(zip(*whole, strict=True))
        rows = {
            "least": tuple(map(min, columns)),
            "mean": tuple(sum(column) / len(whole) for column in columns),
            "most": tuple(map(max, columns)),
        }
    cells = [[name, *map(_ms, one)] for name, one in rows.items()]
    return table(["ms", "until done", "compute", "moving", "waiting"], cells)


def _ms(seconds: float) -> str:
    return f"{round(1e3 * seconds, 9):.4g}"


def _paper(found: Simulated) -> str:
    """Return what the planner says of the step, and how the simulated one stands to it."""
    split = found.planned
    if split is None:
        return "no formula for this strategy"
    parts = {"compute": split.compute, "+ gather": split.gather}
    parts |= {"+ reduce-scatter": split.reduce_scatter, "- hidden": split.hidden}
    parts["+ hop 2"] = split.second_hop
    told = " ".join(f"{name} {_ms(seconds)}" for name, seconds in parts.items())
    ratio = f", simulated / on paper {found.seconds / split.step:.3f}" if split.step else ""
    return f"{_ms(split.step)} = {told}{ratio}"


def simulated_data(found: Simulated, cluster: Cluster) -> dict[str, Any]:
    """Return the same as plain data; seconds, bytes of all ranks together, of one step."""
    split = found.planned
    return {
        "ranks": found.grid.world,
        "ranks_per_node": cluster.ranks_per_node,
        "strategy": found.run.strategy,
        "parameters": found.parameters,
        "steps": found.steps,
        "seconds": found.seconds,
        "spent": [one._asdict() for one in found.spent],
        "sent": {
            link: {
                "messages": count.messages / found.steps,
                "bytes": count.bytes * found.scale / found.steps,
            }
            for link, count in found.sent.items()
        },
        "planned": None if split is None else split.plain(),
    }
