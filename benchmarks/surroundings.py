"""The environment variables of measured ranks: one thread each, and what run_mpi.sh sets."""

import os
from pathlib import Path

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
    "PRTE_MCA_hwloc_default_binding_policy": "none",
    "OMPI_MCA_btl": "self,sm",
}


def surroundings() -> dict[str, str]:
    """Return them, and a path on which ranks find this checkout."""
    checkout, given = str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")
    path = (checkout + os.pathsep + given).rstrip(os.pathsep)
    return {**dict.fromkeys(THREADS, "1"), **OPEN_MPI, "PYTHONPATH": path}
