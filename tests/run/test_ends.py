"""How runs end: a number that cannot be, seen by one rank, ends the run on all of them."""

import os
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import pytest
from beeps import beeps
from jobs import images
from launch import CHECKOUT, MPIEXEC, SURROUNDINGS, launched, needs_mpiexec
from loopback import spawn

from refimpl import cli, nn
from refimpl.optim.schedule import Decision, Newbob
from refimpl.run import meeting
from refimpl.run.config import Recipe, Run
from refimpl.run.folder import RunFolder
from refimpl.run.modelfile import ModelFile
from refimpl.run.trainer import Trainer
from refimpl.state.tree import Leaf
from refimpl.support.errors import Diverged, UserError
from refimpl.tasks import table as tasks
from refimpl.tasks.images.task import ImageTask
from refimpl.world.threads import OverThreads


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(tasks, "prepare", lambda *given: images())


def model(rank, bad=None, where=1, when=3, units=("a", "b")):
    """A model file whose unit ``b`` has one bad gradient, on one rank in one step."""

    class Faulty(nn.Affine):
        steps = 0

        def bind(self, parameters, gradients=None):
            super().bind(parameters, gradients)
            self.own = gradients

        def backward(self, dy, input_gradient=True):
            dx = super().backward(dy, input_gradient)
            self.steps += 1
            if self.steps == when and rank == where and bad is not None:
                self.own[-1] = bad
            return dx

    def build(seed, inputs, classes):
        a, b = units
        first = nn.Affine(a, inputs, 4, seed)
        return nn.Sequential(first, nn.Tanh(), Faulty(b, 4, classes, seed))

    module = SimpleNamespace(build=build, __spec__=SimpleNamespace(origin="here"))
    return ModelFile("net", "", module)


def run_of(strategy, given=None, steps=6, **changes):
    recipe = {"batch": 4, "lr": 0.1, **changes.pop("recipe", {})}
    recipe = Recipe(task="images", epochs=9, **recipe)
    return Run("net", recipe, strategy=strategy, methods=given or {}, steps=steps, **changes)


def trained(run, ranks, **faulty):
    """Train on ranks that are threads; return what each of them ends with."""

    def body(comm):
        try:
            with Trainer(comm, run, model(comm.rank, **faulty), lambda text: None) as trainer:
                return trainer.train()
        except Diverged as error:
            return str(error)

    return spawn((0,) * ranks, body)


EVERY = {
    "ddp": {},
    "zero1": {},
    "zero2": {},
    "zero3": {},
    "mics": {"partition": 2},
    "gtc": {"tau": 0.5},
    "onebit": {},
    "bmuf": {"block_steps": 4},
    "gtc-bmuf": {"gtc_group": 2, "block_steps": 4},
    "mics-gtc": {"partition": 2},
    "mics-bmuf": {"partition": 2, "block_steps": 4},
    "mics-gtc-bmuf": {"partition": 1, "gtc_group": 2, "block_steps": 4},
    "diloco": {"block_steps": 4},
    "topk": {"topk": 1, "topk_chunk": 4, "topk_values": "two-bit"},
}


@pytest.mark.parametrize(
    "reduction, clip, bad",
    [("float", None, np.nan), ("float", 1, np.inf), ("exact", None, np.inf), ("exact", 1, np.nan)],
)
@pytest.mark.parametrize("strategy", EVERY)
def test_a_bad_gradient_is_found_in_its_step_on_all_ranks(small, strategy, reduction, clip, bad):
    run = run_of(strategy, EVERY[strategy], reduction=reduction, recipe={"clip": clip and 1.0})
    told = trained(run, 4, bad=bad)
    assert len(set(told)) == 1, told
    assert told[0].startswith("training diverged in step 3: the gradient of unit b"), told
    assert told[0].endswith("; lower --lr (it is 0.1) or set --clip")
    if reduction == "exact" or not {"zero1", "zero2", "zero3", "partition"} & {
        strategy,
        *EVERY[strategy],
    }:
        assert "on rank 1;" in told[0], told


def test_serial_and_every_microstep_find_it_too(small):
    (told,) = trained(run_of("serial"), 1, bad=np.nan, where=0)
    assert "in step 3: the gradient of unit b is not finite on rank 0" in told
    run = run_of("ddp", {"sync": "every-microstep"}, recipe={"microsteps": 2})
    told = trained(run, 2, bad=np.nan, when=4)
    assert [text.split(";")[0] for text in told] == [
        "training diverged in step 2: the gradient of unit b is not finite on rank 1"
    ] * 2


def test_steps_count_on_after_newbob_has_gone_back_an_epoch_and_after_a_checkpoint(
    small, monkeypatch
):
    monkeypatch.setattr(Newbob, "decide", lambda self, loss: Decision(accept=False, stop=False))
    run = run_of("serial", steps=None, recipe={"schedule": "newbob"})
    (told,) = trained(run, 1, bad=np.nan, where=0, when=26)
    assert "in step 26: " in told

    def body(comm):
        with Trainer(comm, run, model(0), lambda text: None) as trainer:
            trainer.load(trainer.state() | {"step": Leaf(30)})
            return trainer.replica.faults.step

    assert spawn((0,), body) == [30]


