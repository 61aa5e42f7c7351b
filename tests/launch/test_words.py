"""run_mpi.sh: what it is told, and what it tells the launcher and the ranks."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from place import SAFELY


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
        (["-n", "9" * 20], "-n 999", "1 or more"),
        (["--restarts", "", "train"], "--restarts or --min-ranks ''", "--restarts 3"),
        (["--restarts", "9" * 20, "train"], "999", "below a billion"),
        (["--restarts", "1", "--min-ranks", "two", "train"], "two", "--min-ranks 2"),
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


def test_files_of_the_folder_one_works_in_shadow_no_module_of_python(fake, tmp_path):
    place, run = fake
    place.command("python3", f'exec "{sys.executable}" "$@"')  # which is asked if it fits
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
