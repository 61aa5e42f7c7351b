"""A cluster in a box: collectives and training steps in wall time, over real TCP on slow links.

    python benchmarks/cluster [--methods] [--quick] [--rate 200mbit] [--json FILE]

Needs root, iproute2 and MPICH with UCX (``pip install mpich``).  Exit status 2: something that
it needs is missing; 1: a measurement failed.  See docs/cluster.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT)]

import box  # noqa: E402
import report  # noqa: E402
import speed  # noqa: E402

from refimpl.run.bench.network import WIDTHS  # noqa: E402
from refimpl.support.text import binary  # noqa: E402


def methods(partition: int, ranks: int) -> dict[str, dict]:
    """Return the methods whose steps are compared; the first is what the others are beside."""
    zero3 = {"partition": ranks, "every_microstep": False}
    mics = {"partition": partition, "family": "ring"}
    return {
        "zero3": zero3 | {"family": "ring"},
        "zero3, hierarchical": zero3 | {"family": "hierarchical"},
        "mics, every micro-step": mics | {"every_microstep": True},
        "mics, two-hop": mics | {"every_microstep": False},
    }


def jobs(quick: bool) -> list[dict]:
    """Return what is measured, one launch each."""
    if quick:
        small = {"hosts": 2, "ranks_per_host": 2, "rounds": 3, "bytes": 1 << 20}
        step = {"widths": (64, 256, 256, 64), "batch": 16, "microsteps": 2}
        return [small | step | {"methods": methods(2, 4)}]
    shapes = [{"hosts": hosts, "ranks_per_host": k} for hosts, k in ((2, 2), (2, 4), (4, 2))]
    step = {"widths": WIDTHS, "batch": 64, "microsteps": 4, "methods": methods(2, 8)}
    return [
        *(shape | {"rounds": 15, "bytes": 4 << 20} for shape in shapes),
        {"hosts": 4, "ranks_per_host": 2, "rounds": 5} | step,
    ]


# TCP between hosts: the hosts are one machine, whose shared memory an MPI would find.  Messages
# of all sizes are streamed as they come: with its rendezvous for large ones, UCX puts the "go on"
# of one direction behind the data of the other, and two ranks that exchange wait for each other.
SURROUNDINGS = {
    "UCX_TLS": "tcp,self",
    "UCX_NET_DEVICES": "e0,lo",
    "UCX_RNDV_THRESH": "inf",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def find_mpiexec() -> str:
    """Return MPICH's launcher, which can be told how to reach a host."""
    beside = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
    found = os.environ.get("MPIEXEC") or shutil.which("mpiexec", path=beside)
    said = ""
    if found:
        said = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    if "HYDRA" not in said:
        raise box.Refused("needs MPICH's mpiexec: pip install mpich, or name it with MPIEXEC=")
    return str(found)


def launch(mpiexec: str, addresses: list[str], job: dict) -> dict:
    """Return the figures of one job, measured on the first of the hosts."""
    hosts, k = job["hosts"], job["ranks_per_host"]
    asked, answered = (box.private_folder() / name for name in ("job.json", "result.json"))
    asked.write_text(json.dumps(job))
    command = [mpiexec, "-launcher", "ssh", "-launcher-exec", str(HERE / "agent.sh")]
    command += ["-iface", "switch", "-hosts", ",".join(addresses[:hosts])]
    command += ["-n", str(hosts * k), "-ppn", str(k)]
    command += [sys.executable, "-m", "mpi4py", str(HERE / "ranks.py"), str(asked), str(answered)]
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    subprocess.run(
        command,
        env=os.environ | SURROUNDINGS | job.get("surroundings", {}) | {"PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=900,
    )
    return json.loads(answered.read_text())


def measure(args: argparse.Namespace, mpiexec: str) -> int:
    """Build the box, run all jobs, print the tables and write the figures."""
    started = {
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    todo = speed.jobs(args.quick) if args.methods else jobs(args.quick)
    hosts = max(job["hosts"] for job in todo)
    addresses = box.build(hosts, args.rate, args.mtu, args.burst)
    print(
        f"{hosts} hosts in a box, links of {args.rate} each way, packets of {args.mtu} bytes; "
        f"{started['cores']} cores, load {started['load']:.1f}",
        flush=True,
    )
    runs, collective, steps, speeds = [], [], [], []
    for job in todo:
        print(f"measuring {job['hosts']} hosts x {job['ranks_per_host']} ranks ...", flush=True)
        figures = launch(mpiexec, addresses, job)
        runs.append({"job": job, "figures": figures})
        if "bytes" in job:
            collective += report.collective_rows(figures, job["bytes"])
        if "widths" in job:
            steps += report.step_rows(figures, job)
        if "runs" in job:
            speeds += speed.rows(figures, job)
    print("\nlinks, hosts x ranks: alpha + beta, as measured with the rest")
    for run in runs:
        print("  " + report.links_text(run["figures"]))
    if args.methods:
        found = speed.verdicts(speeds, full=not args.quick)
        print(f"\n{speed.about(todo[0])}\n{speed.text(speeds)}")
    else:
        found = report.verdicts(collective, steps, full=not args.quick)
        _print(todo, collective, steps)
    if found:
        print("\n" + report.verdict_text(found))
    result = {
        **started,
        "load_after": os.getloadavg()[0],
        "options": vars(args) | {"json": str(args.json)},
        "collectives": collective,
        "steps": steps,
        "speeds": speeds,
        "verdicts": found,
        "runs": runs,
    }
    args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"all figures: {args.json}")
    return 0


def _print(todo: list, collective: list, steps: list) -> None:
    nbytes, job = todo[0]["bytes"], todo[-1]
    print(f"\n{binary(nbytes)} of float32, hosts x ranks")
    print(report.collective_text(collective))
    widths = "-".join(map(str, job["widths"]))
    print(
        f"\none step of an MLP {widths}, {job['hosts']} x {job['ranks_per_host']}, "
        f"{job['microsteps']} micro-steps of {job['batch']} rows per rank"
    )
    print(report.step_text(steps))


def main(words: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks/cluster", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--quick", action="store_true", help="2 hosts, small messages: a check in seconds")
    add("--methods", action="store_true", help="the strategies' frames a second instead")
    add("--rate", default="200mbit", help="of a link, in each direction (default: %(default)s)")
    add("--mtu", type=int, default=9000, help="bytes of a packet (default: %(default)s)")
    add("--burst", default="16kb", help="what passes at once after a pause (default: %(default)s)")
    add("--json", type=Path, default=Path("cluster.json"), metavar="FILE", help="the figures")
    args = parser.parse_args(words)
    try:
        box.require_root()
        mpiexec = find_mpiexec()
        return box.alone(lambda: measure(args, mpiexec))
    except box.Refused as error:
        print(f"benchmarks/cluster: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
