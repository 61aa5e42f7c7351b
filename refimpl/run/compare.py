"""Several strategies on the same data, side by side: accuracy, traffic, speed.

Every strategy sees the same frames, which is what makes error rates comparable, and as many of
them in a step: n ranks divide the batch that one rank takes alone (`shared`), so that ``ddp``
differs from ``serial`` by rounding only, and others by what they do.  On the block axis a step is
a local one, of a worker's part of the batch.  Where ranks are given a ``--batch`` each, who takes
fewer frames at a time takes more steps, and an epoch is as many frames as all of them can take in
whole steps.  Only a schedule that ends training by its own measure (newbob) may
end it elsewhere for another strategy; the table then shows everybody's frames.  Each is trained
with several seeds; an increase is relative to serial's mean over them, its spread is theirs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refimpl.methods.strategies import strategy
from refimpl.run import alike
from refimpl.run.config import COLLECTIVES, Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.trainer import Trainer
from refimpl.support.errors import Diverged, UserError
from refimpl.support.text import table
from refimpl.tasks import table as tasks
from refimpl.tasks.protocol import Say, Words
from refimpl.world.agree import on_first_rank, same
from refimpl.world.trace import Trace

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator


def ranks_of(name: str, world: int) -> int:
    """Return how many of the ranks a strategy uses."""
    return 1 if strategy(name).serial else world


def step_frames(run: Run, world: int) -> int:
    """Return the frames that all ranks of a strategy together take in one step."""
    return run.recipe.batch * run.recipe.microsteps * ranks_of(run.strategy, world)


def share(run: Run, frames: int | None, world: int) -> int:
    """Return each rank's frames of a micro-step in which all take so many, or few more."""
    return -(-(frames or run.recipe.batch) // world)


def shared(run: Run, frames: int | None, world: int) -> Run:
    """Return the run in whose micro-steps all ranks together take so many frames, or few more.

    Each of n ranks takes an nth, rounded up; ``serial`` as many as all of them.  ``frames``: by
    default the recipe's batch.
    """
    batch = share(run, frames, world) * world // ranks_of(run.strategy, world)
    return replace(run, recipe=replace(run.recipe, batch=batch))


def steps_text(runs: dict[str, Run], world: int) -> str:
    """Return in one line how the strategies' steps compare, which decides what accuracy means.

    >>> from refimpl.run.config import Recipe
    >>> recipe = Recipe("images", epochs=1, lr=0.1, batch=32)
    >>> two = {name: Run("mlp", recipe, strategy=name) for name in ("serial", "ddp")}
    >>> print(steps_text({name: shared(run, None, 4) for name, run in two.items()}, 4))
    a step takes 32 images with every strategy: 32 on one rank, 8 on each of 4
    >>> print(steps_text(two, 4))
    steps differ, and with them accuracy: serial takes 32 images in each, ddp 128
    """
    words = tasks.words(run.recipe.task for run in runs.values()).examples
    taken = {name: step_frames(run, world) for name, run in runs.items()}
    if len(set(taken.values())) > 1:
        first, *others = (f"{name} {frames:,}" for name, frames in taken.items())
        first = first.replace(" ", " takes ") + f" {words} in each"
        return "steps differ, and with them accuracy: " + ", ".join([first, *others])
    frames = next(iter(taken.values()))
    ranks = sorted({ranks_of(name, world) for name in runs})
    each = [f"{frames // n:,} on " + (f"each of {n}" if n > 1 else "one rank") for n in ranks]
    return f"a step takes {frames:,} {words} with every strategy: {', '.join(each)}"


def fitted(run: Run, name: str, seed: int, world: int, base: Run | None = None) -> Run:
    """Return the run for one strategy: what does not go with it is left out.

    Options are given once for all strategies, so ``--tau`` must not be refused by ``ddp``, nor
    ``--collectives`` by ``gtc``.  And
    ``--steps`` counts those of ``base`` (by default the run itself) on all ranks: a strategy that
    takes fewer frames at a time takes more steps.

    Raises
    ------
    UserError
        If these frames are no whole number of its steps.
    """
    row, methods = strategy(name), run.methods
    options = {key: methods[key] for key in methods if key in row.options()}
    run = replace(run, strategy=name, seed=seed, methods=options)
    if run.collectives == (base or run).collectives and run.unused_collectives(
        ranks_of(name, world)
    ):
        run = replace(run, collectives=COLLECTIVES, links=None)
    if run.steps is None:
        return run
    recipe, ours = (base or run).recipe, step_frames(run, world)
    asked = recipe.batch * recipe.microsteps * world
    frames = run.steps * asked
    if frames % ours:
        each = math.lcm(asked, ours) // asked
        raise UserError(
            f"--steps {run.steps} are {frames:,} frames, and {name} takes {ours:,} at a time: "
            f"give --steps a multiple of {each}, or --batch that divide one another"
        )
    return replace(run, steps=frames // ours)


def check_same(name: str, run: Run, base: Run) -> None:
    """Refuse options for one strategy with which it would not be compared with the others."""
    for option, mine, theirs in (
        ("--data", run.data, base.data),
        ("--epochs", run.recipe.epochs, base.recipe.epochs),
        ("--steps", run.steps, base.steps),
        ("--seed", run.seed, base.seed),
        ("--ranks-per-node", run.ranks_per_node, base.ranks_per_node),
        ("--map", run.map, base.map),
    ):
        if mine != theirs:
            raise UserError(
                f"--for {name}: {option} {mine} for one strategy alone: what is compared sees "
                f"the same frames; give {option} for all"
            )


def compare(
    comm: Communicator,
    model: ModelFile,
    runs: dict[str, Run],
    seeds: int,
    say: Say,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
    trace: tuple[Path, tuple[int, int]] | None = None,
) -> dict[str, Any]:
    """Train every strategy with every seed and return their summaries and the table's rows.

    ``runs`` has what every strategy is to do.  ``serial`` runs on rank 0 while the others wait
    without using their cores.  A run that diverges is a result like another: the table says so.
    ``keep`` is called on all ranks with the result so far, before and after every run.
    ``trace``: steps to draw, in a file for each run: of ``t.pftrace``, ``t-mics-0.pftrace`` for
    mics with seed 0.  Collective.

    Raises
    ------
    UserError
        If any of the runs cannot be; before the first one starts.
    """
    same(comm, {"--strategies": [*runs], "--seeds": seeds})
    for name, run in runs.items():
        same(comm, alike.configuration(run))
        run.check(ranks_of(name, comm.size))
    recipes = {name: asdict(run.recipe) for name, run in runs.items()}
    result: dict[str, Any] = {"model": model.name, "recipes": recipes, "runs": {}, "table": []}
    multiple = math.lcm(*(step_frames(run, comm.size) for run in runs.values()))
    say(steps_text(runs, comm.size))
    keep(result)  # what cannot be written is known before the first hour is over
    for name, run in runs.items():
        done = result["runs"].setdefault(name, [])
        for seed in range(run.seed, run.seed + seeds):
            say(f"--- {name}, seed {seed}")
            done.append(_trained(comm, model, replace(run, seed=seed), say, multiple, trace))
            result["table"] = rows(result["runs"])
            keep(result)
    return result


def _trained(
    comm: Communicator,
    model: ModelFile,
    run: Run,
    say: Say,
    multiple: int,
    trace: tuple[Path, tuple[int, int]] | None,
) -> dict[str, Any]:
    """Return the summary of one run, on all ranks; ``{"diverged": why}`` if it has none."""

    def outcome(ranks: Any) -> dict[str, Any]:
        try:
            with Trainer(ranks, run, model, say, multiple=multiple) as trainer:
                if trace is None:
                    return trainer.train()
                path, steps = trace
                path = path.with_stem(f"{path.stem}-{run.strategy}-{run.seed}")
                with Trace(trainer.comm, path, steps):
                    return trainer.train()
        except Diverged as error:
            say(str(error))
            return {"diverged": str(error)}

    if not run.row.serial:
        return outcome(comm)
    alone = comm.split(0 if comm.rank == 0 else None)

    def work() -> dict[str, Any]:
        assert alone is not None
        return outcome(alone)

    try:
        return on_first_rank(comm.mpi, work)
    finally:
        if alone is not None:
            alone.free()


def rows(summaries: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one row per strategy: means over seeds, and increases over serial's mean.

    ``increase`` is {mean, spread} of (error / serial's mean error - 1) over seeds, for the test
    set's frame and word error rate; None without serial or where serial makes no error.
    ``diverged`` counts the seeds that have no figures; the rest of a row is of those that have,
    and missing if there are none.
    """
    ended = {
        name: [run for run in runs if "diverged" not in run] for name, runs in summaries.items()
    }
    serial = next((runs for name, runs in ended.items() if strategy(name).serial), None)
    table = []
    for name, runs in ended.items():
        row: dict[str, Any] = {"strategy": name, "seeds": len(summaries[name])}
        row["diverged"] = row["seeds"] - len(runs)
        table.append(row)
        if not runs:
            continue
        for what, error in (("fer", fer), ("wer", wer)):
            errors = [e for e in map(error, runs) if e is not None]
            if not errors:
                continue
            row[what] = statistics.mean(errors)
            alone = [e for e in map(error, serial or ()) if e is not None]
            base = statistics.mean(alone) if alone else 0.0
            row[f"{what}_increase"] = _increase(errors, base) if base else None
        for link in ("intra", "inter"):
            row[f"{link}_bytes_per_frame"] = statistics.mean(
                run["ledger"][link]["bytes"] / run["frames"] for run in runs
            )
        row["frames"] = runs[0]["frames"]
        row["frames_per_second"] = statistics.mean(run["frames_per_second"] for run in runs)
        row["seconds"] = statistics.mean(run["seconds"] for run in runs)
        row["resident_bytes_per_rank"] = max(run["max_resident_bytes_per_rank"] for run in runs)
    return table


def _increase(errors: list[float], base: float) -> dict[str, float]:
    relative = [error / base - 1 for error in errors]
    spread = statistics.stdev(relative) if len(relative) > 1 else 0.0
    return {"mean": statistics.mean(relative), "spread": spread}


def fer(run: dict[str, Any]) -> float:
    """Return the test set's frame error rate."""
    return run["frame_error_rate"]["test"]


def wer(run: dict[str, Any]) -> float | None:
    """Return the test set's word error rate, None for a model that knows no words."""
    return run["word_error_rate"]["test"]["wer"] if "word_error_rate" in run else None


def table_text(result: dict[str, Any], words: Words) -> str:
    """Return the table for a person; ``+2.1 % (0.4)`` is a mean and its spread over seeds."""
    spoken = any("wer" in row for row in result["table"])
    head = ["strategy", words.error_rate, "over serial"]
    head += ["WER", "over serial"] if spoken else []
    uneven = len({row.get("frames", 0) for row in result["table"] if "fer" in row}) > 1
    head += [f"{link} B/{words.example}" for link in ("intra", "inter")]
    head += [f"{words.examples}/s", "s", "MB/rank"] + [words.examples] * uneven
    lines = []
    for row in result["table"]:
        cells = [row["strategy"]]
        lines.append(cells)
        if "fer" not in row:
            cells += ["diverged"] + [""] * (len(head) - 2)
            continue
        for what in ("fer", "wer") if spoken else ("fer",):
            cells.append(f"{row[what]:.2%}" if what in row else "")
            increase = row.get(f"{what}_increase")
            cells.append(
                f"{100 * increase['mean']:+.1f} % ({100 * increase['spread']:.1f})"
                if increase
                else "-"
            )
        cells += [f"{row[f'{link}_bytes_per_frame']:,.0f}" for link in ("intra", "inter")]
        cells += [f"{row[name]:,.0f}" for name in ("frames_per_second", "seconds")]
        cells.append(f"{row['resident_bytes_per_rank'] / 1e6:.0f}")
        cells += [f"{row['frames']:,}"] * uneven
        if row["diverged"]:
            cells[0] += f" ({row['diverged']} of {row['seeds']} seeds diverged)"
    return table(head, lines)
