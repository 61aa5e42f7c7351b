"""Places for run_mpi.sh, whose launchers and Pythons are fakes: nothing is installed."""

import sys

import pytest
from place import CHECKOUT, EXISTING_PYTHON, FAKE_PYTHON, FITTING_PYTHON, Place, needs_mpi4py


@pytest.fixture
def place(tmp_path):
    if not (CHECKOUT / "run_mpi.sh").exists():
        pytest.skip("an installed refimpl has no run_mpi.sh")
    pytest.importorskip("scipy", reason="run_mpi.sh would set up an environment")
    return Place(tmp_path)


@pytest.fixture
def fake(place):
    """A place whose MPIEXEC is a fake; the interpreter at hand is used, without being asked."""
    needs_mpi4py(place)
    place.command("python3", FITTING_PYTHON % sys.executable)
    launcher = place.launcher("my launcher")

    def run(*words, **variables):
        return place.run(*words, **{"MPIEXEC": str(launcher), **variables})

    return place, run


@pytest.fixture
def existing(place):
    """A place with a Python that claims to have all modules and a recorder for mpiexec."""
    place.command("python3", EXISTING_PYTHON % sys.executable)
    place.launcher("mpiexec")

    def run(*words, **variables):
        return place.run(*words, **variables)

    return place, run


@pytest.fixture
def bare(place):
    """A place with a Python that has no mpi4py, and whose pip writes a line into a log."""
    place.command("python3", FAKE_PYTHON)
    place.log = place.checkout.parent / "log"

    def run(*words, **variables):
        return place.run(*words, LOG=str(place.log), **variables)

    return place, run
