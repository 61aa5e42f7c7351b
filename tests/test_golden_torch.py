"""PyTorch passes all of the ladder that it can express: the values are right, not merely ours.

One program (tests/oracle/torch_golden.py) reads the committed bundles and writes what torch makes
of them: layers by autograd, its optimizers, BMUF as an outer SGD with Nesterov's momentum, DDP,
FSDP2 and hybrid sharding over gloo on 1, 2 and 4 processes.

Needs torch (extra [oracle]) here, or in the Python that REFIMPL_TORCH_PYTHON names.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_golden import GOLDEN

from refimpl.golden import check

PYTHON = os.environ.get("REFIMPL_TORCH_PYTHON") or (sys.executable if find_spec("torch") else None)
pytestmark = pytest.mark.skipif(
    PYTHON is None,
    reason="torch is not installed: extra [oracle], or REFIMPL_TORCH_PYTHON=a Python that has it",
)

PROGRAM = Path(__file__).parent / "oracle" / "torch_golden.py"
LIMIT = 400


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    run = subprocess.run(
        [PYTHON, PROGRAM, GOLDEN, folder, "1,2,4"],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return folder


@pytest.mark.parametrize(
    "pattern, cases",
    [
        ("collectives.ring/*.n[124].[tu]*", 18),
        ("collectives.tree/*.n[124].[tu]*", 18),
        ("blocks.*", 12),
        ("layers", 13),
        ("optimizers/optimizer.*", 15),
        ("optimizers/clipping.*", 3),
        ("*-step*.network/*", 6),
        ("*-step*.serial", 2),
        ("*-step*.ddp/n[124]*", 7),
        ("*-step*.zero[23]/n[124]*", 13),
        ("*-step*.mics/n[124]*", 7),
        ("*-step*.bmuf/n[124]*", 6),
    ],
)
def test_torch_gives_the_golden_values(theirs, pattern, cases):
    report = check.Report(list(check.folders(theirs, check.loaded(GOLDEN), pattern)))
    assert report.right, report.summary()
    assert len({(line.bundle, line.case) for line in report.lines}) == cases
