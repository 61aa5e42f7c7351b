"""Starting refimpl and MPI ranks as processes of their own, as a user does."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
BESIDE_PYTHON = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
MPIEXEC = shlex.split(os.environ.get("REFIMPL_TEST_MPIEXEC", "")) or [
    shutil.which("mpiexec", path=BESIDE_PYTHON)
]

REFIMPL = [sys.executable, "-m", "mpi4py", "-m", "refimpl"]

# What run_mpi.sh sets; here for a pytest that it did not start.
SURROUNDINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "true",
    "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
}


def launched(ranks, *arguments, **how):
    """Run refimpl on so many ranks (1: without a launcher) in a process of its own."""
    one = [*REFIMPL, *map(str, arguments)]
    return ran(one if ranks == 1 else [*MPIEXEC, "-n", str(ranks), *one], **how)


def apart(*ranks, **how):
    """Run refimpl on as many ranks as there are lists of arguments, each with its own."""
    command = []
    for arguments in ranks:
        command += [":", "-n", "1", *REFIMPL, *map(str, arguments)]
    return ran([*MPIEXEC, *command[1:]], **how)


def ran(command, cwd=None, timeout=120):
    """Run a command in the surroundings that run_mpi.sh makes; return how it ended."""
    environment = SURROUNDINGS | os.environ
    environment["PYTHONPATH"] = os.pathsep.join(
        [
            str(CHECKOUT),
            os.environ.get("PYTHONPATH", ""),
        ]
    )
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=timeout, env=environment
    )


needs_mpiexec = pytest.mark.skipif(MPIEXEC == [None], reason="no mpiexec on PATH")
