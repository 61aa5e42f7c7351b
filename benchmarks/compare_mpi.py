#!/usr/bin/env python3
"""Compare MPIs, each installed in a Python environment of its own: the table of docs/install.md.

    benchmarks/compare_mpi.py .venv .venv-openmpi
    benchmarks/compare_mpi.py --ranks 32,128 --set MPIR_CVAR_POLLS_BEFORE_YIELD=1 .venv

For every environment and number of ranks one `mpiexec` runs this file on every rank and reports

    start      seconds from the launch until every rank has left its first barrier
    barrier    microseconds per barrier
    ring       milliseconds per ring all-reduce of --kilobytes float32, 2 (p - 1) Sendrecv in NumPy
    native     the same by the MPI's own in-place Allreduce
    step       milliseconds per step of training: matrix products, some longer, then the ring
    memory     megabytes per rank: its share of what is mapped (PSS; Linux), or its peak elsewhere
    whole      seconds until `mpiexec` has returned

Environments take turns, so that a change in the machine's load meets all of them; of the
--repeats the median is shown, and the smallest and largest beside it.  No run lasts longer
than --limit seconds; one that fails or is stopped is reported as such.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

LAUNCHED = "COMPARE_MPI_LAUNCHED"
FIGURES = {
    "start": "s",
    "barrier": "us",
    "ring": "ms",
    "native": "ms",
    "step": "ms",
    "memory": "MB",
    "whole": "s",
}


def memory() -> float:
    """Return this process's share of memory in MB: shared pages count 1/(number of sharers)."""
    rollup = Path("/proc/self/smaps_rollup")
    if rollup.exists():
        pss = next(line for line in rollup.read_text().splitlines() if line.startswith("Pss:"))
        return int(pss.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def seconds_each(operation, comm, least: float) -> float:
    """Return seconds per call, from as many calls (known to all ranks) as last ``least``."""
    calls = 1
    while True:
        comm.Barrier()
        start = time.perf_counter()
        for _ in range(calls):
            operation()
        took = comm.bcast(time.perf_counter() - start)
        if took >= least:
            return took / calls
        calls *= 2


def on_a_rank(kilobytes: int) -> None:
    """Measure, as one of the ranks; rank 0 prints the figures as one line of JSON."""
    import numpy as np
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    comm.Barrier()
    started = time.time() - float(os.environ[LAUNCHED])

    p, r = comm.size, comm.rank
    x = np.ones(kilobytes * 256, dtype=np.float32)
    cut = [len(x) * b // p for b in range(p + 1)]
    blocks = [x[cut[b] : cut[b + 1]] for b in range(p)]
    turn = itertools.count()
    incoming = np.empty(len(x) // p + 1, dtype=np.float32)

    def ring() -> None:
        x[:] = 1
        right, left = (r + 1) % p, (r - 1) % p
        for hop in range(1, p):
            gone, came = blocks[(r - hop) % p], blocks[(r - hop - 1) % p]
            comm.Sendrecv(gone, right, recvbuf=incoming[: len(came)], source=left)
            came += incoming[: len(came)]
        for hop in range(p - 1):
            gone, came = blocks[(r - hop) % p], blocks[(r - hop - 1) % p]
            comm.Sendrecv(gone, right, recvbuf=came, source=left)

    def native() -> None:
        x[:] = 1
        comm.Allreduce(MPI.IN_PLACE, x)

    w, y, z = (np.ones((256, 256), dtype=np.float32) for _ in range(3))

    def step() -> None:
        for _ in range(20 + (r + next(turn)) % 4):  # the ranks are ready at different times
            np.matmul(w, y, out=z)
        ring()

    for allreduce in (ring, native):
        allreduce()
        assert (x == p).all(), allreduce
    figures = {
        "start": started,
        "barrier": seconds_each(comm.Barrier, comm, 0.2) * 1e6,
        "ring": seconds_each(ring, comm, 0.5) * 1e3,
        "native": seconds_each(native, comm, 0.5) * 1e3,
        "step": seconds_each(step, comm, 1.0) * 1e3,
        "memory": comm.allreduce(memory()) / p,
    }
    if r == 0:
        library = MPI.Get_library_version().replace("\0", "").splitlines()[0].split(",")[0]
        print(json.dumps({"library": " ".join(library.split()), **figures}), flush=True)


def launch(environment: Path, ranks: int, kilobytes: int, limit: float) -> dict:
    """Run one measurement; return its figures, or {"failed": why}."""
    python = environment / "bin" / "python"
    command = [environment / "bin" / "mpiexec", "-n", ranks, python, "-m", "mpi4py", __file__]
    command += ["--on-a-rank", "--kilobytes", kilobytes]
    start = time.time()
    ours = {**os.environ, LAUNCHED: repr(start)}
    run = subprocess.Popen(
        [str(word) for word in command],
        env=ours,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = run.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        run.terminate()  # the launcher ends its ranks
        run.communicate()
        return {"failed": f"not done in {limit:.0f} s"}
    if run.returncode:
        lines = [line for line in err.splitlines() if line.strip("- ")]
        return {"failed": f"exit {run.returncode}: " + " ".join(lines)[:120]}
    return {**json.loads(out.splitlines()[-1]), "whole": time.time() - start}


def environment_variables(settings: list[str]) -> dict[str, str]:
    """Return what run_mpi.sh sets as well, and the --set NAME=VALUE."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    open_mpi = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
        "PRTE_MCA_hwloc_default_binding_policy": "none",
        "OMPI_MCA_btl": "self,sm",
    }
    return {**threads, **open_mpi, **dict(setting.split("=", 1) for setting in settings)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environments", nargs="*", type=Path, metavar="ENVIRONMENT")
    parser.add_argument("--ranks", default="2,8,32,128", help="numbers of ranks (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kilobytes", type=int, default=1024, help="ring all-reduce (1024)")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one run (60)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--on-a-rank", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.on_a_rank:
        return on_a_rank(given.kilobytes)
    if not given.environments:
        parser.error("name at least one environment folder, e.g. .venv")
    os.environ.update(environment_variables(given.set))

    print(f"{os.cpu_count()} cores, ring of {given.kilobytes} KB; {' '.join(given.set)}")
    for ranks in map(int, given.ranks.split(",")):
        runs: dict[Path, list[dict]] = {where: [] for where in given.environments}
        for _ in range(given.repeats):
            for where in given.environments:
                runs[where].append(launch(where, ranks, given.kilobytes, given.limit))
        for where, results in runs.items():
            done = [result for result in results if "failed" not in result]
            for result in results:
                if "failed" in result:
                    print(f"{ranks:4d} ranks  {where}: {result['failed']}", flush=True)
            if done:
                cells = []
                for name, unit in FIGURES.items():
                    values = sorted(result[name] for result in done)
                    cells.append(
                        f"{name} {median(values):.4g} {unit} ({values[0]:.3g}-{values[-1]:.3g})"
                    )
                print(f"{ranks:4d} ranks  {done[0]['library']:24s}", "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
