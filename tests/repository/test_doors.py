"""What stands at the top for people and machines that come from a code host is true."""

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest

import refimpl

TOP = Path(__file__).resolve().parents[2]
CONFIG = configparser.ConfigParser()
CONFIG.read(TOP / "setup.cfg")
MATRIX = (TOP / ".github/workflows/ci.yml").read_text()
CELL = (TOP / ".ci/cell").read_text()


def test_what_is_cited_is_this_version_by_these_authors_under_this_license():
    cited = dict(
        re.findall(r'^ *(?:- )?([\w-]+): "?(.+?)"?$', (TOP / "CITATION.cff").read_text(), re.M)
    )
    metadata = CONFIG["metadata"]
    assert (cited["version"], cited["license"]) == (refimpl.__version__, metadata["license"])
    assert cited["name"] == metadata["author"]


def axis(name):
    """Return the values on an axis of the matrix."""
    (values,) = re.findall(rf"^ +{name}: \[(.*)\]$", MATRIX, re.M)
    return [value.strip('"') for value in values.split(", ")]


def test_the_matrix_begins_with_the_oldest_python_that_is_allowed_and_leaves_none_out():
    least = int(CONFIG["options"]["python_requires"].removeprefix(">=3."))
    assert axis("python") == [f"3.{minor}" for minor in range(least, least + 5)]


def test_the_cells_of_the_matrix_call_the_tests_as_the_readme_does():
    assert "run: .ci/cell python ${{ matrix.mpi }}\n" in MATRIX
    assert "    $ ./run_mpi.sh test\n" in (TOP / "README.md").read_text()
    assert CELL.endswith('exec ./run_mpi.sh test "$@"\n')
    assert CONFIG["options.extras_require"].keys() >= {*axis("mpi")} - {"intel"}
    assert "25 cells" in MATRIX
    assert len(axis("os")) * len(axis("python")) * len(axis("mpi")) - len(axis("python")) == 25


@pytest.mark.parametrize(
    "words, culprit",
    [
        ([], "usage: .ci/cell PYTHON"),
        (["python9.9", "mpich"], "no Python python9.9"),
        (["python3", "lam"], "no MPI lam"),
    ],
)
def test_a_cell_that_cannot_be_is_one_line(words, culprit):
    run = subprocess.run([TOP / ".ci/cell", *words], capture_output=True, text=True)
    assert run.returncode == 2 and culprit in run.stderr and run.stderr.count("\n") == 1


def test_what_ci_calls_can_be_executed():
    for name in ("run", "cell"):
        assert os.access(TOP / ".ci" / name, os.X_OK)
