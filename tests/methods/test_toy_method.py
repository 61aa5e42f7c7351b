"""A method is added as one file and one line of the table, and everything else follows.

A copy of the package gets ``majority``: it trains, refuses, is counted, stands in the help and on
paper, and the tests of test_rows.py, as they are, run on it: right, and with a mistake each.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from launch import MPIEXEC, SURROUNDINGS, needs_mpiexec

TOP = Path(__file__).resolve().parents[2]
METHOD = "refimpl/methods/gradient/majority.py"

MAJORITY = '''
"""Signs with majority vote: one byte per value; what most ranks want is done, so far."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from refimpl.methods.options import POSITIVE, option
from refimpl.methods.protocol import Call, GradientAxis, GradientMethod
from refimpl.state.tree import Leaf


@dataclass(frozen=True)
class Majority(GradientMethod):
    name: ClassVar[str] = "majority"
    title: ClassVar[str] = "signs with majority vote"

    scale: float = option("--vote-scale", 1.0, "what a vote moves (default: 1)", POSITIVE)

    def build(self, context):
        return Vote(self.scale * context.frames, context)

    def traffic(self, setting, statistics=()):
        for group in setting.talking("gradient"):
            n = setting.layout.shard
            yield Call(setting, "gradient", group, "votes", "allreduce", n, itemsize=1)


class Vote(GradientAxis):
    def __init__(self, scale, context):
        self.group, self.collectives = context.groups.gradient, context.collectives
        self.scale, self.result = scale, np.zeros(context.layout.shard, context.dtype)
        self.votes = np.zeros(context.layout.shard, np.int8)

    def combine(self, gradient):
        votes = np.sign(gradient).astype(np.int8)
        with self.group.purpose("votes"):
            self.collectives.allreduce(self.group, votes)
        self.votes = np.sign(votes + self.votes).astype(np.int8)  # the last result breaks a tie
        self.result[:] = self.scale * self.votes
        return self.result

    def statistics(self):
        return {"undecided": int((self.votes == 0).sum())}

    def state(self):
        return {"votes": Leaf(self.votes, "block")}

    def load(self, tree):
        self.votes = tree["votes"].value.copy()
