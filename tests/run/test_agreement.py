"""Ranks that were told, read or built different things are refused before the first step."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import idx_files
import numpy as np
import pytest
from launch import apart, launched, needs_mpiexec
from loopback import spawn

import refimpl
from refimpl.run import alike
from refimpl.run.alike import digest_of
from refimpl.run.compare import compare
from refimpl.run.config import Recipe, Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.trainer import Trainer
from refimpl.support.errors import UserError
from refimpl.tasks.images import toy
from refimpl.world.agree import on_first_rank, same

RECIPE = Recipe(task="images", epochs=1, lr=0.1, batch=32)
RUN = Run("mlp", RECIPE, {"hidden": "8"}, steps=2)

# By what one rank was told, what all are told of it.
TOLD = {
    "--seed is 0 on ranks 0, 1 but 5 on rank 2": {"seed": 5},
    "--strategy is 'ddp' on ranks 0, 1 but 'gtc' on rank 2": {"strategy": "gtc"},
    "--strategy is .* but 'serial' on rank 2": {"strategy": "serial"},
    "--tau is not there on ranks 0, 1 but 2.0 on rank 2": {"methods": {"tau": 2.0}},
    "--prefetch is not there .* True on rank 2": {"methods": {"prefetch": True}},
    "--collectives is 'ring' .* 'tree'": {"collectives": "tree"},
    "--reduction is 'float' .* 'exact'": {"reduction": "exact"},
    "--dtype is 'float32' .* 'float64'": {"dtype": "float64"},
    "--steps is 2 .* 3 on rank 2": {"steps": 3},
    "--data is not given .* '/tmp'": {"data": "/tmp"},
    "--set hidden is '8' .* '9'": {"options": {"hidden": "9"}},
    "MODEL is 'mlp' .* 'other'": {"model": "other"},
    "--ranks-per-node is not given .* but 1 on rank 2": {"ranks_per_node": 1},
}
RECIPES = {
    "--lr is 0.1 on ranks 0, 1 but 0.2 on rank 2": {"lr": 0.2},
    "--lr is .* -1.0 on rank 2": {"lr": -1.0},
    "--batch is 32 .* 16": {"batch": 16},
    "--microsteps is 1 .* 2": {"microsteps": 2},
    "--epochs is 1 .* 2": {"epochs": 2},
    "--optimizer is 'momentum' .* 'adam'": {"optimizer": "adam"},
    "--momentum is not given .* 0.5": {"momentum": 0.5},
    "--clip is not given .* 1.0": {"clip": 1.0},
    "--schedule is 'constant' .* 'newbob'": {"schedule": "newbob"},
    "--decay is not given .* 0.5": {"decay": 0.5},
    "the recipe's task is 'images' .* 'acoustic'": {"task": "acoustic"},
    "the recipe's context is not there .* 3 on rank 2": {"settings": {"context": 3}},
}
RECIPES = {message: {"recipe": replace(RECIPE, **change)} for message, change in RECIPES.items()}


def refused_on_all(message, body, ranks=3):
    """Check that body(comm) is refused on all ranks with one message, which matches."""

    def refused(comm):
        with pytest.raises(UserError, match=message) as error:
            body(comm)
        return str(error.value)

    assert len(set(spawn((0,) * ranks, refused))) == 1


@pytest.mark.parametrize("message", [*TOLD, *RECIPES])
def test_a_rank_that_was_told_something_else_is_named_with_the_option(message):
    change = (TOLD | RECIPES)[message]

    def body(comm):
        run = replace(RUN, **change) if comm.rank == 2 else RUN
        Trainer(comm, run, ModelFile.open("mlp", comm), lambda text: None)

    refused_on_all(f"^ranks differ: {message}", body)


def test_a_rank_whose_code_is_another_is_named(monkeypatch):
    here = threading.local()
    monkeypatch.setattr(alike, "place", lambda: here.place)
    monkeypatch.setattr(alike, "files", lambda: "other" if here.place == "b" else "same")

    def body(comm):
        here.place = "abc"[comm.rank]
        Trainer(comm, RUN, ModelFile.open("mlp", comm), lambda text: None)

    message = "the digest of its code is 'same' on ranks 0, 2 but 'other' on rank 1"
    refused_on_all(f"^ranks differ: {message}", body)


def test_one_rank_reads_the_code_for_all_that_have_it_in_the_same_place(monkeypatch):
    here, read = threading.local(), []
    monkeypatch.setattr(alike, "place", lambda: here.place)
    monkeypatch.setattr(alike, "files", lambda: read.append(here.place) or here.place)

    def body(comm):
        here.place = "abab"[comm.rank]
        return alike.code(comm)["the digest of its code"]

    assert spawn((0,) * 4, body) == ["a", "b", "a", "b"]
    assert sorted(read) == ["a", "b"]


def test_the_digest_of_the_code_is_of_names_and_contents(tmp_path, monkeypatch):
    monkeypatch.setattr(refimpl, "__file__", str(tmp_path / "__init__.py"))
    seen = set()
    for name, text in ("a.py", "1"), ("a.py", "2"), ("b.py", "2"), ("sub/b.py", "2"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        seen.add(alike.files.__wrapped__())
        assert alike.files.__wrapped__() in seen
    assert len(seen) == 4


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('Affine("b", 8, classes, seed)', 'Affine("c", 8, classes, seed)', "name of layer 2 is"),
        ("nn.Relu()", "nn.Tanh()", "layer 1 is 'Relu' on rank 0 but 'Tanh' on rank 1"),
        ("8, seed)", "8, seed + 1)", "seed of layer 0 is 0 on rank 0 but 1 on rank 1; the digest"),
        ("seed), nn", "seed, 0.5), nn", "the digest of layer 0's initial values is"),
        ("nn.Relu()", "nn.Relu(), nn.Relu()", "layer 2 is 'Affine' on rank 0 but 'Relu' on"),
    ],
)
def test_a_network_that_is_another_on_one_rank_is_refused(old, new, message):
    text = """
