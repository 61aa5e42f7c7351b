"""benchmarks/workers: workers of one process take the steps of ranks, and a whole quick table."""

import doctest
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.workers import command, kept, table
from benchmarks.workers import fleet as fleet_module
from benchmarks.workers import search as searching
from benchmarks.workers.desk import Desk
from benchmarks.workers.fleet import Fleet
from benchmarks.workers.jobs import QUICK, Job, NotYet
from benchmarks.workers.spliced import Spliced
from benchmarks.workers.ways import by_ranks
from benchmarks.workers.work import everything
from refimpl import nn
from refimpl.nn.flat import Layout
from refimpl.numerics.rng import stream
from refimpl.run.config import Recipe, Run
from refimpl.tasks.acoustic.examples import Frames

TOP = Path(__file__).resolve().parents[2]


def read(path):
    return json.loads(path.read_text())


class Points:
    """Examples of a toy problem: which of three coordinates is the largest."""

    count, inputs = 100, 6

    def take(self, index, x, y):
        for row, number in enumerate(index.tolist()):
            x[row] = stream(0, "point", number).normal(size=self.inputs)
        y[:] = x[:, :3].argmax(axis=1)


def network(seed):
    net = nn.Sequential(nn.Affine("a", 6, 9, seed), nn.Relu(), nn.Affine("b", 9, 3, seed))
    net.plan(8, np.float32)
    return net


RECIPE = Recipe(
    "toy", epochs=3, lr=0.5, batch=4, momentum=0.5, clip=0.3, schedule="exponential", warmup=0.5
)


def run_of(strategy, **methods):
    return Run("toy", RECIPE, strategy=strategy, methods=methods, seed=5)


CASES = {
    "serial": (1, run_of("serial")),
    "ddp": (5, run_of("ddp")),
    "gtc": (5, run_of("gtc", tau=0.5)),
    "gtc after a warm start": (5, run_of("gtc", tau=0.5, gtc_warmup=3)),
    "bmuf": (3, run_of("bmuf", block_steps=3)),
    "bmuf, plain mean": (3, run_of("bmuf", block_steps=3, block_momentum=0.0)),
    "hybrid": (6, run_of("gtc-bmuf", gtc_group=2, tau=0.5, block_steps=3)),
    "hybrid after a warm start": (
        6,
        run_of("gtc-bmuf", gtc_group=2, tau=0.5, block_steps=3, warm_start=4),
    ),
}


@pytest.mark.parametrize("world, run", CASES.values(), ids=CASES)
def test_workers_in_one_process_end_with_the_bits_of_ranks(tmp_path, world, run):
    steps = 11
    fleet = Fleet(run, world, network(run.seed), Points())
    for _ in range(7):
        fleet.advance()
    fleet.save(tmp_path / "state.npz")  # and what goes on from there goes on the same way
    fleet = Fleet(run, world, network(run.seed), Points())
    fleet.load(tmp_path / "state.npz")
    for _ in range(steps - 7):
        fleet.advance()
    mine = fleet.finish()
    begun = np.zeros_like(mine)
    for unit, place in zip(fleet.network.units, Layout(fleet.network.units).units, strict=True):
        unit.initialise(begun[place.place])
    assert np.abs(mine - begun).max() > 0.1
    for theirs in by_ranks(run, world, network, Points, steps):
        np.testing.assert_array_equal(mine, theirs)


def test_a_quick_table_is_stopped_goes_on_and_is_read_again(tmp_path, monkeypatch, capsys):
    """All code in small; a run that was stopped in its midst ends as it would have."""
    words = ["--quick", "--out", str(tmp_path / "a")]
    advance = Fleet.advance

    def hurt(fleet):
        if fleet.run.strategy == "gtc-bmuf" and fleet.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return advance(fleet)

    monkeypatch.setattr(Fleet, "advance", hurt)
    assert command.main(words) == 75
    assert len(list((tmp_path / "a" / "runs").glob("*.npz"))) == 1
    monkeypatch.undo()
    assert "saved after step 3" in capsys.readouterr().err

    assert command.main([*words, "--report"]) == 0
    assert "under way: gtc-bmuf-2" in capsys.readouterr().out
    assert command.main(words) == 0
    said = capsys.readouterr().out
    assert "goes on after step 3" in said
    table = (tmp_path / "a" / "tables.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| 4 | `")]
    assert len(rows) == 4 + 4 + 21 and "| +" in rows[0]
    ElementTree.parse(tmp_path / "a" / "workers.svg")
    files = {path.name: path for path in (tmp_path / "a" / "runs").iterdir()}

    packed, svg = str(tmp_path / "runs.json.gz"), tmp_path / "again.svg"
    assert command.main([*words, "--report", "--pack", packed, "--svg", str(svg)]) == 0
    assert svg.read_bytes() == (tmp_path / "a" / "workers.svg").read_bytes()
    (tmp_path / "c").mkdir()
    kept.unpack(Path(packed), QUICK, tmp_path / "c")
    again = {path.name: path for path in (tmp_path / "c" / "runs").iterdir()}
    assert again.keys() == files.keys()
    assert all(read(again[name]) == read(files[name]) for name in files)

    runs = [json.loads(path.read_text()) for path in (tmp_path / "a" / "runs").glob("*.json")]
    finals = [run for run in runs if run["job"]["workers"] == 2 and "test" in run]
    assert len({run["frames"] for run in finals}) == 1  # equal to the frame
    name = said.split(" goes on")[0].splitlines()[-1]
    stopped = json.loads((tmp_path / "a" / "runs" / f"{name}.json").read_text())
    desk = Desk(tmp_path / "b", QUICK, print)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "corpus").symlink_to(tmp_path / "a" / "corpus")
    with desk:
        again = desk.trained(Job(**stopped["job"]), "test" in stopped)
    assert again["dev"] == stopped["dev"]


