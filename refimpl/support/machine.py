"""What one process sees of its machine: versions, BLAS threads, cores, limits, the scheduler.

Nothing here starts MPI or writes a file.  What it means is judged in `refimpl.cli.doctor`.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from refimpl.support.errors import told
from refimpl.support.surroundings import numbers

# Which variable tells a BLAS its threads, before OMP_NUM_THREADS does.
THREADS = {
    "openblas": "OPENBLAS_NUM_THREADS",
    "mkl": "MKL_NUM_THREADS",
    "blis": "BLIS_NUM_THREADS",
    "accelerate": "VECLIB_MAXIMUM_THREADS",
}

# What a batch system tells a job; the first is there in every job.
SCHEDULERS = {
    "SLURM": (
        *("SLURM_JOB_ID", "SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "SLURM_TASKS_PER_NODE"),
        *("SLURM_CPUS_PER_TASK", "SLURM_STEP_ID", "SLURM_MPI_TYPE"),
    ),
    "PBS": ("PBS_JOBID", "PBS_NODEFILE"),
    "LSF": ("LSB_JOBID", "LSB_DJOB_NUMPROC", "LSB_DJOB_HOSTFILE"),
}

# How `mpiexec --version` of each family begins to be told; MPICH's and Intel's start each other's
# ranks, Open MPI's nobody else's (tried).
FAMILIES = (
    ("Intel(R) MPI", "Intel MPI"),
    ("HYDRA", "MPICH"),
    ("Open MPI", "Open MPI"),
    ("OpenRTE", "Open MPI"),
    ("prte", "Open MPI"),
    ("slurm", "SLURM"),
)

# Asks mpi4py for its MPI without starting it, in a process of its own: a broken one may crash.
PROBE = """
import sys; sys.path = [folder for folder in sys.path if folder]
import json, mpi4py
mpi4py.rc.initialize = False
from mpi4py import MPI
name, version = MPI.get_vendor()
print(json.dumps(name + " " + ".".join(map(str, version))))
"""


@dataclass(frozen=True)
class Machine:
    """What a process sees of its machine.

    Attributes
    ----------
    versions : dict
        Of numpy, scipy and mpi4py; "" if it is not installed as a package.
    old : tuple of str
        What is older than refimpl needs, in words.
    blas, threads : str, int
        NumPy's BLAS, and how many threads a process of it may start.
    cores : frozenset of int
        The cores that this process may run on.
    quota : float or None
        Of how many cores a container has the time, if that is limited.
    shared : tuple of int or None
        Free and total bytes of /dev/shm; None where there is none (macOS).
    cache, unwritable : str, str
        The cache folder; why nothing can be written there, or "".
    files : int or None
        How many files may be open at once; None if any number.
    job : dict
        The variables of the batch system's job, its name under ""; empty outside one.
    """

    host: str
    system: str
    python: str
    versions: dict[str, str]
    old: tuple[str, ...]
    blas: str
    threads: int
    cores: frozenset[int]
    quota: float | None
    shared: tuple[int, int] | None
    cache: str
    unwritable: str
    files: int | None
    job: dict[str, str]


def look(
    environ: Mapping[str, str], cache: Path, shm: str = "/dev/shm", cgroup: str = "/sys/fs/cgroup"
) -> Machine:
    """Return what this process sees, under these variables."""
    versions = {name: version_of(name) for name in ("numpy", "scipy", "mpi4py")}
    cores = usable_cores()
    blas = blas_name()
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    shared = shutil.disk_usage(shm) if os.path.isdir(shm) else None
    return Machine(
        host=os.uname().nodename,
        system=f"{os.uname().sysname} {os.uname().machine}",
        python=f"{'.'.join(map(str, sys.version_info[:3]))} {sys.executable}",
        versions=versions,
        old=tuple(outdated(versions)),
        blas=blas,
        threads=blas_threads(blas, environ, len(cores)),
        cores=cores,
        quota=cpu_quota(Path(cgroup)),
        shared=None if shared is None else (shared.free, shared.total),
        cache=str(cache),
        unwritable=unwritable(cache),
        files=None if soft == resource.RLIM_INFINITY else soft,
        job=job_of(environ),
    )


def version_of(name: str) -> str:
    """Return the version of an installed package, or ""."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def outdated(versions: Mapping[str, str]) -> list[str]:
    """Return what is older than the installed refimpl says that it needs, in words."""
    try:
        needed = metadata.requires("refimpl") or []
    except metadata.PackageNotFoundError:  # a checkout on the path; run_mpi.sh has looked
        needed = []
    bounds = [line.split(">=") for line in needed if re.match(r"[\w-]+>=[\d.]+$", line)]
    return [
        f"{name} {versions[name]} is too old, {least} or newer is needed"
        for name, least in bounds
        if versions.get(name) and numbers(versions[name]) < numbers(least)
    ]


