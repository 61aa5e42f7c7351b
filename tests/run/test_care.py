"""Runs are watched: replicas that drift, ranks that hang, ranks that are slow."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import hooked
import numpy as np
import pytest
from launch import CHECKOUT, MPIEXEC, SURROUNDINGS, needs_mpiexec
from loopback import spawn

from refimpl import cli
from refimpl.run import stragglers
from refimpl.run.care import Care
from refimpl.run.patience import Patience
from refimpl.run.resume import Job
from refimpl.support.errors import Drifted, UserError
from refimpl.tasks import table as tasks


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tasks, "prepare", lambda *given: hooked.images())


# -------------------------------------------------------------------------------------- drift


def flip(layer, rank, step):
    if (rank, step) == (2, 3):
        layer.own.view(np.uint32)[0] ^= 1


@pytest.mark.parametrize("every, found", [(1, 3), (2, 4), (6, 6)])
def test_a_bit_that_flips_is_found_at_the_next_comparison(every, found, tmp_path):
    def body(comm):
        with pytest.raises(Drifted) as error:
            hooked.trained(comm, tmp_path / "run", flip, Care(every))
        return str(error.value)

    (told,) = set(spawn((0, 0, 1, 1), body))
    since = f"after step {found - every} they were equal" if found > every else "first comparison"
    assert told.startswith(f"replicas differ after step {found}: replica/partition/parameters of ")
    assert "on rank 2 (node 1) is not that of ranks 0, 1, 3" in told and told.endswith(since)


@pytest.mark.parametrize("care", [Care(), Care(7)])
def test_what_is_not_compared_is_not_found(care, tmp_path):
    spawn((0, 0, 1), lambda comm: hooked.trained(comm, tmp_path / "run", flip, care))


@pytest.mark.parametrize("strategy", ["ddp", "zero3", "gtc", "bmuf", "onebit"])
def test_a_run_whose_replicas_are_equal_is_left_alone(strategy, tmp_path):
    def body(comm, every):
        path, run = tmp_path / str(every), {"strategy": strategy, "steps": 9}
        return hooked.trained(comm, path, lambda *told: 0, Care(every), **run)

    watched, alone = (spawn((0, 0, 1), lambda comm, e=e: body(comm, e))[0] for e in (1, 0))
    assert watched["parameters_sha256"] == alone["parameters_sha256"]
    messages = (sum(of["messages"] for of in run["ledger"].values()) for run in (watched, alone))
    assert next(messages) - next(messages) == 9 * 3 * 2


def test_a_run_that_drifts_has_an_exit_code_of_its_own(monkeypatch, capsys):
    def told(argv):
        raise Drifted("replicas differ")

    monkeypatch.setattr(cli, "told", told)
    assert cli.main([]) == 4
    assert capsys.readouterr().err == "refimpl: error: replicas differ\n"


# --------------------------------------------------------------------------------- stragglers


def test_a_rank_that_is_slow_is_named_with_the_epoch(tmp_path, monkeypatch):
    here = threading.local()  # a clock per rank, which stands still but in the hook
    clock = SimpleNamespace(perf_counter=lambda: getattr(here, "now", 0.0))
    monkeypatch.setattr(stragglers, "time", clock)

    def hook(layer, rank, step):
        here.now = clock.perf_counter() + (1.5 if rank == 1 else 0.125)

    def body(comm):
        said = []
        hooked.trained(comm, tmp_path / "run", hook, say=said.append, steps=9)
        return said

    epochs = [text for text in spawn((0, 0, 1), body)[0] if text.startswith("epoch")]
    assert [text.partition("; ")[2] for text in epochs] == [
        "rank 1 (node 0) computed for 12.0 s, the median 1.0 s",
        "rank 1 (node 0) computed for 1.5 s, the median 0.1 s",
    ]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    (first,), (second,) = (json.loads(line)["stragglers"] for line in lines)
    assert first == {"rank": 1, "node": 0, "seconds": 12.0, "median": 1.0}
    assert second == {"rank": 1, "node": 0, "seconds": 1.5, "median": 0.125}


# -------------------------------------------------------------------------------------- hangs


def test_when_a_rank_waits_too_long_all_say_where_and_the_lowest_speaks(tmp_path):
    def hook(layer, rank, step):
        if (rank, step) == (1, 3):
            time.sleep(1.0)

    def body(comm):
        ended = []
        care = Care(patience=0.2)
        hooked.trained(comm, tmp_path / "run", hook, care, hung=ended.append, strategy="ddp")
        return ended

    (text,), *others = spawn((0, 0, 1), body)
    assert others == [[], []]
    why, head, *rows = text.splitlines()
    assert re.fullmatch(
        r"rank [02] has waited for 0\.\d s \(--patience 0\.2\): rank 1 \(node 0\) works, the "
        "others wait",
        why,
    )
    assert head == "rank  node  step  seconds  where"
    assert re.fullmatch(r"   1     0     3      0\.\d  computes: backward b", rows[1])
    for rank, other in ((0, 2), (2, 1)):
        assert re.fullmatch(
            rf"   {rank}     {rank // 2}     3      0\.\d  receives \d+ B of gradients from rank "
            rf"{other}, sends to rank {(rank + 1) % 3}: ring.allreduce, message [12]",
            rows[rank],
        ), rows[rank]
    folder = tmp_path / "run"
    assert (folder / "flight.txt").read_text() == text
    records = [json.loads(file.read_text()) for file in sorted(folder.glob("flight-rank-*"))]
    assert [record["rank"] for record in records] == [0, 1, 2]
    assert all(len(record["last"]) > 20 for record in records)


def test_should_the_lowest_end_before_the_job_does_the_next_one_speaks(tmp_path):
    def body(comm):
        ended = []

        def end(text):
            ended.append(text)
            (tmp_path / "flight.txt").unlink()  # as if it had never been

        with Patience(comm, 0.2, tmp_path, end):
            if comm.rank == 2:
                time.sleep(0.9)
            comm.barrier()
        return len(ended)

    assert spawn((0, 0, 0), body) == [1, 1, 1]


ASTRAY = """
import sys
from pathlib import Path
import numpy as np
from mpi4py import MPI
from refimpl import collectives
from refimpl.cli.endings import hung
from refimpl.run.patience import Patience
from refimpl.run.resume import Job
from refimpl.world.communicator import Communicator

