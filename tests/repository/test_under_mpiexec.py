"""The tests in tests/parallel, on several ranks: a bare `pytest` runs them too.

This process never imports MPI: a process that has started MPI may not start another.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launch import MPIEXEC, SURROUNDINGS

PARALLEL = Path(__file__).parents[1] / "parallel"

# Every rank is a pytest: what these tests have no use for costs each of them half a second.
PLAIN = ["-q", "-p", "no:hypothesispytest", "-p", "no:cacheprovider"]

pytestmark = pytest.mark.skipif(MPIEXEC == [None], reason="no mpiexec on PATH")


def pytest_on(ranks, *args, limit=400):
    """Run pytest on that many ranks; return its exit code and all that they printed."""
    rank = [sys.executable, "-m", "mpi4py", "-m", "pytest", *PLAIN, *args]
    run = subprocess.run(
        [str(word) for word in [*MPIEXEC, "-n", ranks, *rank]],
        env=SURROUNDINGS | os.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=limit,
    )
    return run.returncode, run.stdout


@pytest.fixture
def folder(tmp_path):
    """A folder with the conftest of the parallel tests and room for one test."""
    shutil.copy(PARALLEL / "conftest.py", tmp_path)
    return tmp_path


# A test that is stuck for two minutes is a deadlock: every rank shows where it stands.
STUCK = ("-o", "faulthandler_timeout=120", "-o", "faulthandler_exit_on_timeout=true")


# Worlds beside others (3 + 1, 6 + 2) and as the whole of COMM_WORLD.  What all numbers of ranks
# have to show is shown with threads for ranks; here, where ranks share few cores, MPI's own part
# in it: everything on 4 ranks, messages and deaths on 1 and 3, what is marked `wide` on 6 and 8.
def test_collectives_and_communicators_pass_on_one_rank():
    files = [PARALLEL / f"test_{name}.py" for name in ("collectives", "communicator")]
    code, output = pytest_on(1, *STUCK, *files)
    assert code == 0, output[-6000:]


def test_communicators_and_deaths_pass_on_three_ranks():
    files = [PARALLEL / f"test_{name}.py" for name in ("communicator", "mortals", "agreement")]
    code, output = pytest_on(4, *STUCK, *files, "--worlds", "3")
    assert code == 0, output[-6000:]


def test_parallel_suite_passes_on_four_ranks():
    code, output = pytest_on(4, *STUCK, PARALLEL, "--worlds", "4")
    assert code == 0, output[-6000:]


def test_parallel_suite_passes_on_six_and_eight_ranks_where_it_is_wide():
    wide = [file for file in PARALLEL.glob("test_*.py") if "pytest.mark.wide" in file.read_text()]
    code, output = pytest_on(8, *STUCK, *wide, "-m", "wide", "--worlds", "6,8")
    assert code == 0, output[-6000:]


@pytest.mark.skipif("REFIMPL_MPI" not in os.environ, reason="the longer launches cover it")
def test_collectives_pass_on_the_other_mpi():
    code, output = pytest_on(4, *STUCK, PARALLEL / "test_collectives.py", "--worlds", "4")
    assert code == 0, output[-6000:]


@pytest.mark.skipif("REFIMPL_MPI" not in os.environ, reason="the longer launches cover it")
def test_golden_values_are_computed_on_the_other_mpi():
    code, output = pytest_on(8, *STUCK, PARALLEL / "test_golden.py", "-m", "wide", "--worlds", "8")
    assert code == 0, output[-6000:]


def test_one_ranks_failure_fails_the_test_on_all(folder):
    (folder / "test_one.py").write_text(
        "def test_one(world):\n    assert world.mpi.rank != 1 or world.size < 2\n"
    )
    code, output = pytest_on(2, folder)
    assert code != 0
    assert "passed on this rank, failed on ranks [1]" in output


def test_a_rank_that_fails_while_the_others_wait_for_it_says_why_and_ends_them(folder):
    (folder / "test_alone.py").write_text(
        "def test_alone(world):\n"
        "    assert world.mpi.rank != 1 or world.size < 2, 'what went wrong'\n"
        "    world.mpi.Barrier()\n"
    )
    code, output = pytest_on(2, folder, "--patience", "0.5", limit=60)
    assert code != 0
    assert "test_alone[world=2]: failed on rank 1" in output
    assert "AssertionError: what went wrong" in output


def test_deadlock_ends_with_a_stack_that_shows_where(folder):
    (folder / "test_stuck.py").write_text(
        "import faulthandler\n"
        "def test_stuck(world):\n"
        "    if world.rank == 0 and world.size > 1:\n"
        "        world.mpi.Barrier()  # nobody else comes\n"
        "    elif world.size > 1:\n"
        "        faulthandler.cancel_dump_traceback_later()  # two stacks at once would mix\n"
    )
    soon = ["-o", "faulthandler_timeout=5", "-o", "faulthandler_exit_on_timeout=true"]
    code, output = pytest_on(2, *soon, folder, limit=100)
    assert code != 0
    assert "test_stuck.py" in output
    assert "line 4 in test_stuck" in output
