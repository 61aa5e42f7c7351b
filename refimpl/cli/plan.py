"""``refimpl plan``: what a training step would take on a cluster, without MPI.

With ``--preset``, a published cluster and its runs; else the user's own model.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from refimpl.cli.arguments import (
    LARGEST,
    MOST,
    between,
    links,
    number,
    positive,
    positive_number,
    ranks,
)
from refimpl.cli.base import say
from refimpl.support.errors import UserError, require
from refimpl.support.text import plural

world_size = between(1, 1 << 14)  # a plan takes some milliseconds for each rank
layers = between(1, 10**7)
UNITS = 24  # of a model of which only its size is known: one unit could not be gathered in parts
fraction = number("a number from 0 to 1", lambda x: 0 <= x <= 1)
size = number("a number of at least 0", lambda x: 0 <= x <= LARGEST)


def count(text: str) -> int:
    """Return the whole number of at least 1 that a text spells, 1e9 for example."""
    value = positive_number(text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return between(1, MOST)(str(int(value)))


def comma(kind: Callable, length: int | None = None) -> Callable:
    """Return a type for values with commas between them."""

    def values(text: str) -> tuple:
        parts = text.split(",")
        if length is not None and len(parts) != length:
            raise argparse.ArgumentTypeError(
                f"{text!r} has {plural(len(parts), 'value')} where {length} are "
                f"needed, with commas between them"
            )
        return tuple(kind(part) for part in parts)

    return values


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser(
        "plan", help="predict a training step on a cluster that is not here (needs no MPI)"
    )
    command.add_argument("--json", action="store_true", help="print plain data")

    preset = command.add_argument_group("a published cluster")
    preset.add_argument("--preset", metavar="NAME", help="p4d-100b for example")
    preset.add_argument("--ranks", type=comma(world_size), metavar="N,N,...", help="world sizes")

    model = command.add_argument_group("your model, one of")
    model.add_argument("--parameters", type=count, metavar="P", help="parameters, in all")
    model.add_argument("--widths", type=comma(positive), metavar="W,W,...", help="of an MLP")
    model.add_argument("--layers", type=layers, metavar="L", help="transformer, with --hidden")
    model.add_argument("--hidden", type=positive, metavar="H", help="transformer, with --layers")

    how = command.add_argument_group("how it is trained")
    how.add_argument(
        "--units", type=layers, metavar="U", help=f"of --parameters (default: {UNITS})"
    )
    how.add_argument("--batch", type=positive_number, metavar="B", help="rows a rank, micro-step")
    how.add_argument("--microsteps", type=positive, metavar="M", help="default: 1")
    how.add_argument(
        "--bytes",
        type=comma(size, 3),
        metavar="P,G,S",
        help="of a parameter, its gradient, its optimizer state (default: 4,4,4)",
    )
    how.add_argument("--recompute", action="store_true", help="activations are computed twice")
    how.add_argument("--zero-stage", type=int, choices=(1, 2, 3), help="default: 3")
    how.add_argument("--partition", type=positive, metavar="P", help="say more about this p")
    how.add_argument(
        "--secondary-shards",
        choices=("none", "node"),
        help="for the backward pass, whose gathers they keep inside a node (default: none)",
    )
    how.add_argument(
        "--overlap", type=fraction, metavar="W", help="part of compute that --prefetch uses"
    )

    cluster = command.add_argument_group("your cluster")
    cluster.add_argument("-n", type=world_size, metavar="RANKS", help="world size")
    cluster.add_argument("--ranks-per-node", type=ranks, metavar="K", help="default: one node")
    cluster.add_argument("--flops", type=positive_number, metavar="F", help="a rank's, per second")
    link = comma(size, 2)
    cluster.add_argument(
        "--links", type=links, metavar="FILE", help="what `bench links --json FILE` has measured"
    )
    cluster.add_argument("--intra", type=link, metavar="ALPHA,BETA", help="s/message, s/byte")
    cluster.add_argument("--inter", type=link, metavar="ALPHA,BETA", help="the same between nodes")
    cluster.add_argument("--call", type=size, metavar="S", help="seconds of a collective call")
    cluster.add_argument("--memory", type=positive_number, metavar="BYTES", help="of a rank")
    cluster.add_argument("--activations", type=size, metavar="BYTES", help="of a rank")
    command.set_defaults(run=run)


# What describes a user's own model, and so does not go with --preset.
OWN = (
    *("parameters", "widths", "layers", "hidden", "units", "batch", "microsteps", "bytes"),
    *("recompute", "zero_stage", "partition", "secondary_shards", "overlap", "n"),
    *("ranks_per_node", "flops", "links", "intra", "inter", "call", "memory", "activations"),
)


def run(args: Any) -> int:
    """Print the plan; exit code 1 if no partition group size fits."""
    return published(args) if args.preset is not None else own(args)


def published(args: Any) -> int:
    """Print what a preset predicts."""
    given = [name for name in OWN if getattr(args, name) not in (None, False)]
    if given:
        option = "-n" if given[0] == "n" else "--" + given[0].replace("_", "-")
        raise UserError(
            f"{option} does not go with --preset, whose numbers are published: leave it out, or "
            f"describe your own model without --preset"
        )
    say(presets().output(args.preset, args.ranks, args.json))
    return 0


def presets() -> ModuleType:
    """Return `benchmarks.published.text`, which lies beside the package in a checkout.

    It is found there by its place: what else is called ``benchmarks`` on the path is not it.

    Raises `UserError` if the package is installed without its checkout.
    """
    name = "benchmarks.published"
    if name not in sys.modules:
        file = Path(__file__).resolve().parents[2] / "benchmarks" / "published" / "__init__.py"
        require(
            file.is_file(),
            "--preset needs benchmarks/published, which is not installed with the package: take "
            "a checkout of refimpl's repository and run `python -m benchmarks.published` there",
        )
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(f"{name}.text")


def own(args: Any) -> int:
    """Print the table over all p and the recommendation for the user's own model."""
    from refimpl.plan.advise import advise
    from refimpl.plan.text import advice_data, advice_text

    question, assumed = read(args)
    advice = advise(question, args.partition)
    if args.json:
        say(json.dumps(advice_data(advice, args.partition, assumed), indent=1))
    else:
        say(advice_text(advice, args.partition, assumed))
    return 0 if advice.recommended else 1