comm, x = Communicator(MPI.COMM_WORLD), np.zeros(100_000)
ring = collectives.get("ring")
with Patience(comm, 0.3, Path(sys.argv[1]), hung), comm.purpose("gradients"):
    for step in range(2 + comm.rank):
        with comm.events.during("phase", "step"):
            ring.allreduce(comm, x)
    comm.barrier()
"""


@needs_mpiexec
def test_ranks_that_are_in_different_calls_are_told_so(tmp_path):
    command = [*MPIEXEC, "-n", "2", sys.executable, "-m", "mpi4py", "-c", ASTRAY, tmp_path]
    environment = SURROUNDINGS | os.environ | {"PYTHONPATH": str(CHECKOUT)}
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert run.returncode == 3, run.stderr
    assert re.search(
        r"all wait for each other, in different places: rank 0 in barrier \(step 2\), rank 1 in "
        r"ring.allreduce of 800,000 B \(step 3\)\n.*\n"
        r"   0     0     2      0.\d  waits for all: barrier\n"
        r"   1     0     3      0.\d  receives 400,000 B of gradients from rank 0, sends to rank 0"
        r": ring.allreduce, message 1\n",
        run.stderr,
    ), run.stderr


def test_a_folder_that_a_rank_does_not_see_is_refused_on_all(tmp_path):
    def body(comm):
        folder = tmp_path / ("there" if comm.rank < 2 else "nowhere")
        with pytest.raises(UserError) as error, Patience(comm, 9.0, folder, print):
            raise AssertionError
        return str(error.value)

    (tmp_path / "there").mkdir()
    (told,) = set(spawn((0, 0, 1), body))
    assert told.startswith("--patience: rank 2 on ") and told.endswith("with --out")


def test_what_an_earlier_hang_has_left_is_no_call(tmp_path):
    for name in ("flight-rank-00001.json", "flight.txt"):
        (tmp_path / name).write_text("{}")

    def body(comm):
        ended = []
        with Patience(comm, 0.04, tmp_path, ended.append):
            time.sleep(0.1)
        return ended, comm.events.hears("phase")

    assert spawn((0, 0), body) == [([], False)] * 2
    assert list(tmp_path.iterdir()) == []


def test_without_patience_nobody_listens(tmp_path):
    def body(comm):
        hears = []
        hooked.trained(comm, tmp_path / "run", lambda *told: hears.append({*comm.events.heard}))
        return hears

    assert spawn((0,), body)[0] == [{"send", "library", "compute"}] * 6


@pytest.mark.parametrize("given", [{"check_every": -1}, {"patience": -1.0}, {"patience": "1"}])
def test_care_that_cannot_be_is_refused(given):
    with pytest.raises(UserError, match="check-every|patience"):
        Care(**given)


def test_a_run_that_goes_on_is_watched_as_before(tmp_path):
    def body(comm):
        hooked.trained(comm, tmp_path / "run", lambda *told: 0, Care(3, 60.0))
        (tmp_path / "run" / "model.py").write_text("def build(seed): pass\ndef recipe(): pass\n")
        return Job.open(comm, tmp_path / "run").care

    assert spawn((0,), body) == [Care(3, 60.0)]