from refimpl import nn
from refimpl.run.config import Recipe
def build(seed, inputs, classes, hidden=8):
    return nn.Sequential(nn.Affine("a", inputs, 8, seed), nn.Relu(),
                         nn.Affine("b", 8, classes, seed))
def recipe():
    return Recipe(task="images", epochs=1, lr=0.1)
"""
    assert old in text

    def body(comm):
        mine = text.replace(old, new, 1) if comm.rank else text
        Trainer(comm, RUN, ModelFile.parse("net", mine, "net.py"), lambda text: None)

    refused_on_all(f"^ranks differ: {message}", body, ranks=2)


def images(folder, train, test, first=0):
    folder.mkdir()
    for stem, split, count in (("train", "train", train), ("t10k", "test", test)):
        pixels, labels = toy.images(split, first, first + count)
        idx_files.write(folder / f"{stem}-images-idx3-ubyte", pixels)
        idx_files.write(folder / f"{stem}-labels-idx1-ubyte", labels)


@pytest.mark.parametrize(
    "train, test, first, message",
    [
        (240, 50, 0, "the number of images in train is 250 on rank 0 but 200 on rank 1"),
        (300, 49, 0, "the number of images in test is 50 on rank 0 but 49 on rank 1"),
        (300, 50, 7, "the digest of images in train is '.*' on rank 0 but '.*' on rank 1"),
        (60, 50, 0, "the number of images in train is 250 on rank 0 but 50 on rank 1"),
    ],
)
def test_data_that_are_others_on_one_rank_are_refused(
    tmp_path, monkeypatch, train, test, first, message
):
    """Each machine has its own disk, here by the rank: the same path leads to other files."""
    images(tmp_path / "0", 300, 50)
    images(tmp_path / "1", train, test, first)
    real = replace(RUN, data=str(tmp_path / "data"))
    from refimpl.tasks.images import task

    pairs = {rank: task._mnist(tmp_path / rank) for rank in "01"}
    rank = {}

    def mnist(folder):
        import threading

        return pairs[rank[threading.get_ident()]]

    monkeypatch.setattr(task, "_mnist", mnist)

    def body(comm):
        import threading

        rank[threading.get_ident()] = str(comm.rank)
        Trainer(comm, real, ModelFile.open("mlp", comm), lambda text: None)

    refused_on_all(f"^ranks differ: {message}", body, ranks=2)


def test_strategies_and_seeds_of_a_comparison_are_the_same_on_all_ranks():
    def body(comm):
        model = ModelFile.open("mlp", comm)
        compare(comm, model, {"ddp": RUN}, 1 + (comm.rank == 1), lambda text: None)

    refused_on_all("^ranks differ: --seeds is 1 on rank 0 but 2 on rank 1", body, ranks=2)


@pytest.mark.parametrize(
    "error, told",
    [
        (UserError("mine"), UserError("mine")),
        (OSError(36, "File name too long", "aaa"), UserError("'aaa': File name too long: give")),
        (MemoryError(), UserError("not enough memory: give less")),
        (BrokenPipeError("gone"), BrokenPipeError("gone")),
    ],
)
def test_what_stops_the_first_rank_is_told_to_those_that_wait_for_it(error, told):
    def work():
        raise error

    others = []
    mpi = SimpleNamespace(
        rank=0,
        Ibarrier=lambda: SimpleNamespace(Test=lambda: True),
        bcast=lambda outcome: others.append(outcome) or outcome,
    )
    with pytest.raises(type(told), match=str(told)):
        on_first_rank(mpi, work)
    assert [type(one) for one in others] == [type(told)]


def test_a_state_has_one_digest_whatever_its_order_and_another_for_another_value():
    state = {"priors": np.array([0.5, 0.5]), "word_penalty": -3.0, "settings": {"bands": 40}}
    digest = digest_of(state)
    assert digest == digest_of(dict(reversed(state.items())))
    for name, value in (
        ("priors", np.array([0.5, 0.25])),
        ("word_penalty", -1.0),
        ("settings", {"bands": 41}),
    ):
        assert digest_of(state | {name: value}) != digest


def test_what_is_alike_is_not_refused_and_what_differs_is_counted():
    nan = float("nan")
    spawn((0, 0), lambda comm: same(comm, {"nan": nan, "list": [1, nan], "none": None}))

    def body(comm):
        same(comm, {f"option{i}": comm.rank * i for i in range(9)} | {"text": "x" * 1000})

    refused_on_all(
        "^ranks differ: option1 is 0 on rank 0 but 1 on ranks? 1.*; option2 is .*; option3 is .*; "
        "and 5 more: give the same to all ranks$",
        body,
        ranks=7,
    )


TRAIN = ("train", "mlp", "--steps", 2, "--set", "hidden=8", "--out", "run")
APART = {
    "--seed is not given on rank 0 but 1 on rank 1": (*TRAIN, "--seed", 1),
    "--lr is not given on rank 0 but 0.3 on rank 1": (*TRAIN, "--lr", 0.3),
    "--strategy is not given on rank 0 but 'bmuf' on rank 1": (*TRAIN, "--strategy", "bmuf"),
    "--ranks-per-node is not given on rank 0 but 1 on": (*TRAIN, "--ranks-per-node", 1),
    "--data is not given on rank 0 but '/nowhere' on": (*TRAIN, "--data", "/nowhere"),
    "--out is 'run' on rank 0 but 'other' on rank 1": (*TRAIN[:-1], "other"),
    "MODEL is 'mlp' on rank 0 but 'acoustic_mlp'": (TRAIN[0], "acoustic_mlp", *TRAIN[2:]),
    "the command is 'train' on rank 0 but 'compare' on rank 1": ("compare", "mlp"),
    "the command is 'train' on rank 0 but 'topology' on rank 1": ("topology", "-n", 4),
    "the command is 'train' on rank 0 but '--help' on rank 1": ("train", "--help"),
    "unrecognized arguments: --bogus": (*TRAIN, "--bogus"),
}


@needs_mpiexec
@pytest.mark.parametrize("message", APART)
def test_on_an_mpi_it_is_one_line_and_exit_code_2(tmp_path, message):
    run = apart(TRAIN, APART[message], cwd=tmp_path, timeout=60)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("refimpl: error: ") and message in run.stderr
    assert run.stderr.count("refimpl: ") == 1 and "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


ENDS = {
    "exit 0": "if rank == 1: sys.exit(0)",
    "at once": "import os; os._exit(3 * rank)",
    "own": "if rank == 0: raise BaseException('mine')",
    "later": "",
}


@needs_mpiexec
@pytest.mark.parametrize("end", ENDS)
def test_a_model_file_that_ends_python_ends_no_run_as_if_it_were_done(tmp_path, end):
    """On one rank or on all: one line with file and line; in the midst of a step a traceback."""
    (tmp_path / "net.py").write_text(
        "import os, sys\n"
        "from refimpl import nn\n"
        "from refimpl.run.config import Recipe\n"
        "from mpi4py import MPI\n"
        "rank = MPI.COMM_WORLD.rank\n"
        f"{ENDS[end]}\n"
        "class Last(nn.Affine):\n"
        "    def backward(self, *args, **given): os._exit(0)\n"
        "def build(seed, inputs, classes):\n"
        "    return nn.Sequential(Last('a', inputs, classes, seed))\n"
        "def recipe(): return Recipe(task='images', epochs=1, lr=0.1)\n"
    )
    run = launched(2, "train", "net.py", "--out", "run", cwd=tmp_path, timeout=60)
    if end == "later":
        assert run.returncode == 1 and "SystemExit: 0" in run.stderr
    else:
        assert run.returncode == 2 and run.stderr.count("\n") == 1, run.stderr
        assert run.stderr.startswith("refimpl: error: model file net.py, line 6: ")
    assert not (tmp_path / "run" / "summary.json").exists()
