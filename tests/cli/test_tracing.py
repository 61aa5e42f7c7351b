"""--trace FILE: the same for train, compare and bench."""

import pytest
from loopback import spawn

from refimpl import cli
from refimpl.cli import bench
from refimpl.run import compare
from refimpl.run.config import Recipe, Run
from refimpl.support.errors import Diverged


def stepping(comm):
    with comm.events.during("phase", "step"), comm.events.during("compute", "forward a"):
        pass


@pytest.mark.parametrize("steps, drawn", [([], 2), (["--trace-steps", "2:9"], 1)])
def test_bench_draws_all_that_is_measured_or_some_steps(tmp_path, monkeypatch, steps, drawn):
    def measured(comm, args):
        with comm.events.during("compute", "outside"):
            pass
        stepping(comm), stepping(comm)
        return {}, "text"

    monkeypatch.setitem(bench.KINDS, "step", measured)
    path = tmp_path / "t.pftrace"
    assert cli.main(["bench", "step", "--trace", str(path), *steps]) == 0
    content = path.read_bytes()
    assert content.count(b"forward a") == drawn
    assert (b"outside" in content) == (not steps)


def test_compare_draws_a_file_for_each_run_that_ends(tmp_path, monkeypatch):
    class Trainer:
        def __init__(self, comm, run, model, say, multiple):
            self.comm, self.run = comm, run

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def train(self):
            stepping(self.comm)
            if self.run.strategy == "gtc":
                raise Diverged("why")
            return {}

    monkeypatch.setattr(compare, "Trainer", Trainer)
    recipe = Recipe(task="images", epochs=1, lr=0.1)

    def body(comm):
        for name, seed in (("ddp", 0), ("ddp", 1), ("gtc", 0)):
            run = Run("mlp", recipe, strategy=name, seed=seed)
            compare._trained(comm, None, run, str, 1, (tmp_path / "t.pftrace", (1, 9)))

    spawn((0, 0), body)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t-ddp-0.pftrace", "t-ddp-1.pftrace"]
    assert (tmp_path / "t-ddp-1.pftrace").read_bytes().count(b"forward a") == 2


@pytest.mark.parametrize("command", ["train mlp", "compare mlp --strategies ddp", "bench step"])
def test_a_trace_that_cannot_be_written_is_refused_before_anything_runs(command, capsys):
    for more, said in (
        ("--trace /nowhere/t", "there is no folder"),
        ("--trace-steps 1:2", "--trace-steps needs --trace FILE"),
    ):
        assert cli.main([*command.split(), *more.split()]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line
