"""Run each test at every world size up to that of the mpiexec that started us.

`world` is a `Communicator`.  For n = 1, 2, ... COMM_WORLD is cut into worlds of n ranks (the
last may be smaller) and all of them run the test side by side, so code that talks to COMM_WORLD
instead of the communicator it was given fails, and no rank is ever left without a test to run.

    mpiexec -n 6 python -m mpi4py -m pytest tests/parallel               worlds of 1 to 6 ranks
    mpiexec -n 8 python -m mpi4py -m pytest tests/parallel --worlds 7,8  only those
"""

import shutil
import tempfile
from pathlib import Path

import pytest
from mpi4py import MPI

from refimpl.world.communicator import Communicator


def pytest_addoption(parser):
    parser.addoption("--worlds", help="world sizes to run, e.g. 2,3; by default all")


def pytest_generate_tests(metafunc):
    if "world" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--worlds")
        every = range(1, MPI.COMM_WORLD.size + 1)
        sizes = [int(size) for size in chosen.split(",")] if chosen else every
        assert set(sizes) <= set(every), f"--worlds {chosen} on {MPI.COMM_WORLD.size} ranks"
        metafunc.parametrize("world", sizes, indirect=True, ids=lambda n: f"world={n}")


@pytest.fixture
def world(request):
    part = MPI.COMM_WORLD.Split(MPI.COMM_WORLD.rank // request.param)
    comm = Communicator(part)
    yield comm
    comm.free()
    part.Free()


@pytest.fixture
def folder(world):
    """An empty folder that all ranks of the world see."""
    path = world.bcast_object(tempfile.mkdtemp() if world.rank == 0 else None)
    yield Path(path)
    world.barrier()
    if world.rank == 0:
        shutil.rmtree(path)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Give every rank the same verdict: one rank's failure (or skip) is the test's on all."""
    mine = None
    try:
        yield
    except BaseException as error:
        mine = error
    failed = [r for r, bad in enumerate(MPI.COMM_WORLD.allgather(mine is not None)) if bad]
    if mine is not None:
        raise mine
    if failed:
        pytest.fail(f"passed on this rank, failed on ranks {failed}", pytrace=False)
    return True
