"""run_mpi.sh chooses an environment and launches the ranks as it says; nothing is installed.

The launchers here are fakes: shell scripts that write down how they were called.
"""

import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
VARIABLES = ("HOSTFILE", "MPIEXEC", "PYTHON", "VIRTUAL_ENV", "CONDA_PREFIX", "OMP_NUM_THREADS")
PREFIXES = ("REFIMPL_", "SLURM_", "OMPI_", "PRTE_", "PMI", "OPENBLAS_", "UCX_")

pytestmark = pytest.mark.skipif(
    not (CHECKOUT / "run_mpi.sh").exists(), reason="an installed refimpl has no run_mpi.sh"
)

RECORDER = """#!/bin/sh
case "${1:-}" in --version) echo "%s"; exit 0 ;; esac
for word; do printf '%%s\\n' "$word"; done >'%s'
env >'%s'
exit %d
"""


SAFELY = ["-P", "-m", "mpi4py"]
if sys.version_info < (3, 11):
    SAFE = "import sys; sys.path = [folder for folder in sys.path if folder]"
    SAFELY = ["-c", f"{SAFE}; from mpi4py.run import main; main()"]

EXISTING_PYTHON = """
case "$*" in
    *surroundings.py* | *subprocess.run*) exit 0 ;;
esac
exec '%s' "$@"
"""


