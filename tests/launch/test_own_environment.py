"""run_mpi.sh takes the environment that is there if it fits, or makes its own."""

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from place import FAKE_PYTHON, OTHER_PYTHON, needs_mpi4py


def test_environment_that_is_there_is_used_as_it_is(place, tmp_path):
    needs_mpi4py(place)
    mpiexec = shutil.which("mpiexec", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if mpiexec is None:
        pytest.skip("no mpiexec on PATH")
    place.command("mpiexec", f'exec "{mpiexec}" "$@"')
    place.package(
        "import sys\n"
        "from mpi4py import MPI\n"
        "said = MPI.COMM_WORLD.gather(sys.argv[1:])\n"
        "if MPI.COMM_WORLD.rank == 0:\n"
        "    print(said)\n"
    )
    done = place.run("-n", "2", "train", "mlp", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[['train', 'mlp'], ['train', 'mlp']]\n"
    assert not (place.checkout / ".venv").exists()


@pytest.fixture
def old(bare, tmp_path):
    """Return what puts a module of some version into the Python at hand, whose pip is a fake."""
    modules = tmp_path / "modules"
    place, run = bare
    place.command("python3", OTHER_PYTHON % (sys.executable, FAKE_PYTHON))

    def with_versions(*words, mpi="", variables=(), **versions):
        for name, version in {
            "mpi4py": "4.1.0",
            "numpy": "2.1",
            "scipy": "1.14",
            **versions,
        }.items():
            (modules / name).mkdir(parents=True, exist_ok=True)
            (modules / name / "__init__.py").write_text(
                f"__version__ = {version!r}\nclass rc: pass\n"
            )
        (modules / "mpi4py" / "MPI.py").write_text(mpi)
        return run(*words, MODULES=str(modules), **dict(variables))

    return place, with_versions


@pytest.mark.parametrize("job", [{}, {"SLURM_JOB_ID": "7"}])
@pytest.mark.parametrize(
    "versions, reason",
    [
        ({"mpi4py": "3.1.4"}, "mpi4py 3.1.4 is too old, 4.0 or newer is needed"),
        ({"numpy": "1.26.4"}, "numpy 1.26.4 is too old, 2.0 or newer is needed"),
        ({"scipy": "1.9.0rc2"}, "scipy 1.9.0rc2 is too old, 1.13 or newer is needed"),
        ({"mpi": "raise ImportError('libmpi.so.12: no such file')"}, "libmpi.so.12: no such file"),
    ],
)
def test_environment_with_unfit_versions_is_named_once_and_not_used(old, job, versions, reason):
    place, run = old
    place.launcher("srun")
    place.launcher("mpiexec")
    done = run("-n", "2", "train", "mlp", variables=job, **versions)
    assert done.returncode == 0, done.stderr
    assert [reason in line for line in done.stderr.splitlines() if "not used" in line] == [True]
    assert "making" in done.stderr
    assert (place.checkout / ".venv" / ".refimpl-ready").exists()


def test_environment_with_fit_versions_is_taken(old):
    place, run = old
    place.launcher("srun")
    done = run("train", "mlp", variables={"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"})
    assert done.stderr == ""
    assert not (place.checkout / ".venv").exists()
    assert str(place.bin / "python3") in place.words()


def test_environment_made_here_tells_srun_its_dialect(bare):
    place, run = bare
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}
    place.launcher("srun")
    for mpi, dialect in (("mpich", "pmi2"), ("openmpi", "pmix")):
        assert run("train", "mlp", REFIMPL_MPI=mpi, **job).returncode == 0
        assert place.surroundings()["SLURM_MPI_TYPE"] == dialect
        run("train", "mlp", REFIMPL_MPI=mpi, SLURM_MPI_TYPE="cray_shasta", **job)
        assert place.surroundings()["SLURM_MPI_TYPE"] == "cray_shasta"
    active = str(place.checkout / ".venv-openmpi")
    place.command("mpiexec", "exit 9")
    run("train", "mlp", VIRTUAL_ENV=active, **job)
    assert place.surroundings()["SLURM_MPI_TYPE"] == "pmix"


def test_variables_of_other_projects_do_not_lead_our_own_environment_astray(bare):
    place, run = bare
    run("setup")
    shutil.copy(place.launcher("mpiexec"), place.checkout / ".venv/bin/mpiexec")
    for active in ({}, {"VIRTUAL_ENV": str(place.checkout / ".venv")}):
        given = {"MPI4PY_MPIABI": "openmpi", "MPI4PY_LIBMPI": "/opt/other/libmpi.so"}
        assert run("-n", "2", "train", "mlp", **given, **active).returncode == 0
        assert not set(given) & set(place.surroundings())


def test_environment_is_made_once(bare):
    place, run = bare
    first, second = run("setup"), run("setup")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout == f"{place.checkout}/.venv/bin/python\n"
    assert "once" in first.stderr
    assert second.stderr == ""
    assert place.log.read_text() == "pip\n"


def test_environment_made_here_gets_what_the_tests_need_also_where_it_is_active(bare):
    place, run = bare
    run("setup")
    done = run("test", VIRTUAL_ENV=str(place.checkout / ".venv"))
    assert done.returncode == 0 and "what the tests need" in done.stderr
    assert place.log.read_text() == "pip\n" * 2


def test_two_set_ups_at_once_make_one_where_the_file_system_has_no_locks(bare):
    place, run = bare
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(run, "setup", NO_LOCKS="1", SLOWLY="2") for _ in range(2)]
    assert [one.result().returncode for one in both] == [0, 0]
    assert place.log.read_text() == "pip\n"
    said = "".join(one.result().stderr for one in both)
    assert "remove" in said and ".venv.lock.folder" in said
    assert not (place.checkout / ".venv.lock.folder").exists()


