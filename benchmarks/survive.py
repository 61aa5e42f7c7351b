#!/usr/bin/env python3
"""Kill a rank; how long until the next step is done?  By those that live, and by a new start.

    python -m benchmarks.survive                       needs an MPI with ULFM (Open MPI 5)
    python -m benchmarks.survive --rank 0 --repeats 9 --options "--strategy mics --partition 2"

Each repeat trains twice and kills the same rank in the same step, at another moment of it in each
repeat, by SIGKILL.  In the first training the others go on (``--on-failure continue``).  The
second saves itself after every ``--every`` steps and ends with its rank; it is resumed at once,
on the ranks that are left.  Time counts from the kill to the first line of steps.jsonl
(``--log-every 1``) that was written after it by those that go on (*next*), and to that of a step
that had not been done before (*regained*).  It is told as a multiple of a step, the median of
those before the kill in the same run.

Each training then takes ``--more`` steps and has to end well.  What became of one that does not
is said, with the end of what it said itself; the others go on, and the exit code is 1.  To try
many recoveries: ``--alone --repeats 40``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.same_bits import launcher
from benchmarks.surroundings import surroundings
from refimpl.support.text import table

REFIMPL = [sys.executable, "-m", "mpi4py", "-m", "refimpl", "train"]
GOLDEN = 0.618  # moments of a step, well apart for any number of repeats
TAIL = 30  # lines of what a training said that ended badly


def ranks_of(launched: int) -> list[int]:
    """Return the processes of the ranks that a launcher has started, as they were started."""
    listed = ["ps", "-eo", "pid=,ppid=,args="]
    text = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in text.splitlines()]
    family, found = [launched], []
    for process in family:
        family += [int(child) for child, parent, _ in rows if int(parent) == process]
    for process, _, command in rows:
        if int(process) in family and command.startswith(" ".join(REFIMPL[:3])):
            found.append(int(process))
    return sorted(found)


def lines(out: Path) -> list[int]:
    """Return the steps that steps.jsonl tells of, those of whole lines."""
    with suppress(OSError, ValueError, IndexError):
        text = (out / "steps.jsonl").read_text()
        return [json.loads(line)["step"] for line in text.splitlines(True) if line[-1] == "\n"]
    return []


def times_resumed(out: Path) -> int:
    """Return how often the run has gone on."""
    with suppress(OSError, ValueError):
        return len(json.loads((out / "state.json").read_text()).get("resumed", []))
    return 0


class Bad(Exception):
    """What became of a training that did not do what it should."""


class Measured:
    """One training.  ``moment``: which part of a step is over when the rank is killed."""

    def __init__(self, args: Any, out: Path, ulfm: bool, moment: float) -> None:
        self.args, self.out, self.ulfm, self.moment = args, out, ulfm, moment
        self.said = out.with_suffix(".txt")
        more = ["--on-failure", "continue"] if ulfm else ["--checkpoint-every", str(args.every)]
        steps = ["--steps", str(args.step + args.more), "--epochs", "1000"]
        words = [args.model, *args.options.split(), *steps]
        self.words = [*words, "--log-every", "1", "--out", str(out), *more]

    def _start(self, ranks: int, words: list[str]) -> subprocess.Popen[bytes]:
        ft = ["--with-ft", "ulfm"] if self.ulfm else []
        with self.said.open("ab") as said:
            return subprocess.Popen(
                [launcher(), *ft, "-n", str(ranks), *REFIMPL, *words],
                env=os.environ | surroundings(),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def _until(self, condition: Any, job: subprocess.Popen[bytes], what: str) -> float:
        until = time.monotonic() + self.args.limit
        while not condition():
            if job.poll() is not None and not condition():
                raise Bad(f"ended with exit code {job.returncode}, and not: {what}")
            if time.monotonic() > until:
                job.terminate()
                job.wait()
                raise Bad(f"within {self.args.limit:g} s not: {what}")
            time.sleep(0.0005)
        return time.monotonic()

    def run(self) -> tuple[float, float, float]:
        """Return seconds: of a step, to the next one, to what had not been done."""
        out, args = self.out, self.args
        job = self._start(args.ranks, self.words)
        first = self._until(lambda: len(lines(out)) >= 2, job, "two steps")
        begun = lines(out)[-1]
        victim = ranks_of(job.pid)[args.rank]
        last = self._until(lambda: len(lines(out)) >= args.step, job, f"{args.step} steps")
        step = (last - first) / (lines(out)[-1] - begun)
        time.sleep(self.moment * step)
        os.kill(victim, signal.SIGKILL)
        killed = time.monotonic()
        done = lines(out)[-1]
        if not self.ulfm:
            job.wait()
            job = self._start(args.then, ["--resume", str(out)])
        self._until(lambda: times_resumed(out) > 0, job, "gone on")
        resumed = json.loads((out / "state.json").read_text())["resumed"][-1]
        after = self._until(lambda: (lines(out) or [0])[-1] > resumed, job, "a step")
        regained = self._until(lambda: (lines(out) or [0])[-1] > done, job, "a new step")
        self._until(lambda: job.poll() is not None, job, "an end")
        if job.returncode or not (out / "summary.json").exists():
            raise Bad(f"ended with exit code {job.returncode} after step {lines(out)[-1]}")
        return step, after - killed, regained - killed


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="mlp")
    parser.add_argument("--options", default="--strategy ddp --microsteps 3 --reduction exact")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--then", type=int, default=3, help="ranks that a new start has")
    parser.add_argument("--rank", type=int, default=1, help="who is killed")
    parser.add_argument("--step", type=int, default=60, help="after about so many steps")
    parser.add_argument("--more", type=int, default=20, help="steps that are to follow")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", action="store_true", help="go on; do not start again, too")
    parser.add_argument("--limit", type=float, default=300, help="seconds to wait for anything")
    args = parser.parse_args()
    ways = {"go on": True} if args.alone else {"go on": True, "start again": False}
    found: dict[str, list[tuple[float, float, float]]] = {how: [] for how in ways}
    with tempfile.TemporaryDirectory() as name:
        for repeat in range(args.repeats):
            for how, ulfm in ways.items():
                out = Path(name) / f"{how}{repeat}".replace(" ", "")
                one = Measured(args, out, ulfm, (repeat * GOLDEN) % 1)
                try:
                    found[how].append(one.run())
                except Bad as error:
                    said = one.said.read_text(errors="replace").splitlines()[-TAIL:]
                    print(how, "-- BAD:", error, *said, sep="\n    ", flush=True)
                    continue
                print(how, " ".join(f"{number:.4f}" for number in found[how][-1]), "s", flush=True)
    rows = []
    for how, runs in found.items():
        good = [how, f"{len(runs)} of {args.repeats}"]
        if not runs:
            rows.append([*good, "", "", ""])
            continue
        step = median(one[0] for one in runs)
        ratios = [median(one[i] / one[0] for one in runs) for i in (1, 2)]
        rows.append([*good, f"{1e3 * step:.1f} ms", *(f"{ratio:.0f} steps" for ratio in ratios)])
    print(table(["the others", "good", "a step", "until the next", "until regained"], rows))
    return int(any(len(runs) < args.repeats for runs in found.values()))


if __name__ == "__main__":
    sys.exit(main())
