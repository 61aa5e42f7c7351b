"""``python -m refimpl``, and the console script ``refimpl``."""

import sys

from refimpl.cli import main
from refimpl.cli.base import started


def leave(code: int) -> int:
    """Return the exit code; one rank alone leaves MPI first, or its code would be an abort's."""
    mpi = started()
    if code and mpi is not None and mpi.COMM_WORLD.size == 1:
        mpi.Finalize()
    return code


if __name__ == "__main__":
    sys.path.append("")  # last: model files may import what lies in the folder one works in
    raise SystemExit(leave(main()))