'''

IMPORT = "from refimpl.methods.gradient.{0} import {1}\n"
ROW = """    Strategy("{0}", "{2}", {3}, {1}, None, {{}}, "signs by majority"),\n"""

# What is wrong with a vote, and the test that says so.
EQUAL = "test_replicas_are_equal_after_every_step_and_blocks_after_every_sync"
COUNTED = "test_the_ledgers_of_all_ranks_are_the_formula"
WRONG = {
    "vote_alone": ("self.collectives.allreduce(self.group, votes)", "pass", {EQUAL, COUNTED}),
    "vote_half": ("n = setting.layout.shard", "n = setting.layout.shard // 2", {COUNTED}),
    "vote_wide": ("itemsize=1", "itemsize=4", {COUNTED}),
    "vote_other": ('purpose("votes")', 'purpose("gradients")', {COUNTED}),
    "vote_own": (
        "self.votes = np.sign(votes + self.votes)",
        "self.votes = np.sign(votes + self.group.rank)",
        {EQUAL},
    ),
    "vote_listening": (
        "self.result[:] =",
        'self.group.events.begin("phase", "vote")\n        self.result[:] =',
        {"test_a_listener_hears_begin_and_end_of_everything_and_properly_nested"},
    ),
    "vote_forgetful": (
        '{"votes": Leaf(self.votes, "block")}',
        '{"votes": Leaf(0 * self.votes, "block")}',
        {"test_a_replica_that_goes_back_to_its_state_repeats_its_steps_to_the_bit"},
    ),
    "vote_cutting": (
        "np.sign(gradient)",
        "np.sign(gradient - gradient.mean().astype(gradient.dtype))",
        {"test_a_row_trains_as_serial_or_as_its_twin_without_shards"},
    ),
}


def add(top, name, text, lengths="1 n 1", partition="Whole"):
    """Add a method as a person would: one file, its import, and one line of the table."""
    cls = name.capitalize()
    text = text.replace("class Majority", f"class {cls}").replace('"majority"', f'"{name}"')
    (top / f"refimpl/methods/gradient/{name}.py").write_text(text, encoding="utf-8")
    table = top / "refimpl/methods/strategies.py"
    source = table.read_text(encoding="utf-8")
    source = source.replace(
        "\n\n@dataclass", "\n" + IMPORT.format(name, cls) + "\n\n@dataclass", 1
    )
    row = ROW.format(name, cls, lengths, partition)
    source = source.replace(")\n# fmt: on", row + ")\n# fmt: on")
    table.write_text(source, encoding="utf-8")


def copied(top, *parts):
    for part in parts:
        shutil.copytree(TOP / part, top / part, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return a copy of what a user runs, with the method."""
    top = tmp_path_factory.mktemp("copy")
    copied(top, "refimpl", "models")
    add(top, "majority", MAJORITY)
    return top


def started(top, *words, ranks=1):
    """Run a Python on so many ranks, in the copy."""
    one = [sys.executable, *map(str, words)]
    return subprocess.run(
        one if ranks == 1 else [*MPIEXEC, "-n", str(ranks), *one],
        cwd=top,
        capture_output=True,
        text=True,
        timeout=120,
        env=SURROUNDINGS | os.environ | {"PYTHONPATH": str(top)},
    )


# Says what the command answers to each line, and what `compare` would do.
ANSWERS = """
import contextlib, io, json, sys
from types import SimpleNamespace
from refimpl import cli
from refimpl.cli import compare
from refimpl.run.modelfile import ModelFile, find

def answer(line):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = cli.main(line.split())
        except SystemExit as end:
            code = end.code
    return [code, out.getvalue(), err.getvalue()]

said = [answer(line) for line in sys.argv[1:]]
words = ["compare", "mlp", "--strategies", "ddp,majority", "--for", "majority --vote-scale 2"]
model = ModelFile.parse("mlp", find("mlp").read_text(), "mlp")
planned = compare.runs(cli.parser().parse_args(words), model, 4)
print(json.dumps([said, {name: run.methods for name, run in planned.items()}]))
"""


def test_one_file_and_one_line_are_refused_shown_and_planned(checkout):
    lines = (
        "train mlp --strategy majority --vote-scale -1",
        "train mlp --strategy majority --tau 3",
        "train mlp --strategy ddp --vote-scale 2",
        "topology -n 4 --strategy majority --parameters 1000 --vote-scale 3",
        "train --help",
    )
    run = started(checkout, "-c", ANSWERS, *lines)
    assert run.returncode == 0, run.stderr
    [negative, tau, ddp, topology, help_text], planned = json.loads(run.stdout)
    for (code, out, error), words in (
        (negative, "--vote-scale -1.0: must be a positive, finite number"),
        (tau, "--tau 3.0 does not go with strategy majority"),
        (ddp, "--vote-scale 2.0 does not go with strategy ddp: .* --strategy majority"),
    ):
        assert code == 2 and not out and re.search(words, error.splitlines()[-1]), error
    assert topology[0] == 0 and "6,000 bytes" in topology[1]
    assert help_text[0] == 0
    group = help_text[1].split("signs with majority vote:\n")[1].split("\n\n")[0]
    assert group.split() == ["--vote-scale", "X", "what", "a", "vote", "moves", "(default:", "1)"]
    assert planned == {"ddp": {}, "majority": {"vote_scale": 2.0}}


@needs_mpiexec
def test_it_trains_on_four_ranks_and_sends_what_topology_prints(checkout, tmp_path):
    steps = 3
    words = ["-m", "mpi4py", "-m", "refimpl", "train", "mlp", "--strategy", "majority"]
    more = ["--vote-scale", 0.001, "--set", "hidden=8", "--steps", steps, "--log-every", 1]
    run = started(checkout, *words, *more, "--out", tmp_path / "run", ranks=4)
    assert run.returncode == 0, run.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["strategy"] == "majority" and config["methods"] == {"vote_scale": 0.001}
    lines = (tmp_path / "run" / "steps.jsonl").read_text().splitlines()
    assert all("undecided" in json.loads(line)["compression"] for line in lines)
    paper = ["topology", "-n", 4, "--strategy", "majority", "--parameters", summary["parameters"]]
    printed = started(checkout, "-m", "refimpl", *paper).stdout
    messages, nbytes = re.search(
        r"inside nodes +([\d,]+) messages +([\d,]+) bytes", printed
    ).groups()
    assert summary["ledger"]["intra"] == {
        "messages": steps * int(messages.replace(",", "")),
        "bytes": steps * int(nbytes.replace(",", "")),
    }


# ----------------------------------------------------- the tests of all rows, as they are

# Leaves the tests of the votes on 2 x 2 ranks: all of them, or those that find the mistake.
CHOICE = """
def pytest_collection_modifyitems(items):
    wanted = {0}
    items[:] = [
        item
        for item in items
        for name, tests in wanted.items()
        if f"[{{name}} 4 partition=2" in item.name or f"[{{name}}-" in item.name
        if not tests or item.originalname in tests
    ]
"""


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory):
    """Run the tests of rows on all votes: vote -> test -> whether it passed."""
    top = tmp_path_factory.mktemp("rows")
    copied(top, "refimpl", "models", "tests/helpers")
    for file in "setup.cfg", "tests/methods/test_rows.py", "tests/state/test_tree.py":
        (top / file).parent.mkdir(exist_ok=True)
        shutil.copy(TOP / file, top / file)
    add(top, "majority", MAJORITY, "P n 1", "Sharded")
    for name, (right, wrong, _) in WRONG.items():
        assert MAJORITY.count(right) == 1, right
        text = MAJORITY.replace(right, wrong).replace(
            "--vote-scale", f"--{name}-scale".replace("_", "-")
        )
        add(top, name, text, "P n 1", "Sharded")
    wanted = {name: sorted(tests) for name, (*_, tests) in WRONG.items()} | {"majority": []}
    (top / "conftest.py").write_text(CHOICE.format(wanted), encoding="utf-8")
    pytest_here = ["-m", "pytest", "-q", "--tb=no", "--junit-xml=found.xml"]
    run = started(top, *pytest_here, "tests/methods/test_rows.py", "tests/state/test_tree.py")
    assert run.returncode == 1, run.stdout[-3000:] + run.stderr[-2000:]
    found = {}
    for case in ElementTree.parse(top / "found.xml").iter("testcase"):
        test, _, parameters = case.get("name").partition("[")
        [name] = [one for one in ("majority", *WRONG) if one in parameters.split(" ")[0]]
        passed = case.find("failure") is None and case.find("error") is None
        tests = found.setdefault(name, {})
        tests[test] = tests.get(test, True) and passed
    return found


def test_every_test_of_rows_runs_on_a_new_one_and_a_right_one_passes(verdicts):
    text = (TOP / "tests/methods/test_rows.py").read_text(encoding="utf-8")
    tests = {*re.findall(r"^def (test_\w+)", text, re.M), *WRONG["vote_forgetful"][-1]}
    tests -= set(re.findall(r"blocks > 1.*\ndef (test_\w+)", text))  # the new row has none
    assert tests <= set(verdicts["majority"])
    assert all(verdicts["majority"].values()), verdicts["majority"]


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_fails_where_it_is_wrong(verdicts, name):
    failed = {test for test, passed in verdicts[name].items() if not passed}
    assert WRONG[name][-1] <= failed
