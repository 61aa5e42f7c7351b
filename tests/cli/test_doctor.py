"""``refimpl doctor``: each thing that can be wrong is told once, with its remedy, by fakes."""

import os
import resource
from dataclasses import replace

import pytest
from launch import CHECKOUT, SURROUNDINGS, launched, needs_mpiexec

from refimpl import cli
from refimpl.cli import doctor
from refimpl.cli.doctor import Job, examined, text
from refimpl.support import machine
from refimpl.support.machine import Launcher, Machine

SOUND = Machine(
    host="a",
    system="Linux x86_64",
    python="3.12.1 /bin/python",
    versions={"numpy": "2.1.0", "scipy": "1.14.0", "mpi4py": "4.0.0"},
    old=(),
    blas="scipy-openblas 0.3.27",
    threads=1,
    cores=frozenset(range(4)),
    quota=None,
    shared=(8 << 30, 8 << 30),
    cache="/home/a/.cache/refimpl",
    unwritable="",
    files=1024,
    job={},
)
HYDRA = Launcher("/bin/mpiexec", "on PATH", "MPICH")
SLURM = {"": "SLURM", "SLURM_JOB_ID": "7"}


def job(ranks=1, nodes=1, mpi="MPICH 4.2.0", no_mpi="", launcher=HYDRA, asked=None, **seen):
    """A job whose ranks all see a sound machine, but for what is given, in blocks on its nodes."""
    where = [rank * nodes // ranks for rank in range(ranks)]
    machines = [replace(SOUND, host="abcdefgh"[node], **seen) for node in where]
    return Job(machines, where, mpi, no_mpi, launcher, asked)


def wrong(one):
    return [words for item in examined(one) for words in item.wrong]


@pytest.mark.parametrize(
    "one",
    [
        job(),
        job(4),
        job(8, nodes=2),
        job(1, threads=4),
        job(mpi="Intel MPI 2021.18", launcher=HYDRA),
        job(mpi="Open MPI 5.0.1", launcher=Launcher("/bin/srun", "in a job", "SLURM")),
        job(4, launcher=Launcher(wrong="no mpiexec")),  # something has started them
        job(shared=None, files=None),
        job(job={"": "LSF", "LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "8"}),
    ],
)
def test_of_what_is_well_nothing_is_wrong(one):
    assert wrong(one) == []
    assert text(list(examined(one))).endswith("\nnothing is wrong")


@pytest.mark.parametrize(
    "one, culprit, remedy",
    [
        (job(4, threads=2), "2 threads of each of 4 ranks", "OMP_NUM_THREADS=1"),
        (job(2, threads=4), "2 ranks are more than 4 cores", "OMP_NUM_THREADS=2"),
        (job(threads=4, quota=1.5), "more than 2 cores", "OMP_NUM_THREADS=2"),
        (job(mpi="Open MPI 5.0.1"), "ranks of MPICH, and mpi4py has Open MPI", "MPIEXEC"),
        (job(launcher=Launcher(wrong="no mpiexec: pip")), "no mpiexec", "pip"),
        (job(mpi="", no_mpi="RuntimeError: no libmpi"), "no libmpi", "pip install mpich"),
        (job(1, asked=4), "4 were asked for", "MPIEXEC"),
        (job(8, shared=(30 << 20, 64 << 20)), "31.5 MB are free", "--shm-size"),
        (job(shared=(10 << 20, 64 << 20)), "4 ranks want 21 MB", "--shm-size"),
        (job(unwritable="/x is not a folder"), "/x is not a folder", "XDG_CACHE_HOME"),
        (job(files=64), "64 files may be open", "ulimit -n 96"),
        (job(job=SLURM | {"SLURM_NTASKS": "4"}), "no srun", "MPIEXEC"),
        (
            job(job=SLURM, launcher=Launcher("/bin/srun", "in a job", "SLURM")),
            "does not say how many ranks",
            "-n 4",
        ),
        (job(job={"": "PBS", "PBS_JOBID": "7"}), "does not say how many ranks", "-n 4"),
        (job(old=("numpy 1.26 is too old",)), "numpy 1.26", "pip install --upgrade numpy"),
    ],
)
def test_what_is_wrong_is_one_line_with_culprit_and_remedy(one, culprit, remedy):
    (line,) = wrong(one)
    assert culprit in line.rpartition(": ")[0] and remedy in line and "\n" not in line
    assert text(list(examined(one))).endswith("\n1 thing is wrong")


def test_of_many_nodes_the_one_that_is_wrong_is_named():
    sound = job(8, nodes=2)
    machines = [*sound.machines[:4], *[replace(m, unwritable="/x") for m in sound.machines[4:]]]
    (line,) = wrong(replace(sound, machines=machines))
    assert line.startswith("/x on b: ")
    odd = replace(machines[4], unwritable="", versions=SOUND.versions | {"numpy": "2.0.0"})
    (line,) = wrong(replace(sound, machines=[*sound.machines[:4], odd, *sound.machines[5:]]))
    assert "rank 4 on b has Python 3.12.1, numpy 2.0.0" in line
    assert "{0, 1, 2, 3} on a, {4, 5, 6, 7} on b" in text(list(examined(sound)))


def test_ranks_that_are_bound_to_cores_have_those_of_their_node_together():
    machines = [replace(SOUND, cores=frozenset([core])) for core in range(4)]
    assert wrong(replace(job(4), machines=machines)) == []
    one_core = [replace(SOUND, cores=frozenset([0]), threads=2)] * 4
    assert "more than 1 core:" in wrong(replace(job(4), machines=one_core))[0]


def test_what_ranks_need_is_what_run_mpi_sh_takes_it_to_be():
    script = (CHECKOUT / "run_mpi.sh").read_text()
    assert f"ranks * {doctor.SHARED_PER_RANK // 1024}" in script
    assert f"files=$(({doctor.FILES} + ranks * {doctor.FILES_PER_RANK}))" in script


@pytest.mark.parametrize(
    "blas, environ, threads",
    [
        ("scipy-openblas 0.3", {}, 6),
        ("scipy-openblas 0.3", {"OMP_NUM_THREADS": "3"}, 3),
        ("scipy-openblas 0.3", {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "3"}, 2),
        ("mkl-sdl 2024", {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "4,2"}, 4),
        ("accelerate", {"VECLIB_MAXIMUM_THREADS": "1"}, 1),
        ("blis", {"BLIS_NUM_THREADS": "many"}, 6),
    ],
)
def test_a_blas_starts_as_many_threads_as_its_own_variable_says(blas, environ, threads):
    assert machine.blas_threads(blas, environ, 6) == threads


def test_the_quota_of_a_container_is_read_in_both_forms(tmp_path):
    assert machine.cpu_quota(tmp_path) is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text("150000\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert machine.cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("200000 100000\n")
    assert machine.cpu_quota(tmp_path) == 2


def test_a_cache_folder_that_is_to_be_made_is_judged_by_where_it_would_be(tmp_path):
    assert machine.unwritable(tmp_path / "a" / "b") == ""
    (tmp_path / "a").touch()
    assert machine.unwritable(tmp_path / "a" / "b") == f"{tmp_path / 'a'} is not a folder"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def fake(folder, name, says):
    """Put a launcher into a folder, which says this when asked for its version."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho '{says}'\n")
    (folder / name).chmod(0o755)
    return folder


def test_the_launcher_is_the_one_that_run_mpi_sh_would_take(tmp_path):
    beside = fake(tmp_path / "venv", "mpiexec", "HYDRA build details")
    path = fake(tmp_path / "bin", "mpiexec", "mpiexec (Open MPI) 5.0.1")
    fake(path, "srun", "slurm 24.05")
    mine = fake(tmp_path / "mine", "mpi exec", "Intel(R) MPI Library")
    empty = tmp_path / "empty"

    def found(beside, **variables):
        one = machine.launcher({"PATH": f"{path}:/bin"} | variables, beside)
        return one.family, one.found

    assert found(beside) == ("MPICH", "beside Python")
    assert found(empty) == ("Open MPI", "on PATH")
    assert found(beside, SLURM_JOB_ID="7") == ("SLURM", "in a job of SLURM")
    assert found(beside, MPIEXEC=str(mine / "mpi exec")) == ("Intel MPI", "named by MPIEXEC")
    assert found(beside, MPIEXEC="srun --mpi=pmix", SLURM_JOB_ID="7")[1] == "named by MPIEXEC"
    assert "no command gone" in machine.launcher({"MPIEXEC": "gone -x"}, beside).wrong
    assert "there is no command" in machine.launcher({"MPIEXEC": " "}, beside).wrong
    assert "pip install mpich" in machine.launcher({"PATH": str(empty)}, empty).wrong


@pytest.mark.parametrize(
    "script, told",
    [
        ("echo 'ImportError: no libmpi.so' >&2; exit 1", "ImportError: no libmpi.so"),
        ("kill -SEGV $$", "killed by signal 11"),
        ("echo '\"MPICH 4.2.0\"'", "MPICH 4.2.0"),
    ],
)
def test_an_mpi_that_cannot_be_loaded_is_no_end_of_the_doctor(tmp_path, script, told):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    assert told in " ".join(machine.probed(str(python)))


def test_what_is_installed_is_held_to_what_is_needed(monkeypatch):
    monkeypatch.setattr(
        machine.metadata, "requires", lambda name: ["numpy>=2.0", "tqdm>=9; extra == 'progress'"]
    )
    assert machine.outdated({"numpy": "2.0.1", "tqdm": "1"}) == []
    assert "numpy 1.26.4 is too old, 2.0" in machine.outdated({"numpy": "1.26.4"})[0]


@pytest.fixture
def here(monkeypatch, tmp_path):
    """This process as a sound place to run on, with fakes for what is outside of it."""
    for name in [*os.environ]:
        if name.startswith(("SLURM", "PBS", "LSB", "REFIMPL_RANKS", "MPIEXEC")):
            monkeypatch.delenv(name)
    folder = fake(tmp_path / "bin", "mpiexec", "HYDRA build details")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("MPIEXEC", str(folder / "mpiexec"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    monkeypatch.setattr(doctor, "started", lambda: None)  # as other tests may have
    monkeypatch.setattr(machine, "probed", lambda: ("MPICH 4.2.0", ""))
    usage = type("Usage", (), {"free": 1 << 30, "total": 1 << 30})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    return monkeypatch


def test_the_command_ends_with_0_if_nothing_is_wrong_and_with_1_if_something_is(here, capsys):
    assert cli.main(["doctor"]) == 0
    assert "MPICH 4.2.0" in capsys.readouterr().out
    here.setenv("XDG_CACHE_HOME", "/dev/null")
    here.setenv("SLURM_JOB_ID", "7")
    assert cli.main(["doctor"]) == 1
    out, error = capsys.readouterr()
    assert "/dev/null is not a folder" in out and "SLURM SLURM_JOB_ID=7" in out
    assert out.endswith("\n2 things are wrong\n") and error == ""


def test_a_low_limit_is_told(here, capsys):
    infinite = resource.RLIM_INFINITY
    here.setattr(
        doctor.resource,
        "getrlimit",
        lambda limit: (1024 if limit == resource.RLIMIT_FSIZE else infinite, infinite),
    )
    assert cli.main(["doctor"]) == 1
    assert "the limit on the size of files is 1,024" in capsys.readouterr().out


@needs_mpiexec
def test_on_many_ranks_one_speaks_of_all_and_threads_are_counted_for_all(monkeypatch):
    monkeypatch.setitem(SURROUNDINGS, "OPENBLAS_NUM_THREADS", "64")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    run = launched(2, "doctor")
    assert run.returncode == 1, run.stderr
    assert run.stdout.count("\nranks ") == 1 and "2 on 1 node" in run.stdout
    assert "{0, 1}" in run.stdout and "64 threads of each of 2 ranks" in run.stdout