def test_what_exact_sums_have_no_room_for_ends_the_run_on_all_ranks(small):
    told = trained(run_of("ddp", reduction="exact"), 2, bad=2.0**30)
    assert len(set(told)) == 1
    assert "in step 3: the gradient of unit b is out of the range of --reduction exact" in told[0]


def test_ranks_meet_within_an_epoch_too(small, monkeypatch):
    monkeypatch.setattr(meeting, "MEET", 2)
    seen = []

    class Watched(Trainer):
        def batch(self, microstep):
            seen.append(self.step)
            return super().batch(microstep)

    def body(comm):
        with (
            pytest.raises(Diverged),
            Watched(comm, run_of("gtc", steps=None), model(comm.rank, np.nan)) as trainer,
        ):
            trainer.train()

    spawn((0, 0), body)
    assert max(seen) == 3  # counted from 0: two steps, met; two steps, met


class Realigning(ImageTask):
    """A task whose dev has other targets after the first epoch."""

    def realign_after(self, epoch):
        return epoch == 1

    def realign(self, outputs, comm):
        self.splits["dev"].labels[:] = (self.splits["dev"].labels + 1) % 3
        return 1.0


def test_newbob_compares_the_next_epoch_on_the_targets_that_are_new(monkeypatch):
    """Else a network that is no worse is thrown away, for targets that are harder."""
    plain = images()
    monkeypatch.setattr(tasks, "prepare", lambda *given: Realigning(plain.inputs, plain.splits))
    run = run_of("serial", steps=24, recipe={"schedule": "newbob"})

    def body(comm):
        with Trainer(comm, run, model(0), lambda text: None) as trainer:
            trainer.train()
            now = trainer.task.evaluate("dev", trainer.outputs, comm, words=False)["loss"]
            return trainer.schedule.state()["best"], now

    ((best, now),) = spawn((0,), body)
    assert best == now


@pytest.mark.parametrize("steps", [1, 8])
def test_speech_without_exact_targets_diverges_in_a_row_too(steps, capsys, tmp_path):
    """Scoring aligns the words of dev with what the network says, be it nonsense."""
    corpus = tmp_path / "corpus"
    beeps(corpus)
    for split in ("train", "dev", "test"):
        (corpus / split / "ctm").unlink()
    common = ["acoustic_mlp", "--data", str(corpus), "--set", "hidden=8", "--steps", str(steps)]
    rest = ["--batch", "32", "--strategies", "ddp,bmuf", "--for", "ddp --lr 1e30"]
    assert cli.main(["compare", *common, *rest]) == 0
    said, error = capsys.readouterr()
    assert error == "" and said.count("training diverged") == 1
    assert "diverged" in said.splitlines()[-2] and said.splitlines()[-1].count("%") >= 2


@needs_mpiexec
def test_on_mpi_a_comparison_goes_on_after_what_one_rank_alone_has_seen(tmp_path):
    """Rank 1's gradient is beyond exact sums in one of the strategies only."""
    file = tmp_path / "net.py"
    file.write_text(
        "from refimpl import nn\nfrom refimpl.run.config import Recipe\n"
        "class Faulty(nn.Affine):\n"
        "    def bind(self, parameters, gradients=None):\n"
        "        super().bind(parameters, gradients); self.own = gradients\n"
        "    def backward(self, dy, input_gradient=True):\n"
        "        from mpi4py import MPI\n"
        "        dx = super().backward(dy, input_gradient)\n"
        "        if self.bad and MPI.COMM_WORLD.rank == 1: self.own[-1] = 1e30\n"
        "        return dx\n"
        "def build(seed, inputs, classes, bad=0):\n"
        "    layer = Faulty('a', inputs, classes, seed); layer.bad = bad\n"
        "    return nn.Sequential(layer)\n"
        "def recipe(): return Recipe(task='images', epochs=1, lr=0.1)\n"
    )
    options = ("--strategies", "serial,ddp,bmuf", "--reduction", "exact", "--steps", 4)
    run = launched(2, "compare", file, *options, "--for", "ddp --set bad=1", timeout=100)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    assert "in step 1: the gradient of unit a is out of the range" in run.stdout
    assert [line.split()[1] == "diverged" for line in run.stdout.splitlines()[-3:]] == [
        False,
        True,
        False,
    ]


ROUNDS = """
import sys
import numpy as np
from mpi4py import MPI
sys.path[:0] = ["tests/helpers", "tests/run"]
import test_ends
from refimpl.tasks import table
from refimpl.world.communicator import Communicator

table.prepare = lambda *given: test_ends.images()
held = [MPI.COMM_WORLD.Dup() for _ in range(1750)]
comm = Communicator(MPI.COMM_WORLD, ranks_per_node=1)
run = test_ends.run_of("mics-gtc", {"partition": 2}, steps=1, collectives="hierarchical")
for round in range(60):
    model = test_ends.model(comm.rank)
    with test_ends.Trainer(comm, run, model, lambda text: None) as trainer:
        trainer.replica.step(trainer.batch, 0.1)
print(f"all {round + 1}")
"""


