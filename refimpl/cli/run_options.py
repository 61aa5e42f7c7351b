"""The options that decide what a run computes; `train` and `compare` share them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from refimpl.cli.arguments import positive, positive_number, setting, whole

if TYPE_CHECKING:
    from refimpl.run.config import Run
    from refimpl.run.modelfile import ModelFile


def add_options(command: Any) -> None:
    """Declare them, in groups as a person looks for them."""
    command.add_argument("model", metavar="MODEL", help="a shipped model's name, or a .py file")
    command.add_argument(
        "--data", metavar="DIR", help="training data (default: built-in, made on first use)"
    )
    command.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the model file's build(), for example hidden=1024",
    )

    how = command.add_argument_group("how the ranks work together")
    how.add_argument("--partition", type=positive, metavar="P", help="ranks of one replica")
    how.add_argument(
        "--zero-stage", type=int, choices=(1, 2, 3), help="what mics shards (default: 3)"
    )
    how.add_argument("--collectives", default="ring", metavar="NAME", help="default: ring")
    how.add_argument("--reduction", default="float", metavar="KIND", help="float or exact")
    how.add_argument("--sync", default="two-hop", metavar="KIND", help="two-hop, every-microstep")
    how.add_argument(
        "--prefetch", action="store_true", help="gather the next unit while one computes"
    )
    how.add_argument("--ranks-per-node", type=positive, metavar="K", help="draw virtual nodes")

    gtc = command.add_argument_group("gradient threshold compression (GTC)")
    gtc.add_argument("--gtc-group", type=positive, metavar="G", help="workers of a GTC group")
    gtc.add_argument("--tau", type=positive_number, metavar="X", help="the threshold")
    gtc.add_argument("--tau-units", metavar="UNITS", help="of the gradient: sum or mean of frames")
    gtc.add_argument("--wire-format", metavar="NAME", help="auto, index, two-bit or rice")
    gtc.add_argument("--gtc-warmup", type=whole, metavar="N", help="dense steps before the first")
    gtc.add_argument("--target-density", type=float, metavar="X", help="steer tau to this density")
    gtc.add_argument("--residual-clip", type=float, metavar="X", help="clip residuals at X tau")
    gtc.add_argument("--residual-clip-every", type=whole, metavar="N", help="steps between")

    bmuf = command.add_argument_group("blockwise model-update filtering (BMUF)")
    bmuf.add_argument("--block-steps", type=positive, metavar="N", help="local steps of a block")
    bmuf.add_argument("--block-momentum", type=float, metavar="X", help="eta (default: 1 - 1/b)")
    bmuf.add_argument("--block-lr", type=positive_number, metavar="X", help="zeta (default: 1)")
    bmuf.add_argument("--block-method", metavar="NAME", help="nbm (default) or cbm")
    bmuf.add_argument("--local-momentum", metavar="WHAT", help="at a sync: reset (default), keep")
    bmuf.add_argument("--residuals", metavar="WHAT", help="at a sync: keep (default), zero, fold")

    what = command.add_argument_group("the recipe (default: the model's own)")
    what.add_argument("--batch", type=positive, metavar="B", help="frames per rank, micro-step")
    what.add_argument("--microsteps", type=positive, metavar="S", help="micro-steps per step")
    what.add_argument("--epochs", type=positive, metavar="N")
    what.add_argument("--steps", type=positive, metavar="N", help="stop after so many steps")
    what.add_argument("--optimizer", metavar="NAME")
    what.add_argument("--lr", type=positive_number, metavar="X", help="learning rate")
    what.add_argument("--momentum", type=float, metavar="X")
    what.add_argument("--weight-decay", type=float, metavar="X")
    what.add_argument("--clip", type=positive_number, metavar="X", help="global gradient norm")
    what.add_argument("--schedule", metavar="NAME", help="how the learning rate falls")
    what.add_argument("--seed", type=whole, default=0, metavar="N")
    what.add_argument("--dtype", default="float32", metavar="TYPE", help="float32 or float64")


def parsed_over(args: Any, words: list[str], what: str) -> Any:
    """Return a copy of the parsed options in which those in ``words`` have new values."""
    from refimpl.cli import Parser

    parser = Parser(prog=what, usage=argparse.SUPPRESS, add_help=False)
    add_options(parser)
    return parser.parse_args([args.model, *words], argparse.Namespace(**vars(args)))


RECIPE_OPTIONS = (
    "batch",
    "microsteps",
    "epochs",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "clip",
    "schedule",
)


def given(args: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return those of the options that were given."""
    return {name: getattr(args, name) for name in names if getattr(args, name) is not None}


def run_of(args: Any, model: ModelFile, strategy: str, **changes: Any) -> Run:
    """Return the run that the options ask for, with some of its fields changed."""
    from refimpl.run.config import BLOCKS, COMPRESSION, Run, override

    recipe = override(model.recipe(), {name: getattr(args, name) for name in RECIPE_OPTIONS})
    fields = {
        "model": args.model,
        "recipe": recipe,
        "options": dict(args.set),
        "data": args.data,
        "strategy": strategy,
        "partition": args.partition,
        "zero_stage": args.zero_stage,
        "gtc_group": args.gtc_group,
        "compression": given(args, COMPRESSION),
        "blocks": given(args, BLOCKS),
        "collectives": args.collectives,
        "reduction": args.reduction,
        "sync": args.sync,
        "prefetch": args.prefetch,
        "dtype": args.dtype,
        "ranks_per_node": args.ranks_per_node,
        "steps": args.steps,
        "seed": args.seed,
    }
    return Run(**fields | changes)
