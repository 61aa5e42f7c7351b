"""``refimpl train MODEL``: train, score, and write the run's folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refimpl.cli import tracing
from refimpl.cli.arguments import filename, period, positive, positive_number, whole
from refimpl.cli.base import add_quiet, say, show, teller, world
from refimpl.cli.endings import UNHEARD, depart, hung, refuse
from refimpl.cli.run_options import add_options, given, measured, methods_of, run_of
from refimpl.support.errors import UserError, require

if TYPE_CHECKING:
    from refimpl.run.resume import Job
    from refimpl.run.saving import Habits


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("train", help="train a model on all ranks")
    add_options(command, resumes=True)
    command.add_argument(
        "--strategy",
        metavar="NAME",
        help="a row of the table (default: the simplest with the lengths that are given)",
    )
    command.add_argument(
        "--out", type=filename, metavar="DIR", help="run folder (default: runs/NAME-TIME)"
    )
    command.add_argument(
        "--log-every", type=whole, metavar="N", help="also log every Nth step of rank 0"
    )
    command.add_argument(
        "--check-every", type=whole, metavar="N", help="compare the replicas every Nth step"
    )
    command.add_argument(
        "--patience",
        type=positive_number,
        metavar="SECONDS",
        help="end a job in which a rank waits longer for a message, and say where all stand",
    )
    command.add_argument(
        "--on-failure",
        choices=("end", "continue"),
        default="end",
        metavar="WHAT",
        help="end (default), or continue on the other ranks, should one die (Open MPI 5, ULFM)",
    )
    command.add_argument("--json", action="store_true", help="print the summary as JSON")
    add_quiet(command)
    tracing.add(command)
    saving = command.add_argument_group("checkpoints (default: none)")
    saving.add_argument(
        "--checkpoint-every", type=period, metavar="N", help="steps, or a time: 90s, 15m, 2h"
    )
    saving.add_argument("--keep", type=positive, metavar="K", help="how many to keep (default: 2)")
    saving.add_argument(
        "--checkpoint-async",
        action=argparse.BooleanOptionalAction,
        help="write them while training goes on (default)",
    )
    saving.add_argument(
        "--checkpoint-failure",
        choices=("continue", "end"),
        metavar="WHAT",
        help="continue (default) or end, should one not be written",
    )
    saving.add_argument(
        "--resume", type=filename, metavar="RUN", help="go on with the run in this folder"
    )
    command.set_defaults(run=run)


def run(args: Any) -> int:
    """Train as told, or go on; print the scores."""
    from refimpl.collectives.families import NATIVE
    from refimpl.methods.strategies import simplest
    from refimpl.run import claim
    from refimpl.run.modelfile import ModelFile
    from refimpl.run.resume import Job, left_by_this_job
    from refimpl.world.agree import together

    resume, out = args.resume, args.out
    require(bool(args.model or resume), "train: give a MODEL, or --resume RUN to go on with one")
    require(not (resume and out), "--resume RUN goes on in that folder: leave --out out")
    mortal = args.on_failure == "continue"
    require(not (mortal and args.trace), "--trace draws ranks that stay: leave --on-failure out")
    comm = world(args.ranks_per_node, mortal, args.quiet or args.json)
    measured(args, comm)
    trace = tracing.asked(args, comm)
    if out and comm.bcast_object(left_by_this_job(Path(out)), root=0):
        resume = out  # this job was requeued, and goes on with its own work
    path = Path(resume or out or ".")
    if resume:
        job = Job.open(comm, path)
        with together(comm):
            job = job.changed(given(args))
    else:
        model = ModelFile.open(args.model, comm)
        with together(comm):
            run = run_of(args, model, args.strategy or simplest(comm.size, methods_of(args)))
        with together(comm):
            path = claim.claim(out, model.name) if comm.rank == 0 else path
        path = Path(comm.bcast_object(str(path), root=0))
        job = Job(comm, path, run, model)
    try:
        with together(comm):
            habits = habits_of(args, job.habits)
            log_every = job.log_every if args.log_every is None else args.log_every
            told = {"check_every": args.check_every, "patience": args.patience}
            care = replace(job.care, **{k: v for k, v in told.items() if v is not None})
        telling = (lambda text: None) if args.json else teller(args.quiet)
        job = replace(job, habits=habits, care=care, log_every=log_every, trace=trace)
        require(
            not (mortal and job.run.collectives == NATIVE.name),
            f"--on-failure continue does not go with --collectives {NATIVE.name}: MPI's own do "
            "not tell of every death; choose others, for example ring",
        )
        if mortal:
            code = _survive(job, args)
        else:
            summary = job.train(telling, hung=hung)
    finally:
        if comm.rank == 0 and not resume and not out:
            with suppress(OSError):
                path.rmdir()  # still empty: no run was begun
    if mortal:
        depart(code)
    _tell(summary, args, job, say)
    return 0


def _tell(summary: dict[str, Any], args: Any, job: Job, say: Callable[[str], None]) -> None:
    """Say what came of a run."""
    from refimpl.run.report import summary_text
    from refimpl.tasks.table import words

    if args.json:
        say(json.dumps(summary, indent=2))
    else:
        say(summary_text(summary, words([job.run.recipe.task])))
        say(f"run folder: {job.path}")


def _survive(job: Job, args: Any) -> int:
    """Train on, whoever dies; return the exit code with which this rank departs."""
    from refimpl.run.survive import Survivors

    survivors = Survivors(job)
    first = None  # of those that live, while they train
    try:
        telling = (lambda text: None) if args.json else teller(args.quiet, show)
        summary = survivors.train(telling, hung=hung)
        first = survivors.comm is not None and survivors.comm.rank == 0
        if summary is not None and first:
            _tell(summary, args, job, show)
    except UserError as error:
        first = survivors.ranks.comm.rank == 0 if first is None else first
        return refuse(str(error), error.code, first)
    except BrokenPipeError:
        return UNHEARD
    return 0


def habits_of(args: Any, habits: Habits) -> Habits:
    """Return habits with what was said of checkpoints; a `UserError` if there are to be none."""
    steps, seconds = args.checkpoint_every or (habits.steps, habits.seconds)
    found = {"keep": args.keep, "background": args.checkpoint_async}
    if args.checkpoint_failure is not None:
        found["end"] = args.checkpoint_failure == "end"
    found = {name: value for name, value in found.items() if value is not None}
    habits = replace(habits, steps=steps, seconds=seconds, **found)
    require(
        habits.any or not found,
        "--keep, --checkpoint-async and --checkpoint-failure need --checkpoint-every N",
    )
    return habits
