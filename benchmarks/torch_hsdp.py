"""Training steps of refimpl beside PyTorch's: MiCS and HSDP, ZeRO-3 and FSDP2, DDP and DDP.

    python benchmarks/torch_hsdp.py                            a Python with both
    python benchmarks/torch_hsdp.py --torch-python PYTHON      another one has torch

Every contest trains the same network (440-1024-1024-1024-128, rectified, SGD with momentum,
float32, 64 frames per rank) from the same weights on the same frames with both programs, one BLAS
thread per rank, all ranks on this machine.

    contest   ranks   refimpl               PyTorch (gloo)
    mics        4     mics, p = 2           FSDP2 on a mesh of 2 replicas x 2 shards (HSDP)
    zero3       2     zero3                 FSDP2
    ddp         2     ddp                   DistributedDataParallel

Both jobs are started once and wait, asleep, for their turn; in each round one takes --steps
steps, then the other, and who begins changes from round to round.  So what else the machine does
meets both.  The time of a turn is from one barrier to the next, divided by its steps; the table
has medians over rounds, and the median and quartiles of the ratio within a round.  At the end the
losses must agree: otherwise the two have not trained the same, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch_hsdp_ranks import BATCH, CONTESTS, MOMENTUM, WIDTHS

RANKS = Path(__file__).with_name("torch_hsdp_ranks.py")
PACKAGE = Path(__file__).resolve().parents[1]
SIDES = ("ours", "theirs")


class Launched:
    """The processes of one job; `turn` lets them take steps."""

    def __init__(self, side: str, name: str, given: argparse.Namespace, folder: Path) -> None:
        self.side = side
        ranks = range(CONTESTS[name].ranks)
        pipes = [folder / f"{side}.{rank}" for rank in ranks]
        for pipe in pipes:
            os.mkfifo(pipe)
        # Open for both, so that nobody waits here for a rank that has not come yet.
        self.orders = [os.open(pipe, os.O_RDWR) for pipe in pipes]
        program: list[object] = [RANKS, name, side, folder]
        for option in ("microsteps", "collectives", "torch_units"):
            program += [f"--{option.replace('_', '-')}", getattr(given, option)]
        program += ["--prefetch"] * given.prefetch
        if side == "ours":
            commands = [
                [given.mpiexec, "-n", len(ranks), sys.executable, "-m", "mpi4py", *program]
            ]
        else:
            commands = [[given.torch_python, *program, "--rank", rank] for rank in ranks]
        self.errors = folder / f"{side}.errors"
        with self.errors.open("w") as errors:
            self.processes = [
                subprocess.Popen(
                    [str(word) for word in command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                )
                for command in commands
            ]
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        """Pass on what rank 0 prints."""
        for line in self.processes[0].stdout or ():
            self.lines.put(line)

    def answer(self, limit: float) -> dict[str, Any]:
        """Return what rank 0 says next; end the program if a rank has ended, or at the limit."""
        until = time.monotonic() + limit
        while True:
            try:
                line = self.lines.get(timeout=0.5)
            except queue.Empty:
                gone = any(process.poll() is not None for process in self.processes)
                if gone or time.monotonic() > until:
                    why = "a rank ended" if gone else f"no answer in {limit:.0f} s"
                    sys.exit(f"{self.errors.read_text()[-4000:]}\n{self.side}: {why}")
            else:
                if line.startswith("{"):  # and not what a library had to say
                    return json.loads(line)

    def turn(self, steps: int, limit: float) -> dict[str, float]:
        """Let all ranks take this many steps; return seconds and CPU seconds a step, and loss."""
        for order in self.orders:
            os.write(order, f"{steps}\n".encode())
        return self.answer(limit)

    def end(self) -> None:
        """Close the pipes: every rank goes home; who does not is sent."""
        for order in self.orders:
            os.close(order)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.terminate()


def quartiles(values: list[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def compare(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run one contest; return times, ratios and losses."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        jobs = {}
        for side in SIDES:
            jobs[side] = Launched(side, name, given, folder)
            stack.callback(jobs[side].end)
        versions = {side: jobs[side].answer(given.limit)["says"] for side in SIDES}
        for side in SIDES:
            jobs[side].turn(given.warm_up, given.limit)
        load, rounds = os.getloadavg()[0], []
        for number in range(given.rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            rounds.append({side: jobs[side].turn(given.steps, given.limit) for side in order})
    losses = {side: rounds[-1][side]["loss"] for side in SIDES}
    result: dict[str, Any] = CONTESTS[name]._asdict()
    result["seconds"] = {s: quartiles([r[s]["seconds"] for r in rounds]) for s in SIDES}
    result["cpu_seconds"] = {s: quartiles([r[s]["cpu"] for r in rounds]) for s in SIDES}
    ratios = [r["ours"]["seconds"] / r["theirs"]["seconds"] for r in rounds]
    return result | {
        "ratio": quartiles(ratios),
        "losses": losses,
        "same": abs(losses["ours"] / losses["theirs"] - 1) < 1e-3,
        "load": [load, os.getloadavg()[0]],
        "versions": versions,
        "rounds": [{s: r[s]["seconds"] for s in SIDES} for r in rounds],
    }


def text(name: str, result: dict[str, Any]) -> str:
    """Return one contest as lines for a person."""
    lines = [f"{name}: {result['ranks']} ranks, load {result['load'][0]:.1f} before"]
    for side in SIDES:
        time, cpu = result["seconds"][side], result["cpu_seconds"][side]["median"]
        lines.append(
            f"  {result[side]:<10}{1e3 * time['median']:8.1f} ms a step "
            f"({1e3 * time['low']:.1f}-{1e3 * time['high']:.1f}), CPU of all ranks "
            f"{1e3 * cpu:.1f} ms, loss {result['losses'][side]:.6f}   {result['versions'][side]}"
        )
    ratio, bar = result["ratio"], result["bar"]
    verdict = (
        "" if bar is None else f"; bar {bar}: {'met' if ratio['median'] <= bar else 'missed'}"
    )
    lines.append(
        f"  {result['ours']} / {result['theirs']} = {ratio['median']:.3f} "
        f"(quartiles {ratio['low']:.3f}, {ratio['high']:.3f}){verdict}"
    )
    if not result["same"]:
        lines.append("  the losses differ: the two have not trained the same")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "contests", nargs="*", default=[*CONTESTS], help=f"of {', '.join(CONTESTS)} (all)"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=10, help="of a turn (10)")
    parser.add_argument("--warm-up", type=int, default=5, help="steps before the rounds (5)")
    parser.add_argument("--microsteps", type=int, default=1, help="of 64 frames, in a step (1)")
    parser.add_argument("--collectives", default="ring", help="of refimpl (ring)")
    parser.add_argument("--prefetch", action="store_true", help="refimpl gathers ahead")
    parser.add_argument(
        "--torch-units", choices=["layer", "network"], default="layer", help="wrapped by FSDP2"
    )
    parser.add_argument("--torch-python", default=sys.executable, help="has torch (this Python)")
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    parser.add_argument("--mpiexec", default=found, help="(%(default)s)")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one turn (300)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    given = parser.parse_args()
    unknown = [name for name in given.contests if name not in CONTESTS]
    if unknown:
        parser.error(f"no contest {unknown[0]!r}: choose of {', '.join(CONTESTS)}")
    if given.rounds < 2:
        parser.error("--rounds: quartiles need at least 2")
    if given.mpiexec is None:
        parser.error("no mpiexec beside this Python or on PATH: name one with --mpiexec")
    os.environ.update(surroundings())

    found = {}
    for name in given.contests:
        found[name] = compare(name, given)
        print(text(name, found[name]), flush=True)
    if given.json:
        settings = ("rounds", "steps", "microsteps", "collectives", "prefetch", "torch_units")
        machine = {"cores": os.cpu_count(), "machine": platform.machine()}
        network = {"widths": WIDTHS, "batch": BATCH, "momentum": MOMENTUM}
        setting = {name: getattr(given, name) for name in settings}
        given.json.write_text(
            json.dumps(machine | network | setting | {"contests": found}, indent=1)
        )
    sys.exit(not all(result["same"] for result in found.values()))


def surroundings() -> dict[str, str]:
    """Return the environment variables of all ranks: one thread each, and what run_mpi.sh sets."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    open_mpi = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "OMPI_MCA_btl": "self,sm",
    }
    path = str(PACKAGE) + os.pathsep + os.environ.get("PYTHONPATH", "")
    return {**dict.fromkeys(threads, "1"), **open_mpi, "PYTHONPATH": path.rstrip(os.pathsep)}


if __name__ == "__main__":
    main()
