"""Run each test at every world size up to that of the mpiexec that started us.

`world` is a `Communicator`.  For n = 1, 2, ... COMM_WORLD is cut into worlds of n ranks (the
last may be smaller) and all of them run the test side by side, so code that talks to COMM_WORLD
instead of the communicator it was given fails, and no rank is ever left without a test to run.

    mpiexec -n 6 python -m mpi4py -m pytest tests/parallel               worlds of 1 to 6 ranks
    mpiexec -n 8 python -m mpi4py -m pytest tests/parallel --worlds 7,8  only those

A test of what does not depend on the world is marked ``once``: the largest world runs it.  One
that is worth more than four ranks is marked ``wide`` (`-m wide` selects these).
"""

import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

import pytest
from mpi4py import MPI

from refimpl.world.communicator import Communicator


def pytest_addoption(parser):
    parser.addoption("--worlds", help="world sizes to run, e.g. 2,3; by default all")
    parser.addoption(
        "--patience", type=float, default=60, help="seconds that a rank that failed waits"
    )


def pytest_configure(config):
    config.addinivalue_line("markers", "once: run by the largest of the worlds only")
    config.addinivalue_line("markers", "wide: worth more than four ranks")


def pytest_generate_tests(metafunc):
    if "world" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--worlds")
        every = range(1, MPI.COMM_WORLD.size + 1)
        sizes = [int(size) for size in chosen.split(",")] if chosen else every
        assert set(sizes) <= set(every), f"--worlds {chosen} on {MPI.COMM_WORLD.size} ranks"
        metafunc.parametrize("world", sizes, indirect=True, ids=lambda n: f"world={n}")


def pytest_collection_modifyitems(config, items):
    """Leave a test marked ``once`` to the largest world."""
    largest = max((world_of(item) for item in items), default=0)
    spared = [i for i in items if i.get_closest_marker("once") and world_of(i) < largest]
    config.hook.pytest_deselected(items=spared)
    items[:] = [item for item in items if item not in spared]


def world_of(item):
    return item.callspec.params.get("world", 0) if hasattr(item, "callspec") else 0


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
    """Give every rank the same verdict: one rank's failure (or skip) is the test's on all.

    A rank that failed waits some seconds for the others, who may wait for a message of its own:
    then it says what went wrong and ends all of them.
    """
    mine = None
    try:
        yield
    except BaseException as error:
        mine = error
    here = MPI.COMM_WORLD.Ibarrier()
    if mine is None:
        here.Wait()
    end = time.monotonic() + pyfuncitem.config.getoption("--patience")
    while not here.Test():
        if time.monotonic() > end:
            capture = pyfuncitem.config.pluginmanager.getplugin("capturemanager")
            with capture.global_and_fixture_disabled():
                what = "".join(traceback.format_exception(mine))
                rank = MPI.COMM_WORLD.rank
                print(f"{pyfuncitem.nodeid}: failed on rank {rank}:\n{what}", file=sys.stderr)
                time.sleep(1)  # a launcher that ends all ranks may drop what it has not read yet
            MPI.COMM_WORLD.Abort(1)
        time.sleep(0.01)
    failed = [r for r, bad in enumerate(MPI.COMM_WORLD.allgather(mine is not None)) if bad]
    if mine is not None:
        raise mine
    if failed:
        pytest.fail(f"passed on this rank, failed on ranks {failed}", pytrace=False)
    return True