def test_the_tables_of_the_book_are_those_of_the_runs_that_are_kept(capsys):
    assert command.main(["--report"]) == 0
    said = capsys.readouterr().out
    book = (TOP / "docs" / "workers.md").read_text(encoding="utf-8")
    rows = [line for line in said.splitlines() if line.startswith("|")]
    assert len(rows) > 20 and not set(rows) - set(book.splitlines())
    (hours,) = re.findall("took (.*) hours of one core", said)
    assert f"{hours} hours of one core" in book
    reading = book.partition("### How to read it")[2].partition("### ")[0]
    numbers = set(re.findall(r"\d+\.\d+", reading))
    assert len(numbers) > 30 and not numbers - set(re.findall(r"\d+\.\d+", said))


def test_spliced_frames_are_those_that_are_spliced_when_they_are_taken():
    features = stream(0, "frame").normal(size=(9, 2)).astype(np.float32)
    frames = Frames(features, np.array([0, 4, 9]), context=2)
    frames.labels = np.arange(9) % 3
    index, found = np.array([8, 0, 3, 4]), []
    for one in (frames, Spliced(frames)):
        x, y = np.zeros((4, 10), np.float32), np.zeros(4, np.int64)
        one.take(index, x, y)
        found.append((x.tolist(), y.tolist()))
    assert found[0] == found[1] and found[0][1] == [2, 0, 0, 1]


def test_what_does_not_go_together_is_refused(capsys):
    assert command.main(["--report", "--quick"]) == 2  # the kept runs are not these
    assert "of another size: give --out DIR" in capsys.readouterr().err
    for words in ([], ["--out", "a", "--svg", "a.svg"], ["--quick", "--pack", "a"]):
        with pytest.raises(SystemExit, match="2"):
            command.main(words)


def test_a_run_that_another_process_is_at_is_left_to_it(tmp_path):
    job = QUICK.start("ddp")
    hold = (
        "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX, 1, "
        "int(sys.argv[2])); print(flush=True); sys.stdin.read()"
    )
    place = str(1 + int(job.digest, 16))
    words = [sys.executable, "-c", hold, str(tmp_path / "lock"), place]
    with (
        Desk(tmp_path, QUICK, print) as desk,
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        other.stdout.readline()
        with pytest.raises(NotYet):
            desk.trained(job, False)
        other.stdin.close()


def test_what_can_be_done_is_done_while_another_process_is_at_something():
    """A method whose search is not over leaves only its own cells open; a seed only itself."""
    busy = set()

    def trained(job, test):
        if (job.method, job.workers, test and job.seed) in busy:
            raise NotYet(job.name)
        return {"dev": {"frame_error_rate": job.lr}}

    def books():
        return everything(QUICK, trained, lambda book: None)

    assert (whole := books()).whole and len(whole.causes) == 21
    busy.add(("gtc", 2, False))
    book = books()
    open_cells = {key for key, cell in book.cells.items() if not cell.runs}
    assert open_cells == {("gtc", 2), ("gtc", 4)} and not book.whole
    assert {cause.job.method for cause in book.causes} == {"ddp", "bmuf", "gtc-bmuf"}
    busy.clear()
    busy.add(("gtc", 2, 1))
    book = books()
    assert not book.whole and len(book.causes) == 21
    assert [sorted(cell.by_seed) for cell in book.cells.values()].count([0]) == 1 + 4


def test_the_search_climbs_each_ladder_and_keeps_to_its_trials():
    assert doctest.testmod(searching).failed == doctest.testmod(fleet_module).failed == 0
    start = Job("gtc", 2, 8, 1, 0, lr=1.0, tau=2.0)

    def error(job):
        return abs(job.lr / (1 - job.momentum) - 1) + abs(job.tau - 1.0) + abs(job.momentum - 0.9)

    best, tried = searching.search(start, 14, error)
    assert len(tried) <= 14 and best == min(tried, key=lambda pair: pair[1])[0]
    assert (best.tau, best.momentum) == (1.0, 0.9)


def test_an_interval_holds_the_increase_and_is_narrow_where_all_utterances_agree():
    rng = stream(0, "errors")
    base = rng.integers(0, 5, 300)

    def run(errors):
        each = {"errors": errors.tolist()}
        return {"test": {"errors": int(errors.sum()), "words": 3000, "utterances": each}}

    twice = table.increase([run(2 * base)], [run(base)], "words", 500)
    assert twice == pytest.approx((100, 100, 100))
    noisy = table.increase([run(rng.permutation(base) + 1)], [run(base)], "words", 500)
    assert 5 < noisy.high - noisy.low < 40 and noisy.low < noisy.value < noisy.high
