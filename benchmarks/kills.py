#!/usr/bin/env python3
"""Kill runs at random moments, resume them, and compare with runs that nobody touched.

    python -m benchmarks.kills                     50 kills over all strategies, float and exact
    python -m benchmarks.kills --kills 200 --seed 1
    python -m benchmarks.kills --keep kills.json   goes on where it was stopped; draws the table

Every training writes checkpoints as fast as it can (``--checkpoint-every 3``).  All its processes
are ended by SIGKILL: one time in six while it is set up, else at a moment drawn evenly over the
time from the first to the last file of the undisturbed run, so while it trains, evaluates,
re-aligns, or writes.  Then it is resumed; where not even its folder had been begun, it is started
again.  One kill in three is followed by another, of the resumed run.  What must be equal to the
undisturbed run: the parameters' SHA-256, all figures of summary.json and of every line of
metrics.jsonl but times and memory, so loss, error rates, learning rates, messages and bytes too.

The exit status is 0 if all are.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.same_bits import (
    BEEPS,
    CHECKOUT,
    IMAGES,
    ROWS,
    SPEECH,
    launcher,
    lines,
    write_beeps,
    write_images,
)

# Rows that came after `same_bits` was written for two trees.
NEWER = """
4 --strategy topk
8 --strategy mics-topk-bmuf --partition 2 --gtc-group 2 --block-steps 5
4 --strategy diloco --block-steps 5
4 --strategy mics-diloco --partition 2 --block-steps 5
4 --strategy zero3 --secondary-shards node --ranks-per-node 2
"""
MEASURED = ("seconds", "frames_per_second", "stragglers", "max_resident_bytes_per_rank")


def trainings() -> list[str]:
    """Return all trainings, each a line: ranks, model, options."""
    rows = [row.replace(" ", f" {IMAGES} --epochs 6 ", 1) for row in lines(ROWS + NEWER)]
    rows += [row.replace(" ", f" {SPEECH} ", 1) for row in lines(BEEPS)]
    return [f"{row} --reduction {kind}" for row in rows for kind in ("float", "exact")]


class Training:
    """One line's runs in a folder of its own."""

    def __init__(self, line: str, scratch: Path) -> None:
        ranks, model, *options = line.split()
        data = scratch / ("beeps" if model == "acoustic_mlp" else "images")
        self.folder = Path(tempfile.mkdtemp(dir=scratch))
        self.options = [str(CHECKOUT / "models" / f"{model}.py"), *options, "--data", str(data)]
        self.launch = [] if ranks == "1" else [launcher(), "-n", ranks]
        self.environment = os.environ | {
            "PYTHONPATH": str(CHECKOUT),
            "XDG_CACHE_HOME": str(scratch / "cache"),
            "OMP_NUM_THREADS": "1",
        }

    def run(
        self,
        *words: str,
        seconds: float | None = None,
        once: Path | None = None,
        limit: float = 300,
    ) -> None:
        """Run `refimpl train`, killed after some seconds if it is not over.

        ``once``: the seconds count from when this file is there.
        """
        command = [*self.launch, sys.executable, "-m", "mpi4py", "-m", "refimpl", "train", *words]
        with tempfile.TemporaryFile("w+") as output:
            run = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while once is not None and not once.exists() and run.poll() is None:
                time.sleep(0.005)
            try:
                code = run.wait(limit if seconds is None else seconds)
            except subprocess.TimeoutExpired:
                self._kill(run)
                code = -signal.SIGKILL
            output.seek(0)
            if code and not (seconds is not None and code == -signal.SIGKILL):
                raise RuntimeError(f"exit {code}: {' '.join(output.read().split())[-400:]}")

    @staticmethod
    def _kill(run: subprocess.Popen) -> None:
        """Kill the launcher and all that it started: ranks have groups of their own."""
        table = subprocess.run(
            ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
        ).stdout
        parents = dict(map(int, row.split()) for row in table.splitlines())
        doomed = [run.pid]
        for pid in doomed:
            doomed += [child for child, parent in parents.items() if parent == pid]
        for pid in reversed(doomed):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.wait()

    def begin(self, out: Path, **how: Any) -> None:
        """Start the training."""
        self.run(*self.options, "--checkpoint-every", "3", "--out", str(out), **how)

    def go_on(self, out: Path, **how: Any) -> None:
        """Resume it, or start it again where nothing was begun."""
        if (out / "config.json").exists():
            self.run("--resume", str(out), **how)
        else:
            shutil.rmtree(out, ignore_errors=True)
            self.begin(out, **how)