def usable_cores() -> frozenset[int]:
    """Return the cores that this process may run on; all, where no system call tells (macOS)."""
    if sys.platform == "linux":
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def cpu_quota(cgroup: Path) -> float | None:
    """Return of how many cores this container has the time; None if of all."""
    try:
        if (cgroup / "cpu.max").exists():
            limit, each = (cgroup / "cpu.max").read_text().split()
        else:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text()
            each = (cgroup / "cpu/cpu.cfs_period_us").read_text()
        return int(limit) / int(each) if int(limit) > 0 else None
    except (OSError, ValueError):  # "max", or no limits of this kind here
        return None


def blas_name() -> str:
    """Return name and version of the BLAS that NumPy was built with."""
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {})
    return f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()


def blas_threads(blas: str, environ: Mapping[str, str], cores: int) -> int:
    """Return how many threads this BLAS starts in a process: as told, else one for each core."""
    own = [variable for name, variable in THREADS.items() if name in blas.lower()]
    for variable in (*own, "OMP_NUM_THREADS"):
        told_threads = environ.get(variable, "").partition(",")[0].strip()
        if told_threads.isdecimal() and int(told_threads) > 0:
            return int(told_threads)
    return cores


def unwritable(folder: Path) -> str:
    """Return why nothing can be written to a folder that may have to be made; "" if it can."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        return f"{there} is not a folder"
    return "" if os.access(there, os.W_OK | os.X_OK) else f"{there} may not be written"


def job_of(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the batch system's job that this process is in; {} outside one."""
    for name, variables in SCHEDULERS.items():
        if environ.get(variables[0]):
            return {"": name} | {key: environ[key] for key in variables if key in environ}
    return {}


@dataclass(frozen=True)
class Launcher:
    """What would start ranks here: its path, how it was found, whose it is; or what is wrong."""

    path: str = ""
    found: str = ""
    family: str = ""
    wrong: str = ""


def launcher(environ: Mapping[str, str], beside: Path | None = None) -> Launcher:
    """Return what run_mpi.sh would take: MPIEXEC, srun in its job, else mpiexec, ours first."""
    path = environ.get("PATH", "")
    if environ.get("MPIEXEC"):
        whole = environ["MPIEXEC"]
        words = [whole] if shutil.which(whole, path=path) else whole.split() or [whole]
        there = shutil.which(words[0], path=path)
        if there is None:
            return Launcher(wrong=f"MPIEXEC={whole}: there is no command {words[0]}: correct it")
        return Launcher(there, "named by MPIEXEC", family(there))
    srun = shutil.which("srun", path=path)
    if environ.get("SLURM_JOB_ID") and srun:
        return Launcher(srun, "in a job of SLURM", "SLURM")
    ours = shutil.which("mpiexec", path=str(beside or Path(sys.executable).parent))
    if ours:
        return Launcher(ours, "beside Python", family(ours))
    there = shutil.which("mpiexec", path=path)
    if there:
        return Launcher(there, "on PATH", family(there))
    return Launcher(
        wrong="there is no mpiexec beside Python or on PATH: install an MPI (pip install mpich), "
        "load its module, or name its launcher with MPIEXEC"
    )


def family(path: str) -> str:
    """Return whose launcher this is, by what its ``--version`` says; "" if that tells nothing."""
    try:
        run = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    said = run.stdout + run.stderr
    return next((name for mark, name in FAMILIES if mark in said), "")


def probed(python: str = sys.executable) -> tuple[str, str]:
    """Return name and version of the MPI that mpi4py finds, and why it finds none: one is ""."""
    try:
        run = subprocess.run(
            [python, "-c", PROBE], capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", told(error)
    if run.returncode < 0:
        return "", f"it is killed by signal {-run.returncode} as it is loaded"
    if run.returncode:
        return "", ([line for line in run.stderr.splitlines() if line.strip()] or ["?"])[-1]
    return str(json.loads(run.stdout)), ""
