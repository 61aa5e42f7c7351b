"""The committed bundles, and other people's frameworks as witnesses of them.

A framework need not be installed here: a variable may name another Python that has it.  Programs
for it are in tests/oracle.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from refimpl.golden import Report, check

GOLDEN = Path(__file__).parents[1] / "golden"
PROGRAMS = Path(__file__).parents[1] / "oracle"
LIMIT = 400  # seconds, most of which frameworks take to start
TORCH, JAX = (
    os.environ.get(f"REFIMPL_{name.upper()}_PYTHON")
    or (sys.executable if find_spec(name) else None)
    for name in ("torch", "jax")
)
needs_torch = pytest.mark.skipif(
    TORCH is None,
    reason="torch is not installed: extra [oracle], or REFIMPL_TORCH_PYTHON=a Python that has it",
)
needs_jax = pytest.mark.skipif(
    JAX is None,
    reason="jax is not installed: pip install jax, or REFIMPL_JAX_PYTHON=a Python that has it",
)


def differing(folder):
    """Return the files that are not the same in a folder and among the committed bundles."""
    ours, theirs = (
        {file.relative_to(root): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (GOLDEN, folder)
    )
    return sorted(file for file in ours | theirs if ours.get(file) != theirs.get(file))


def answers(python, program, theirs, *more):
    """Have a program answer the committed bundles; return the folder with its arrays."""
    run = subprocess.run(
        [python, PROGRAMS / program, GOLDEN, theirs, *more],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return theirs


def compared(theirs, pattern, cases):
    """Check that all required arrays of so many cases are there and right; return the lines."""
    report = Report(list(check.folders(theirs, check.loaded(GOLDEN), pattern)))
    assert report.right, report.summary()
    assert len({(line.bundle, line.case) for line in report.lines}) == cases
    return report.lines