def read(args: Any) -> tuple[Any, list[str]]:
    """Return the question that the arguments ask, and what was assumed to complete it."""
    from refimpl.methods.partition.memory import Bytes
    from refimpl.plan.advise import Question
    from refimpl.plan.model import FORWARD_BACKWARD, RECOMPUTED, Cluster, Method, Model

    require(
        args.ranks is None,
        "--ranks is for a --preset: give -n for the number of ranks of your own cluster",
    )
    units = units_of(args)
    require(args.n is not None, "no number of ranks: give -n, or a --preset")
    require(
        args.flops is not None,
        "no speed of a rank: give --flops, operations per second, for example 5e10 for a "
        "processor core or 1.7e14 for an accelerator in half precision",
    )
    assumed = []

    def given(name: str, default: Any, text: str) -> Any:
        value = getattr(args, name)
        if value is None:
            assumed.append(text)
            return default
        return value

    if args.parameters is not None:
        given("units", None, f"--units {len(units)} (layers of one size)")
    per_node = given("ranks_per_node", args.n, "one node")
    rows = given("batch", 64, "--batch 64")
    nbytes = given("bytes", (4, 4, 4), "--bytes 4,4,4 (float32, SGD with momentum)")
    cluster_links = links_of(args)
    if args.links is None:
        given("intra", None, "--intra (shared memory)")
        given("inter", None, "--inter (Ethernet, 10 Gbit/s)")
    for name, link in (("intra", cluster_links.intra), ("inter", cluster_links.inter)):
        where = "--links" if getattr(args, name) is None else f"--{name}"
        require(link.beta > 0, f"{where} has a beta of 0: give the seconds that a byte takes")
    secondary, stage = args.secondary_shards == "node", args.zero_stage or 3
    for option, goes in ((f"zero-stage {stage}", stage == 3), ("overlap", not args.overlap)):
        require(
            goes or not secondary,
            f"--secondary-shards node does not go with --{option}: parameters must be sharded "
            "(stage 3) and gathered when they are needed",
        )
    activations = given("activations", 0.0, "no memory for activations")
    if args.activations is not None:
        require(
            args.memory is None or activations < args.memory,
            f"--activations {activations:g} leave nothing of --memory {args.memory or 0:g}: "
            f"give a smaller batch's",
        )
    question = Question(
        Model(units, rows, RECOMPUTED if args.recompute else FORWARD_BACKWARD, Bytes(*nbytes)),
        Cluster(args.n, per_node, args.flops, cluster_links, args.call or 0.0),
        Method(
            partition=1,
            microsteps=args.microsteps or 1,
            stage=stage,
            overlap=args.overlap or 0.0,
            secondary=secondary,
        ),
        args.memory,
        activations,
    )
    return question, assumed


def links_of(args: Any) -> Any:
    """Return the links of the cluster: --intra and --inter, else --links, else what is assumed."""
    from refimpl.collectives.auto import ASSUMED
    from refimpl.collectives.cost import Link, Links

    require(
        args.links != "measure",
        "--links measure: nothing is here to measure, give a file of `bench links --json FILE`",
    )
    told = Links.of(args.links, "--links") if args.links else Links(*ASSUMED[:2])
    intra, inter = (
        Link(*(getattr(args, name) or getattr(told, name))) for name in Links._fields[:2]
    )
    return told._replace(intra=intra, inter=inter)


def units_of(args: Any) -> tuple[int, ...]:
    """Return the sizes of the units of the model that the arguments describe."""
    from refimpl.plan.model import perceptron, transformer

    transformed = args.layers is not None or args.hidden is not None
    ways = [args.parameters is not None, args.widths is not None, transformed]
    require(
        sum(ways) == 1,
        "no model, or more than one: give --parameters, or --widths, or --layers and --hidden, "
        "or a --preset",
    )
    require(
        args.units is None or args.parameters is not None,
        "--units goes with --parameters: layers of a described model are units already",
    )
    if args.widths is not None:
        require(
            len(args.widths) > 1,
            f"--widths {args.widths[0]} is no layer: give at least two, inputs and outputs",
        )
        return perceptron(args.widths)
    if transformed:
        require(
            args.layers is not None and args.hidden is not None,
            "--layers and --hidden go together: a layer has 12 H^2 parameters",
        )
        return transformer(args.layers, args.hidden)
    units = args.units or min(UNITS, args.parameters)
    require(
        units <= args.parameters,
        f"{args.parameters} parameters cannot make {units} units: give at most as many units",
    )
    each, more = divmod(args.parameters, units)
    return (each + 1,) * more + (each,) * (units - more)
