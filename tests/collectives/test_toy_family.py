"""A family is added as one file and one entry, and the tests of families then run on it.

A copy of the package gets `star`, right and with a mistake each; the tests of test_families.py, as
they are, pass for the right one and fail for every wrong one, where the mistake is.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

TOP = Path(__file__).resolve().parents[2]

STAR = '''
"""Everybody sends to the root, and the root to everybody."""

from refimpl.collectives.cost import Step
from refimpl.collectives.order import left_to_right


def others(p, root):
    return [rank for rank in range(p) if rank != root]


def reduce(comm, x, root=0):
    if comm.rank != root:
        comm.Send(x, root)
        return
    arrived = comm.scratch(x.size, x.dtype)
    for rank in others(comm.size, root):
        comm.Recv(arrived, rank)
        x += arrived


def broadcast(comm, x, root=0):
    if comm.rank != root:
        comm.Recv(x, root)
        return
    for rank in others(comm.size, root):
        comm.Send(x, rank)


def allreduce(comm, x):
    reduce(comm, x)
    broadcast(comm, x)


def orders(call):
    return [(slice(0, call.n), left_to_right([call.root, *others(call.p, call.root)]))]


def reduce_steps(call):
    return [Step.of(others(call.p, call.root), call.root, call.n, adds=True)]


def broadcast_steps(call):
    return [Step.of(call.root, others(call.p, call.root), call.n)]


def allreduce_steps(call):
    return reduce_steps(call) + broadcast_steps(call)
'''

ENTRY = """
from refimpl.collectives import {module}

{module} = Family(
    "{module}",
    {{
        "allreduce": Algorithm({module}.allreduce, {module}.allreduce_steps, {module}.orders),
        "broadcast": Algorithm({module}.broadcast, {module}.broadcast_steps),
        "reduce": Algorithm({module}.reduce, {module}.reduce_steps, {module}.orders),
    }},
)
EXPLICIT = (*EXPLICIT, {module})
"""

STATED = "test_a_sum_is_the_stated_one_to_the_last_bit"
TILED = "test_stated_orders_add_every_rank_once_everywhere"
COPIED = "test_copies_are_those_of_the_owners_or_the_root"
COUNTED = "test_ledger_equals_the_cost_exactly"

# What is wrong with a star, and the test that says so.
WRONG = {
    "star_that_adds_from_the_last": (
        "for rank in others(comm.size, root):\n        comm.Recv",
        "for rank in reversed(others(comm.size, root)):\n        comm.Recv",
        STATED,
    ),
    "star_that_leaves_one_out": ("x += arrived", "x[:-1] += arrived[:-1]", STATED),
    "star_that_rounds": ("x += arrived", "x[:] = (x + arrived).astype('f4')", STATED),
    "star_that_states_rank_0_twice": ("[call.root, *others(", "[0, call.root, *others(", TILED),
    "star_that_states_half": ("slice(0, call.n)", "slice(0, call.n // 2)", TILED),
    "star_that_broadcasts_what_is_there": ("        comm.Recv(x, root)\n", "", COPIED),
    "star_with_a_way_back_for_free": (" + broadcast_steps(call)", "", COUNTED),
    "star_that_counts_itself": (
        "Step.of(call.root, others(call.p, call.root)",
        "Step.of(call.root, list(range(call.p))",
        COUNTED,
    ),
    "star_that_counts_half": ("call.root, call.n, adds", "call.root, call.n // 2, adds", COUNTED),
    "star_that_says_it_twice": (
        "comm.Send(x, root)",
        "[comm.Send(x, root) for _ in 'ab']",
        COUNTED,
    ),
}


def made(module):
    """The text of the module: `star` itself, or with its mistake."""
    if module == "star":
        return STAR
    right, wrong, _ = WRONG[module]
    assert STAR.count(right) == 1, right
    return STAR.replace(right, wrong)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the package and of test_families.py in which all stars are registered."""
    top = tmp_path_factory.mktemp("copy")
    for part in "refimpl", "tests/helpers":
        shutil.copytree(TOP / part, top / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in "setup.cfg", "tests/collectives/test_families.py":
        (top / file).parent.mkdir(exist_ok=True)
        shutil.copy(TOP / file, top / file)
    folder = top / "refimpl" / "collectives"
    with (folder / "families.py").open("a", encoding="utf-8") as families:
        for module in ["star", *WRONG]:
            (folder / f"{module}.py").write_text(made(module), encoding="utf-8")
            families.write(ENTRY.format(module=module))
    return top


@pytest.fixture(scope="module")
def verdicts(copy):
    """Run its test_families.py: star -> test -> whether it passed."""
    chosen = "star- or star] or (star_ and 3)"  # the wrong ones on 3 ranks only
    pytest_here = [sys.executable, "-m", "pytest", "-q", "--tb=no", "--junit-xml=found.xml"]
    run = subprocess.run(
        [*pytest_here, "-k", chosen, "tests/collectives/test_families.py"],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 1, run.stdout[-3000:] + run.stderr[-2000:]
    found = {}
    for case in ElementTree.parse(copy / "found.xml").iter("testcase"):
        test, _, parameters = case.get("name").partition("[")
        [family] = [word for word in parameters.rstrip("]").split("-") if word.startswith("star")]
        passed = case.find("failure") is None and case.find("error") is None
        tests = found.setdefault(family, {})
        tests[test] = tests.get(test, True) and passed
    return found


def test_every_test_of_families_runs_on_a_new_one_and_a_right_one_passes(verdicts):
    text = (TOP / "tests" / "collectives" / "test_families.py").read_text(encoding="utf-8")
    tests = {
        line[4:].partition("(")[0] for line in text.splitlines() if line.startswith("def test")
    }
    about_names = {name for name in tests if name.startswith("test_names")}
    assert verdicts["star"] == dict.fromkeys(tests - about_names, True)


@pytest.mark.parametrize("module", WRONG)
def test_a_wrong_one_fails_where_it_is_wrong(verdicts, module):
    failed = {test for test, passed in verdicts[module].items() if not passed}
    assert WRONG[module][-1] in failed


EXPLAINED = """\
star reduce, 3 ranks
====================

step
   0  1->0  2->0

order of summation
  chunk 0: 0 + 1 + 2
  chunk 1: 0 + 1 + 2
  chunk 2: 0 + 1 + 2
"""


def test_explain_knows_a_new_one(copy):
    name = "'star-reduce', 3"
    code = f"from refimpl.collectives.explain import *; picture({name}); print(explain({name}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True)
    assert run.stdout == EXPLAINED, run.stderr
