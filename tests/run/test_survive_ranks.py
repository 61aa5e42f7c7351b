"""Ranks that are really killed, and others that go on: needs an MPI with ULFM.

The bits are looked at on ranks that are threads (test_survive.py); here, that MPI does its part.
"""

import json
import subprocess

import pytest
from launch import CHECKOUT, MPIEXEC, REFIMPL, launched, needs_mpiexec, ran

RANK = "refimpl/support/rank.sh"
MODEL = """
import os
import signal

from mpi4py import MPI

from refimpl import nn
from refimpl.run.config import Recipe


class Deadly(nn.Affine):
    passes = 0

    def backward(self, dy, input_gradient=True):
        self.passes += 1
        if f"{MPI.COMM_WORLD.rank}:{self.passes}" in self.kills:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().backward(dy, input_gradient)


def build(seed, inputs, classes, kills=""):
    last = Deadly("out", 8, classes, seed)
    last.kills = kills.split()
    return nn.Sequential(nn.Affine("in", inputs, 8, seed), nn.Tanh(), last)


def recipe():
    return Recipe(task="images", epochs=1, lr=0.1, batch=16)
"""


def has_ulfm():
    """Tell whether the launcher is Open MPI's."""
    if MPIEXEC == [None]:
        return False
    run = subprocess.run([*MPIEXEC, "--version"], capture_output=True, text=True, timeout=60)
    return any(name in run.stdout for name in ("Open MPI", "prte", "OpenRTE"))


ULFM = has_ulfm()
needs_ulfm = pytest.mark.skipif(not ULFM, reason="this MPI has no ULFM")


def trained(folder, ranks, kills, *words):
    """Train for twelve steps on ranks that die, as rank:pass tells, and the others go on."""
    (folder / "net.py").write_text(MODEL)
    out, kills = folder / f"run{ranks}", f"kills={kills}"
    train = ["train", folder / "net.py", "--steps", "12", "--set", kills, "--out", out, *words]
    how = ["--with-ft", "ulfm", "-n", str(ranks), "sh", CHECKOUT / RANK]
    return out, ran([*MPIEXEC, *how, *REFIMPL, *train, "--on-failure", "continue"])


def said(run):
    """Return our lines on stderr: a launcher may add its own on a connection that has broken."""
    assert "Traceback" not in run.stderr, run.stderr
    return [line for line in run.stderr.splitlines() if line.startswith("refimpl:")]


@needs_ulfm
def test_two_ranks_die_one_after_the_other_and_the_first_is_rank_0(tmp_path):
    how = ["--strategy", "mics", "--partition", "2", "--microsteps", "2", "--reduction", "exact"]
    out, run = trained(tmp_path, 6, "0:5 4:13", *how)
    assert run.returncode == 0, run.stderr
    grid = "4 ranks = 2 members x 2 shards, 3 micro-steps each"
    first, second = (line for line in run.stdout.splitlines() if "died" in line)
    assert first == f"rank 0 died: going on after step 2 with {grid}; 1 more waits"
    assert second == f"rank 4 died: going on after step 6 with {grid}"
    assert sorted(line.split(" on ")[0] for line in said(run)) == [
        "refimpl: rank 0",
        "refimpl: rank 4",
    ]
    words = ["--steps", "12", "--microsteps", "12", "--reduction", "exact"]
    alone = launched(1, "train", tmp_path / "net.py", *words, "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    digests = [
        json.loads((folder / "summary.json").read_text())["parameters_sha256"]
        for folder in (out, tmp_path / "alone")
    ]
    assert digests[0] == digests[1]


@needs_ulfm
def test_what_cannot_go_on_ends_in_one_line_with_a_code_of_its_own(tmp_path):
    out, run = trained(tmp_path, 3, "0:5", "--strategy", "zero3")
    assert run.returncode == 5, run.stderr
    *_, line = said(run)
    assert line == (
        "refimpl: error: rank 0 died: nobody else holds shard 0 of replica/partition/parameters, "
        "and there is no checkpoint: start again, with --checkpoint-every"
    )
    assert not (out / "summary.json").exists()


@needs_ulfm
def test_mpis_own_collectives_are_refused(tmp_path):
    out, run = trained(tmp_path, 2, "none", "--collectives", "native")
    assert run.returncode == 2 and not out.exists()
    assert "--on-failure continue does not go with --collectives native" in run.stderr


@needs_mpiexec
@pytest.mark.skipif(ULFM, reason="this MPI has ULFM")
def test_an_mpi_without_ulfm_is_refused(tmp_path):
    (tmp_path / "net.py").write_text(MODEL)
    out = tmp_path / "run"
    run = launched(2, "train", tmp_path / "net.py", "--on-failure", "continue", "--out", out)
    assert run.returncode == 2 and not out.exists()
    assert run.stderr.startswith(
        "refimpl: error: --on-failure continue needs Open MPI 5 and its mpiexec --with-ft ulfm, "
        "but this is "
    )
    assert run.stderr.count("\n") == 1


@needs_ulfm
def test_an_open_mpi_that_was_started_without_it_is_refused(tmp_path):
    (tmp_path / "net.py").write_text(MODEL)
    run = launched(2, "train", tmp_path / "net.py", "--on-failure", "continue")
    assert run.returncode == 2 and "started without --with-ft ulfm" in run.stderr