def left(out: Path) -> list[dict[str, Any]]:
    """Return all that a finished run says of itself and that is not measured."""
    told = [json.loads((out / "summary.json").read_text())]
    for name in "metrics.jsonl", "steps.jsonl":
        if (out / name).exists():
            told += map(json.loads, (out / name).read_text().splitlines())
    return [{name: v for name, v in one.items() if name not in MEASURED} for one in told]


def moment(out: Path) -> str:
    """Return in a word what a run was at when it was killed."""
    if not (out / "config.json").exists():
        return "set-up"
    if (out / "summary.json").exists():
        return "finished"
    epochs = len((out / "metrics.jsonl").read_text().splitlines())
    partial = [path for path in out.rglob("*") if path.name.endswith(".partial")]
    return f"epoch {epochs + 1}" + (", a file half written" if partial else "")


def main() -> int:
    """Kill, resume, compare, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="trainings with this text in their line")
    parser.add_argument("--keep", type=Path, help="a file for what was done so far")
    args = parser.parse_args()
    lines_ = [line for line in trainings() if args.only in line]
    done: list[dict[str, Any]] = []
    if args.keep and args.keep.exists():
        done = json.loads(args.keep.read_text())
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write_images(scratch / "images", 240, (12, 12))
        write_beeps(scratch / "beeps")
        for number in range(len(done), args.kills):
            draw = random.Random(1000 * args.seed + number)
            line = lines_[number * len(lines_) // args.kills]
            done.append(kill(line, draw, scratch))
            if args.keep:
                args.keep.write_text(json.dumps(done, indent=1))
            print(number + 1, json.dumps(done[-1]), flush=True)
    print(table(done))
    return int(any(not one["equal"] for one in done))


def kill(line: str, draw: random.Random, scratch: Path) -> dict[str, Any]:
    """Kill one training once or twice, resume it; return what came of it."""
    training = Training(line, scratch)
    try:
        whole, out = training.folder / "whole", training.folder / "killed"
        began = time.time()
        training.begin(whole)
        want, first = left(whole), (whole / "config.json").stat().st_mtime
        set_up, seconds = first - began, (whole / "summary.json").stat().st_mtime - first
        if draw.random() < 1 / 6:
            training.begin(out, seconds=draw.uniform(0.1, 1) * set_up)
        else:
            training.begin(out, seconds=draw.random() * seconds, once=out / "config.json")
        moments = [moment(out)]
        if draw.random() < 1 / 3 and moments != ["finished"]:
            training.go_on(out, seconds=draw.uniform(0.7, 1) * (set_up + seconds))
            moments.append(moment(out))
        if moments[-1] != "finished":
            training.go_on(out)
        equal = left(out) == want
        return {"line": line, "killed in": moments, "equal": equal}
    except RuntimeError as error:
        return {"line": line, "killed in": ["?"], "equal": False, "why": str(error)}
    finally:
        shutil.rmtree(training.folder)


def table(done: list[dict[str, Any]]) -> str:
    """Return, per strategy, how often it was killed, in what, and how often all was equal."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for one in done:
        words = one["line"].split()
        rows.setdefault(words[words.index("--strategy") + 1], []).append(one)
    kinds = ("set-up", "an epoch", "a write", "finished")
    text = [
        f"| strategy | runs | kills | in {' | in '.join(kinds[:3])} | after the end | equal |",
        "| --- |" + " --- |" * (len(kinds) + 3),
    ]
    for name, ones in rows.items():
        moments = [kind(when) for one in ones for when in one["killed in"]]
        counts = [moments.count(one) for one in kinds]
        cells = [len(ones), len(moments), *counts, sum(one["equal"] for one in ones)]
        text.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return "\n".join(text)


def kind(when: str) -> str:
    """Return what kind of moment it was."""
    if "half written" in when:
        return "a write"
    return "an epoch" if when.startswith("epoch") else when


if __name__ == "__main__":
    sys.exit(main())
