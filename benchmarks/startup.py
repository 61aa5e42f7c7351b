#!/usr/bin/env python3
"""What it costs to start many ranks: CPU seconds of whole jobs, of several checkouts in turn.

    benchmarks/startup.py [-n RANKS,RANKS] [--repeats N] [CHECKOUT ...]     (default: this one)

    MPI       Python starts MPI, and all ranks meet once: nothing of it is ours
    NumPy     the same with `import numpy`
    CHECKOUT  `refimpl train` of this checkout until the first step, and all ranks meet; of 8
              examples a rank, as many ranks have no more

User and system time of the launcher and all its processes, as the kernel counts them: what a
rank takes that waits in MPI is in it, so it is the clock's time, all cores together, where
nothing else runs.  The kinds of jobs take turns; of the repeats the median is shown.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

TOP = Path(__file__).resolve().parents[1]
MEET = "from mpi4py import MPI; MPI.COMM_WORLD.Barrier()"

# The command as a rank runs it, up to the first step.
UNTIL = f"""
class Begun(Exception):
    pass
def steps(self, *rest):
    raise Begun
from refimpl import cli
args = cli.told(None)
import refimpl.run.trainer
refimpl.run.trainer.Trainer._steps = steps
try:
    args.run(args)
except Begun:
    {MEET}
"""


def job(
    python: Path, ranks: int, model: str, checkout: str | None, code: str
) -> tuple[float, float]:
    """Run one job and return (CPU seconds, seconds); end with its words if it fails."""
    mpiexec = [str(python.with_name("mpiexec")), "-n", str(ranks)]
    words = [str(python), "-m", "mpi4py", "-c", code]
    if checkout is not None:
        words = ["sh", f"{checkout}/refimpl/support/rank.sh", *words]
        words += ["train", model, "--batch", "8"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    env |= {"PYTHONPATH": checkout or "", "PYTHONSAFEPATH": "1"}  # run_mpi.sh's -P
    with tempfile.TemporaryDirectory() as folder:
        before, since = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        if checkout is not None:
            words += ["--out", f"{folder}/run"]
        done = subprocess.run([*mpiexec, *words], env=env, capture_output=True, text=True)
        after, until = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-800:]
        sys.exit(f"{checkout or code}: exit code {done.returncode}: {said}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, until - since


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("checkout", nargs="*", type=Path, default=[TOP])
    add("-n", default="32,64", metavar="RANKS", help="numbers of ranks (default: 32,64)")
    add("--model", default="mlp", help="to train (default: mlp)")
    add("--repeats", type=int, default=3, metavar="N")
    add("--python", type=Path, default=Path(sys.executable), help="with mpiexec beside it")
    args = parser.parse_args()
    jobs: dict[str, tuple[str | None, str]] = {
        "MPI": (None, MEET),
        "NumPy": (None, f"import numpy; {MEET}"),
    }
    for path in args.checkout:
        jobs[str(path)] = str(path.resolve()), UNTIL
        package = path / "refimpl"
        subprocess.run([args.python, "-m", "compileall", "-q", package], check=True)  # run_mpi.sh
    print(f"{'ranks':>5}  {'CPU s':>7}  {'s':>6}  job")
    for ranks in map(int, args.n.split(",")):
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in jobs}
        for _ in range(args.repeats):
            for name, (checkout, code) in jobs.items():
                took[name].append(job(args.python, ranks, args.model, checkout, code))
        for name, each in took.items():
            cpu, seconds = (median(one) for one in zip(*each, strict=True))
            print(f"{ranks:>5}  {cpu:>7.1f}  {seconds:>6.1f}  {name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
