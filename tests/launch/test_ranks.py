"""run_mpi.sh: what ranks find when they start, and how often they do."""

import os
import signal
import subprocess

import pytest


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


FAILING = """#!/bin/sh
case "${1:-}" in --version) echo 1; exit 0 ;; esac
printf '%%s\\n' "$*" >>'%(log)s'
step=$(wc -l <'%(log)s')
folder='%(run)s/checkpoints/step-'$((999998 + step))
mkdir -p "$folder"
touch '%(run)s/config.json' "$folder/manifest.json"
[ $step -ge %(times)d ] || exit %(code)d
"""


@pytest.mark.parametrize(
    "times, code, ends, calls, said",
    [
        (3, 9, 0, 3, "going on from {run}/checkpoints/step-1000000 on 4 ranks, 0 more"),
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


def test_ctrl_c_ends_a_training_that_is_to_be_restarted_and_its_launcher(fake, tmp_path):
    """The launcher's parent is the script; the launcher itself does not hear of it."""
    place, run = fake
    hearing = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may be without
    late = tmp_path / "late"
    launcher = place.command(
        "deaf",
        "case $1 in --version) echo 1; exit 0 ;; esac\n"
        "kill -INT $PPID\n"
        f"sleep 5 >/dev/null 2>&1; touch '{late}'",
    )
    try:
        ended = run("--restarts", "2", "train", "mlp", "--out", "x", MPIEXEC=str(launcher))
    finally:
        signal.signal(signal.SIGINT, hearing)
    assert ended.returncode == 130 and not late.exists()


def test_restarts_need_a_training_with_a_folder(fake):
    _, run = fake
    for words in (["train", "mlp"], ["bench"], ["evaluate", "--out", "x"]):
        ended = run("--restarts", "1", *words)
        assert ended.returncode == 2 and "--out DIR" in ended.stderr