@pytest.mark.parametrize("where", ["file/under/a", "file"])
def test_folder_that_cannot_be_written_is_one_line_with_a_remedy(bare, where):
    place, run = bare
    (place.checkout / "file").touch()
    done = run("setup", REFIMPL_VENV=where)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert where in line and "REFIMPL_VENV" in line


def test_set_up_that_was_interrupted_is_made_anew(bare):
    place, run = bare
    run("setup")
    (place.checkout / ".venv" / ".refimpl-ready").unlink()
    half = place.checkout / ".venv" / "half a file"
    half.touch()
    done = run("setup")
    assert "incomplete" in done.stderr
    assert not half.exists()
    assert place.log.read_text() == "pip\n" * 2


def test_set_up_that_fails_says_why_and_where_to_read_on(bare):
    place, run = bare
    Path(f"{place.log}.broken").touch()
    done = run("setup")
    assert done.returncode == 1
    assert "no such index" in done.stderr
    assert "refimpl-setup.log" in done.stderr.splitlines()[-1]
    Path(f"{place.log}.broken").unlink()
    assert run("setup").returncode == 0


def test_folder_that_is_not_ours_is_not_removed(bare):
    place, run = bare
    (place.checkout / ".venv").mkdir()
    (place.checkout / ".venv" / "precious").touch()
    done = run("setup")
    assert done.returncode == 2
    assert "remove it" in done.stderr
    assert (place.checkout / ".venv" / "precious").exists()


def test_other_mpi_has_an_environment_of_its_own(bare):
    place, run = bare
    run("setup")
    assert ".venv-openmpi" in run("setup", REFIMPL_MPI="openmpi").stdout
    assert "elsewhere" in run("setup", REFIMPL_VENV="elsewhere").stdout
    assert (place.checkout / "elsewhere" / ".refimpl-ready").exists()


def test_python_that_is_too_old_or_missing_is_said(bare):
    place, run = bare
    place.command("python3", "exit 1")
    only = place.bin.parent / "only"
    only.mkdir()
    for name in ("sh", "dirname", "env", "cat", "mkdir"):
        (only / name).symlink_to(shutil.which(name))
    done = run("setup", PATH=f"{place.bin}:{only}")
    assert done.returncode == 2
    assert "no Python 3.10 or newer found" in done.stderr
