"""run_mpi.sh inside a job of SLURM, PBS or LSF."""

import shutil

import pytest


def test_inside_a_slurm_job_srun_starts_its_tasks(fake):
    place, run = fake
    place.launcher("srun")
    run("train", "mlp", MPIEXEC="", SLURM_JOB_ID="7", SLURM_NTASKS="6")
    assert place.words()[:4] == ["--quiet", "--kill-on-bad-exit=1", "-n", "6"]
    assert not {"SLURM_OVERLAP", "SLURM_MPI_TYPE"} & set(place.surroundings())
    run("-n", "3", "train", "mlp", MPIEXEC="", SLURM_JOB_ID="7", SLURM_NTASKS="6")
    assert place.words()[:4] == ["--quiet", "--kill-on-bad-exit=1", "-n", "3"]


@pytest.mark.parametrize(
    "variables, ranks",
    [
        ({"SLURM_JOB_ID": "7", "SLURM_TASKS_PER_NODE": "4(x2),3", "SLURM_NNODES": "3"}, "11"),
        ({"SLURM_JOB_ID": "7", "SLURM_TASKS_PER_NODE": "5"}, "5"),
        ({"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "6"}, "6"),
        ({"PBS_JOBID": "7", "PBS_NODEFILE": "nodes"}, "3"),
    ],
)
def test_a_job_that_names_no_number_of_tasks_still_tells(fake, variables, ranks):
    place, run = fake
    (place.checkout / "nodes").write_text("a\na\nb\n")
    run("train", "mlp", **variables)
    assert place.words()[:2] == ["-n", ranks]


@pytest.mark.parametrize("name", ["SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID"])
def test_a_job_that_does_not_tell_its_number_of_ranks_is_refused(fake, name):
    _, run = fake
    done = run("train", "mlp", **{name: "7"})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "job 7" in line and "-n 4" in line
    assert run("-n", "2", "train", "mlp", **{name: "7"}).returncode == 0


STEP = {"MPIEXEC": "", "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "8"}


def test_inside_a_step_the_ranks_share_what_it_holds(fake):
    place, run = fake
    place.launcher("srun")
    pty = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_PTY_PORT": "41"}
    for variables in ({"SLURM_STEP_NUM_TASKS": "1"}, pty):
        assert run("train", "mlp", **STEP, **variables).returncode == 0
        assert place.surroundings()["SLURM_OVERLAP"] == "1"


def test_srun_that_calls_run_mpi_many_times_is_told_so_once(fake):
    place, run = fake
    place.launcher("srun")
    said = [
        run("train", "mlp", **STEP, SLURM_STEP_NUM_TASKS="8", SLURM_PROCID=str(rank))
        for rank in range(3)
    ]
    assert [done.returncode for done in said] == [2, 2, 2]
    (line,) = "".join(done.stderr for done in said).splitlines()
    assert "without srun" in line
    assert not place.heard.exists()


def test_where_srun_has_no_pmix_open_mpi_starts_its_ranks_itself(bare):
    place, run = bare
    place.command("srun", 'echo "srun: error: no pmix" >&2; exit 1')
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "REFIMPL_MPI": "openmpi"}
    run("setup", **job)
    shutil.copy(place.launcher("mpiexec"), place.checkout / ".venv-openmpi/bin/mpiexec")
    done = run("train", "mlp", **job)
    assert (done.returncode, done.stderr) == (0, "")
    assert place.words()[:2] == ["-n", "2"]
    assert "SLURM_MPI_TYPE" not in place.surroundings()


def test_launcher_named_by_the_user_comes_before_srun(fake):
    place, run = fake
    place.command("srun", "exit 99")
    assert run("train", "mlp", SLURM_JOB_ID="7", SLURM_NTASKS="2").returncode == 0
    assert place.words()[0] == "-n"
