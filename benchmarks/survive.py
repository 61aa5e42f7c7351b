#!/usr/bin/env python3
"""Kill a rank; how long until the next step is done?  By those that live, and by a new start.

    python -m benchmarks.survive                       needs an MPI with ULFM (Open MPI 5)
    python -m benchmarks.survive --rank 0 --repeats 9 --options "--strategy mics --partition 2"

Each repeat trains twice and kills the same rank at the same step, by SIGKILL.  In the first
training the others go on (``--on-failure continue``).  The second saves itself after every
``--every`` steps and ends with its rank; it is resumed at once, on the ranks that are left.  Time
counts from the kill to the first line of steps.jsonl (``--log-every 1``) that was written after
it by those that go on (*next*), and to that of a step that had not been done before (*regained*).
It is told as a multiple of a step, the median of those before the kill in the same run.
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


class Measured:
    """One training: ``step`` seconds, and those from the kill to ``next`` and ``regained``."""

    def __init__(self, args: Any, out: Path, ulfm: bool) -> None:
        self.args, self.out, self.ulfm = args, out, ulfm
        more = ["--on-failure", "continue"] if ulfm else ["--checkpoint-every", str(args.every)]
        words = [args.model, *args.options.split(), "--steps", "1000000", "--epochs", "1000"]
        self.words = [*words, "--log-every", "1", "--out", str(out), *more]

    def _start(self, ranks: int, words: list[str]) -> subprocess.Popen[bytes]:
        ft = ["--with-ft", "ulfm"] if self.ulfm else []
        return subprocess.Popen(
            [launcher(), *ft, "-n", str(ranks), *REFIMPL, *words],
            env=os.environ | surroundings(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _until(self, condition: Any, job: subprocess.Popen[bytes]) -> float:
        until = time.monotonic() + self.args.limit
        while not condition():
            if job.poll() is not None or time.monotonic() > until:
                job.terminate()
                raise SystemExit(f"the training in {self.out} did not come so far")
            time.sleep(0.0005)
        return time.monotonic()

    def run(self) -> tuple[float, float, float]:
        """Return seconds: of a step, to the next one, to what had not been done."""
        out, args = self.out, self.args
        job = self._start(args.ranks, self.words)
        first = self._until(lambda: len(lines(out)) >= 2, job)
        begun = lines(out)[-1]
        last = self._until(lambda: len(lines(out)) >= args.step, job)
        done = lines(out)[-1]
        step = (last - first) / (done - begun)
        os.kill(ranks_of(job.pid)[args.rank], signal.SIGKILL)
        killed = time.monotonic()
        if not self.ulfm:
            job.wait()
            job = self._start(args.then, ["--resume", str(out)])
        self._until(lambda: times_resumed(out) > 0, job)
        resumed = json.loads((out / "state.json").read_text())["resumed"][-1]
        after = self._until(lambda: (lines(out) or [0])[-1] > resumed, job)
        regained = self._until(lambda: (lines(out) or [0])[-1] > done, job)
        job.terminate()
        job.wait()
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
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300, help="seconds to wait for anything")
    args = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {"go on": [], "start again": []}
    with tempfile.TemporaryDirectory() as name:
        for repeat in range(args.repeats):
            for how, ulfm in (("go on", True), ("start again", False)):
                one = Measured(args, Path(name) / f"{how}{repeat}".replace(" ", ""), ulfm).run()
                found[how].append(one)
                print(how, " ".join(f"{number:.4f}" for number in one), "s", flush=True)
    rows = []
    for how, runs in found.items():
        step = median(one[0] for one in runs)
        ratios = [median(one[i] / one[0] for one in runs) for i in (1, 2)]
        rows.append([how, f"{1e3 * step:.1f} ms", *(f"{ratio:.0f} steps" for ratio in ratios)])
    print(table(["the others", "a step", "until the next", "until regained"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