class Place:
    """A checkout of nothing but run_mpi.sh, an environment and fake commands on a PATH."""

    def __init__(self, root):
        self.checkout = root / "check out"
        self.bin = root / "some bin"
        self.heard, self.environ = root / "heard", root / "environ"
        self.checkout.mkdir()
        self.bin.mkdir()
        shutil.copy(CHECKOUT / "run_mpi.sh", self.checkout)
        shutil.copy(CHECKOUT / "setup.cfg", self.checkout)
        support = Path("refimpl/support")
        (self.checkout / support).mkdir(parents=True)
        for helper in ("surroundings.py", "rank.sh"):
            shutil.copy(CHECKOUT / support / helper, self.checkout / support)
        self.parent = ["sh", str(self.checkout / support / "rank.sh")]  # of every rank
        self.command("python3", f'exec "{sys.executable}" "$@"')

    def command(self, name, text):
        """Put a command on the PATH."""
        file = self.bin / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
        return file

    def launcher(self, name, exit_code=0, version="HYDRA build details"):
        """Put a launcher on the PATH that records its words and surroundings."""
        file = self.command(name, "")
        file.write_text(RECORDER % (version, self.heard, self.environ, exit_code))
        return file

    def run(self, *words, cwd=None, **variables):
        """Run run_mpi.sh; return the finished process."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in VARIABLES and not name.startswith(PREFIXES)
        }
        return subprocess.run(
            [self.checkout / "run_mpi.sh", *words],
            env={**kept, "PATH": f"{self.bin}:/usr/bin:/bin", **variables},
            cwd=cwd or self.checkout,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def words(self):
        return self.heard.read_text().splitlines()

    def package(self, program):
        """Put a refimpl into the checkout that runs this program."""
        folder = self.checkout / "refimpl"
        (folder / "__init__.py").touch()  # without it, an installed refimpl would come first
        (folder / "__main__.py").write_text(program)

    def surroundings(self):
        lines = self.environ.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.fixture
def place(tmp_path):
    pytest.importorskip("scipy", reason="run_mpi.sh would set up an environment")
    return Place(tmp_path)


@pytest.fixture
def fake(place):
    """A place whose MPIEXEC is a fake, so that the interpreter at hand is used as it is."""
    pytest_needs_mpi4py(place)
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


def pytest_needs_mpi4py(place):
    finder = "import sys; from importlib.util import find_spec; sys.exit(not find_spec('mpi4py'))"
    if subprocess.run([place.bin / "python3", "-c", finder]).returncode:
        pytest.skip("no mpi4py here: run_mpi.sh would set up an environment")


def test_help_says_how_to_call(place):
    done = place.run("-h")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ./run_mpi.sh [-n RANKS]")
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words, culprit, remedy",
    [
        (["-x"], "-x", "-n RANKS"),
        (["-n"], "-n", "-n 4"),
        (["-n", "0"], "-n 0", "1 or more"),
        (["-n", "", "train"], "-n ''", "1 or more"),
        (["--hostfile", "."], ".", "one machine per line"),
        (["-n", "four"], "four", "1 or more"),
        (["-n", "-2", "train"], "-2", "1 or more"),
        (["--hostfile", "nosuch"], "nosuch", "one machine per line"),
        (["--hostfile", "/dev/null"], "/dev/null", "one machine per line"),
    ],
)
def test_wrong_option_is_one_line_with_culprit_and_remedy(place, words, culprit, remedy):
    done = place.run(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert culprit in line
    assert remedy in line


def test_a_help_that_nobody_can_read_ends(place):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [place.checkout / "run_mpi.sh", "-h"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=20,
        )
    assert done.returncode == 2 and done.stderr == "run_mpi.sh: cannot write to standard output\n"


@pytest.mark.parametrize(
    "free, version, refused",
    [(64, "HYDRA", True), (3071, "HYDRA", True), (3072, "HYDRA", False), (64, "Open MPI", False)],
)
def test_shared_memory_that_mpich_cannot_start_in_is_refused(existing, free, version, refused):
    place, run = existing
    place.launcher("mpiexec", version=version)
    place.command("df", f"echo head; echo 'shm 99999 0 {free} 0% /dev/shm'")
    done = run("-n", "2", "train", "mlp")
    if refused:
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert f"{free} KB are free in /dev/shm, and 2 ranks need 3072: remove" in line
    else:
        assert done.returncode == 0 and place.surroundings()["UCX_TLS"] == "self,tcp"


@pytest.mark.parametrize(
    "name, value, remedy",
    [
        ("REFIMPL_MPI", "lam", "mpich or openmpi"),
        ("MPIEXEC", "nosuch -x", "MPIEXEC=mpiexec"),
        ("MPIEXEC", "false", "MPIEXEC=mpiexec"),
        ("MPIEXEC", "true", "MPIEXEC=mpiexec"),
        ("PYTHON", "nosuch", "PYTHON=python3.12"),
    ],
)
def test_wrong_variable_is_one_line_with_culprit_and_remedy(fake, name, value, remedy):
    _, run = fake
    done = run(**{name: value})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert value.split()[0] in line
    assert remedy in line


def test_main_job_is_acoustic_training_on_four_ranks(fake):
    place, run = fake
    assert run().returncode == 0
    ranks, parent = place.words()[:2], place.words()[2:4]
    python, *program = place.words()[4:]
    assert ranks == ["-n", "4"] and parent == place.parent
    assert python.endswith("python3")
    train = ["train", "acoustic_mlp", "--strategy", "ddp"]
    assert program == [*SAFELY, "-m", "refimpl", *train]


def test_arguments_arrive_as_they_were_given(fake):
    place, run = fake
    given = ["train", "my model.py", "--out", "a 'b' \"c\" $d *", "", "-n"]
    run("-n", "3", *given)
    assert place.words()[:2] == ["-n", "3"]
    assert place.words()[-len(given) :] == given


def test_words_of_the_launcher_stand_before_ours(fake):
    place, run = fake
    place.launcher("launch")
    run("-n", "2", "train", "mlp", MPIEXEC="launch --mpi=pmix -v")
    rest = [*place.parent, str(place.bin / "python3")]
    assert place.words()[:7] == ["--mpi=pmix", "-v", "-n", "2", *rest]


def test_exit_code_is_passed_on(fake):
    place, run = fake
    assert run("train", "mlp", MPIEXEC=str(place.launcher("broken", 37))).returncode == 37


FAILING = """#!/bin/sh
case "${1:-}" in --version) echo 1; exit 0 ;; esac
printf '%%s\\n' "$*" >>'%(log)s'
step=$(wc -l <'%(log)s')
mkdir -p '%(run)s/checkpoints/step-00000'$step
touch '%(run)s/config.json' '%(run)s/checkpoints/step-00000'$step/manifest.json
[ $step -ge %(times)d ] || exit %(code)d
"""


@pytest.mark.parametrize(
    "times, code, ends, calls, said",
    [
        (3, 9, 0, 3, "going on from {run}/checkpoints/step-000002 on 4 ranks, 0 more"),
        (9, 9, 9, 3, "exit code 9, and no restart is left"),
        (9, 2, 2, 1, ""),  # a mistake
        (9, 75, 75, 1, ""),  # stopped as asked
    ],
)
def test_a_training_that_fails_goes_on_as_often_as_it_may(
    fake, tmp_path, times, code, ends, calls, said
):
    place, run = fake
    log, folder = tmp_path / "log", tmp_path / "run"
    launcher = place.bin / "failing"
    launcher.write_text(
        FAILING % {"log": log, "run": folder, "times": times, "code": code}, encoding="utf-8"
    )
    launcher.chmod(0o755)
    words = ["-n", "4", "--restarts", "2", "train", "mlp", "--out", folder, "--lr", "0.1"]
    ended = run(*words, MPIEXEC=str(launcher))
    assert ended.returncode == ends, ended.stderr
    told = log.read_text().splitlines()
    assert len(told) == calls and told[0].endswith(f"refimpl train mlp --out {folder} --lr 0.1")
    assert all(line.endswith(f"refimpl train --resume {folder}") for line in told[1:])
    assert said.format(run=folder) in ended.stderr


def test_restarts_need_a_training_with_a_folder(fake):
    _, run = fake
    for words in (["train", "mlp"], ["bench"], ["evaluate", "--out", "x"]):
        ended = run("--restarts", "1", *words)
        assert ended.returncode == 2 and "--out DIR" in ended.stderr


def test_every_rank_has_one_blas_thread_and_may_share_a_core(fake):
    place, run = fake
    run("train", "mlp")
    got = place.surroundings()
    assert got["OMP_NUM_THREADS"] == got["OPENBLAS_NUM_THREADS"] == got["MKL_NUM_THREADS"] == "1"
    assert got["OMPI_ALLOW_RUN_AS_ROOT"] == got["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] == "1"
    assert got["OMPI_MCA_rmaps_base_oversubscribe"] == "true"
    assert got["PRTE_MCA_rmaps_default_mapping_policy"] == "slot:oversubscribe"
    assert got["PYTHONPATH"].split(":")[0] == str(place.checkout)


def test_open_mpi_is_told_what_to_leave_out_on_one_machine_not_what_it_is_called(existing):
    place, run = existing
    assert run("-n", "2", "train", "mlp").returncode == 0
    assert place.surroundings()["OMPI_MCA_btl"].startswith("^tcp,")
    assert run("-n", "2", "train", "mlp", OMPI_MCA_btl="self,vader").returncode == 0
    assert place.surroundings()["OMPI_MCA_btl"] == "self,vader"


def test_users_number_of_threads_stands_for_all_libraries(fake):
    place, run = fake
    run("train", "mlp", OMP_NUM_THREADS="3", MKL_NUM_THREADS="2")
    got = place.surroundings()
    assert got["OMP_NUM_THREADS"] == got["OPENBLAS_NUM_THREADS"] == "3"
    assert got["MKL_NUM_THREADS"] == "2"


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


def test_soft_limit_of_open_files_is_raised_or_what_is_needed_is_said(fake):
    place, _ = fake
    launcher = str(place.command("launch", '[ "$1" = --version ] && echo HYDRA || ulimit -n'))
    limited = place.command("limited", 'ulimit -S -n 256; ulimit -H -n $1; shift; exec "$@"')

    def run(ranks, hard):
        return subprocess.run(
            [limited, hard, place.checkout / "run_mpi.sh", "-n", ranks, "train", "mlp"],
            env={**os.environ, "PATH": f"{place.bin}:/usr/bin:/bin", "MPIEXEC": launcher},
            capture_output=True,
            text=True,
            timeout=60,
        )

    for ranks, hard, limit, said in [
        ("8", "256", "256", ""),
        ("100", "4000", "864", ""),
        ("100", "300", "256", "100 ranks may need 864 open files"),
    ]:
        done = run(ranks, hard)
        assert done.stdout == f"{limit}\n"
        assert said in done.stderr and bool(said) == bool(done.stderr)


def test_many_ranks_find_the_package_compiled(fake):
    place, run = fake
    place.package("")
    compiled = place.checkout / "refimpl" / "__pycache__"
    assert run("-n", "4", "train", "mlp", PYTHONDONTWRITEBYTECODE="1").returncode == 0
    assert not compiled.exists()
    assert run("-n", "16", "train", "mlp", PYTHONDONTWRITEBYTECODE="1").returncode == 0
    assert list(compiled.glob("__main__.*.pyc"))


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


@pytest.mark.parametrize(
    "version, option", [("HYDRA", "-f"), ("mpiexec (Open MPI) 5.0.11", "--hostfile")]
)
@pytest.mark.parametrize("how", ["option", "variable"])
def test_host_file_is_given_as_the_mpi_wants_it(fake, version, option, how):
    place, run = fake
    hosts = place.checkout / "my hosts"
    hosts.write_text("localhost\n")
    given = {"MPIEXEC": str(place.launcher("launch", version=version))}
    if how == "option":
        run("-n", "2", "--hostfile", "my hosts", "train", "mlp", **given)
    else:
        run("-n", "2", "train", "mlp", HOSTFILE="my hosts", **given)
    words = place.words()
    assert words[:4] == ["-n", "2", option, "my hosts"]
    assert ("PYTHONPATH" in words) == (option == "--hostfile")


@pytest.mark.parametrize(
    "content, culprit",
    [
        (b"", "names no machine"),
        (b"# none\n\n", "names no machine"),
        (b"\x7fELF\x02\x01\x01\x00\x00", "ELF"),
        (b"localhost:2\n{'a': 1}\n", "{'a'"),
        (b"localhost\nno-such-machine.invalid slots=4\n", "no-such-machine.invalid"),
    ],
)
def test_host_file_that_names_no_machines_is_refused(fake, content, culprit):
    place, run = fake
    hosts = place.checkout / "hosts"
    hosts.write_bytes(content)
    done = run("-n", "2", "--hostfile", "hosts", "train", "mlp")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "hosts" in line and culprit in line and "one machine per line" in line


def test_machine_that_only_ssh_knows_is_left_to_it(fake):
    place, run = fake
    place.command("ssh", 'echo "hostname 127.0.0.1"')
    (place.checkout / "hosts").write_text("my-alias.invalid:2\n")
    assert run("-n", "2", "--hostfile", "hosts", "train", "mlp").returncode == 0


def test_open_mpi_takes_along_what_ranks_elsewhere_need(fake):
    place, run = fake
    (place.checkout / "hosts").write_text("localhost\n")
    launcher = str(place.launcher("launch", version="mpiexec (Open MPI) 5.0.11"))
    given = {"LD_LIBRARY_PATH": "/a", "MPI4PY_RC_THREADS": "no", "XDG_CACHE_HOME": "/b"}
    run("-n", "2", "--hostfile", "hosts", "train", MPIEXEC=launcher, REFIMPL_VENV="v", **given)
    words = place.words()
    taken = {after for word, after in zip(words, words[1:], strict=False) if word == "-x"}
    assert taken >= {"PYTHONPATH", "OMP_NUM_THREADS", "REFIMPL_RANKS", "REFIMPL_VENV", *given}
    assert not taken & {"PATH", "HOME", "LD_PRELOAD"}


def test_files_of_the_folder_one_works_in_shadow_no_module_of_python(fake, tmp_path):
    place, run = fake
    place.package("import random\nprint(random.__file__)\n")
    work = tmp_path / "work"
    work.mkdir()
    for name in ("random", "copy", "subprocess", "runpy", "re", "socket", "fcntl", "mpi4py"):
        (work / f"{name}.py").write_text("raise SystemExit('my own scratch file ran')")
    place.command("my launcher", 'shift 2; exec "$@"')
    for words in (["topology"], ["train", "mlp"]):
        done = run(*words, cwd=work)
        assert done.returncode == 0, done.stderr
        assert Path(done.stdout.strip()) == Path(random.__file__)


def test_environment_that_is_there_is_used_as_it_is(place, tmp_path):
    pytest_needs_mpi4py(place)
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


def test_commands_that_need_no_mpi_start_none(fake):
    place, run = fake
    place.package("import sys\nprint(sys.argv[1:])\n")
    done = run("topology", "-n", "16")
    assert done.stdout == "['topology', '-n', '16']\n"
    assert run("train", "--help").stdout == "['train', '--help']\n"
    assert run("doctor").stdout == "['doctor']\n"
    assert not place.heard.exists()
    run("-n", "2", "doctor")
    assert place.heard.exists()


def test_checkout_of_git_for_windows_has_line_ends_that_a_shell_reads(tmp_path):
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no clone, or no git")
    asked = ["check-attr", "eol", "--", "run_mpi.sh", ".ci/run", "models/mlp.py"]
    said = subprocess.run(["git", "-C", CHECKOUT, *asked], capture_output=True, text=True).stdout
    assert [line.rpartition(": ")[2] for line in said.splitlines()] == ["lf"] * 3


# --- an environment of its own, made by a fake Python ----------------------------------------

FAKE_PYTHON = """
case "$*" in
    *"-m venv"*)
        for folder; do :; done
        mkdir -p "$folder/bin"
        cp "$0" "$folder/bin/python"
        cp "$0" "$folder/bin/mpiexec" ;;
    *"-m pip"*)
        sleep "${SLOWLY:-0}"
        echo pip >>"$LOG"
        [ ! -e "$LOG.broken" ] || { echo "no such index"; exit 1; } ;;
    *surroundings.py*) exit 1 ;;
    *version_info*) echo 3.12 ;;
    *find_spec*) case "$*" in *mpi4py*) case "$0" in */.venv/*) ;; *) exit 1 ;; esac ;; esac ;;
    *flock*) [ -z "$NO_LOCKS" ] ;;
esac
"""


OTHER_PYTHON = """
case "$*" in
    *surroundings.py*) PYTHONPATH=$MODULES exec '%s' "$@" ;;
esac
%s
"""


@pytest.fixture
def bare(place):
    """A place with a Python that has no mpi4py, and whose pip writes a line into a log."""
    place.command("python3", FAKE_PYTHON)
    place.log = place.checkout.parent / "log"

    def run(*words, **variables):
        return place.run(*words, LOG=str(place.log), **variables)

    return place, run


def test_environment_is_made_once(bare):
    place, run = bare
    first, second = run("setup"), run("setup")
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert first.stdout == second.stdout == f"{place.checkout}/.venv/bin/python\n"
    assert "once" in first.stderr
    assert second.stderr == ""
    assert place.log.read_text() == "pip\n"


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


def test_a_checkout_of_git_for_windows_has_the_same_bytes(tmp_path):
    if not (CHECKOUT / ".git").exists():
        pytest.skip("not a clone")
    clone = ["git", "clone", "-q", "-c", "core.autocrlf=true", CHECKOUT, tmp_path / "clone"]
    subprocess.run(clone, check=True)
    texts = ("run_mpi.sh", "setup.cfg", ".ci/run", "tests/golden/acoustic/manifest.json")
    for name in texts:
        assert b"\r" not in (tmp_path / "clone" / name).read_bytes(), name
