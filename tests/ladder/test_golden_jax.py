"""JAX passes the layers, the optimizers and the networks: a second witness, by jax.vjp.

In float64, rounded once, it must give the very bits: the values are the float32 numbers nearest
to the true ones, as docs/golden.md says.  In float32 it must keep to the rules.  Adam alone is
asked in float64 only: the one of JAX's examples computes 1 - beta^t in float32 and loses digits,
as the chapter shows.

Needs jax here, or in the Python that REFIMPL_JAX_PYTHON names.
"""

import pytest
from witness import GOLDEN, JAX, answers, compared, needs_jax

from refimpl.golden import check

pytestmark = needs_jax


@pytest.fixture(scope="module")
def float32(tmp_path_factory):
    return answers(JAX, "jax_golden.py", tmp_path_factory.mktemp("jax"), "float32")


@pytest.fixture(scope="module")
def float64(tmp_path_factory):
    return answers(JAX, "jax_golden.py", tmp_path_factory.mktemp("jax"), "float64")


@pytest.mark.parametrize(
    "pattern, cases",
    [
        ("layers", 13),
        ("optimizers/optimizer.[mns]*", 11),
        ("optimizers/clipping.*", 3),
        ("*-step*.network/*", 6),
    ],
)
def test_jax_in_float32_gives_the_golden_values(float32, pattern, cases):
    compared(float32, pattern, cases)


def test_what_jaxs_adam_loses_in_float32_is_in_the_parameters_alone(float32):
    for line in check.folders(float32, check.loaded(GOLDEN), "optimizers/optimizer.adam*"):
        assert line.right or line.array == "w_after", line


@pytest.mark.parametrize(
    "pattern, cases",
    [
        ("layers", 13),
        ("optimizers/optimizer.*", 15),
        ("optimizers/clipping.*", 3),
        ("*-step*.network/*", 6),
    ],
)
def test_jax_in_float64_rounded_once_gives_the_very_numbers(float64, pattern, cases):
    for line in compared(float64, pattern, cases):
        assert line.text.startswith(("equal bits", "within 0 of ")), line
