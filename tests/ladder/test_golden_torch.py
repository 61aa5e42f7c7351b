"""PyTorch passes all of the ladder that it can express: the values are right, not merely ours.

One program (tests/oracle/torch_golden.py) reads the committed bundles and writes what torch makes
of them: layers by autograd, its optimizers, BMUF as an outer SGD with Nesterov's momentum, DDP,
FSDP2 and hybrid sharding over gloo on 1, 2 and 4 processes.

Needs torch (extra [oracle]) here, or in the Python that REFIMPL_TORCH_PYTHON names.
"""

import pytest
from witness import TORCH, answers, compared, needs_torch

pytestmark = needs_torch


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    return answers(TORCH, "torch_golden.py", tmp_path_factory.mktemp("torch"), "1,2,4")


@pytest.mark.parametrize(
    "pattern, cases",
    [
        ("collectives.ring/*.n[124].[tu]*", 18),
        ("collectives.tree/*.n[124].[tu]*", 18),
        ("blocks.*", 17),
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
    compared(theirs, pattern, cases)