@pytest.mark.parametrize(
    "run, bad",
    [
        ({}, None),
        ({"collectives": "hierarchical"}, None),
        ({}, np.nan),
        ({"options": {"width": "3"}}, None),
        ({"recipe": {"batch": 99}}, None),
    ],
    ids=["end", "levels", "divergence", "wrong option", "too few examples"],
)
def test_groups_are_given_back_however_a_run_ends(small, monkeypatch, run, bad):
    made, counted = [], []
    split, free = OverThreads.split, OverThreads.free

    def splitting(self, color, key):
        part = split(self, color, key)
        made.append(part[0])
        counted.append(part[0])
        return part

    def freeing(self):
        made.remove(self)
        free(self)

    monkeypatch.setattr(OverThreads, "split", splitting)
    monkeypatch.setattr(OverThreads, "free", freeing)
    run = run_of("mics", {"partition": 2}, **run)
    with suppress(UserError):
        trained(run, 4, bad=bad)
    assert counted and not made


@needs_mpiexec
def test_more_runs_than_mpi_has_communicators_for():
    """MPICH has 2,048; 1,750 are held here, and a run with hierarchical collectives takes six."""
    command = [*MPIEXEC, "-n", "2", sys.executable, "-m", "mpi4py", "-c", ROUNDS]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=380,
        cwd=CHECKOUT,
        env=SURROUNDINGS | os.environ,
    )
    assert run.returncode == 0 and run.stdout.count("all 60") == 2, run.stderr[-2000:]


@pytest.mark.parametrize("strategy", ["ddp", "gtc", "onebit", "bmuf"])
def test_a_good_run_is_not_stopped_by_numbers_that_are_only_large(small, strategy):
    """Gradients whose squares overflow float32 are finite."""
    summary = trained(run_of(strategy, steps=2, recipe={"clip": 1.0}), 2, bad=1e25, when=2)[0]
    assert isinstance(summary, dict), summary


BLOWN_UP = [
    ("--lr 1e30", "--steps 20"),
    ("--lr 1e30 --clip 1", "--steps 20"),
    ("--lr 1e30", "--steps 20 --reduction exact"),
    ("--lr 1e30 --clip 1", "--steps 20 --reduction exact"),
    ("--lr 1e30", "--steps 1"),  # by the last update
    ("--lr 1e30", "--steps 1 --reduction exact"),
]


@pytest.mark.parametrize("rate, options", BLOWN_UP)
def test_a_run_that_diverges_is_a_row_and_the_others_follow(
    small, rate, options, capsys, tmp_path
):
    common = ["mlp", "--set", "hidden=8", "--batch", "8", *options.split()]
    rest = ["--strategies", "ddp,bmuf", "--for", f"ddp {rate}"]
    assert cli.main(["compare", *common, *rest]) == 0
    said, error = capsys.readouterr()
    assert error == "" and said.count("training diverged") == 1
    assert [line.split()[0] for line in said.splitlines()[-2:]] == ["ddp", "bmuf"]
    assert "diverged" in said.splitlines()[-2] and "%" in said.splitlines()[-1]

    out = tmp_path / "run"
    assert cli.main(["train", *common, *rate.split(), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("refimpl: error: training diverged") and error.count("\n") == 1
    with pytest.raises(UserError, match="has failed .training diverged"):
        RunFolder.finished(out)


def test_commands_that_read_a_run_say_that_it_has_failed(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Diverged), RunFolder.create(out, {}, ""):
        raise Diverged("in step 3")
    for command in (["evaluate", out, "--data", "x"], ["decode", out, "x.wav"]):
        run = launched(1, *command)
        assert run.returncode == 2 and "has failed (in step 3)" in run.stderr


@pytest.mark.parametrize("size, warned", [(1e-14, True), (1e-9, False)])
def test_gradients_that_exact_sums_lose_altogether_are_told(small, size, warned):
    said = []

    class Tiny(nn.Affine):
        def bind(self, parameters, gradients=None):
            super().bind(parameters, gradients)
            self.own = gradients

        def backward(self, dy, input_gradient=True):
            dx = super().backward(dy, input_gradient)
            self.own[:] = size
            return dx

    file = model(0)
    file.module.build = lambda seed, inputs, classes: nn.Sequential(
        Tiny("b", inputs, classes, seed)
    )
    run = run_of("ddp", reduction="exact", recipe={"optimizer": "adam"})
    with np.errstate(all="ignore"):
        (summary,) = spawn((0,), lambda comm: Trainer(comm, run, file, said.append).train())
    assert summary["steps"] == 6
    told = [line for line in said if line.startswith("warning: the gradient of unit b was below")]
    assert bool(told) == warned == ("--reduction float" in "".join(said))


def test_exact_sums_of_more_digits_than_they_keep_are_refused():
    with pytest.raises(UserError, match="--dtype float64 brings"):
        run_of("ddp", reduction="exact", dtype="float64").check(2)
