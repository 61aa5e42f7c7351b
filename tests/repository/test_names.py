"""Strategies and methods are named in the table and in their own room, and nowhere else.

Whoever needs to know what a strategy does asks its row.  A name in a text for people is none.
"""

import ast
import re
from pathlib import Path

import pytest

from refimpl.methods import strategies
from refimpl.methods.strategies import STRATEGIES, Lengths

TOP = Path(__file__).resolve().parents[2]
WORDS = {"exact", "whole"}  # what sums and values are called, too
NAMES = {row.name for row in STRATEGIES.values()} | {
    one.name for one in strategies.methods() if one is not Lengths
}

# file -> the names in it, and why.
KNOWN = {
    "refimpl/cli/bench.py": {"gtc"},  # `refimpl bench gtc`, a benchmark's name
    "refimpl/golden/cases/onebit.py": {"onebit"},  # seeds of draws
    "refimpl/golden/cases/trained.py": {"gtc", "onebit"},  # whose messages are recorded
    # Cases of one option of one method, on a row that has it.
    "refimpl/golden/cases/training.py": {
        *("bmuf", "diloco", "gtc", "gtc-bmuf", "mics-diloco", "mics-gtc", "zero3")
    },
    "refimpl/golden/cases/varied.py": {
        *("bmuf", "diloco", "gtc", "gtc-bmuf", "mics-gtc", "onebit", "topk")
    },
    "refimpl/golden/operations/blocks.py": {"bmuf"},  # the operation's name
    "refimpl/plan/text.py": {"ddp", "mics", "zero"},  # the command that is recommended
    "refimpl/run/bench/gtc.py": {"ddp", "gtc", "gtc-bmuf"},  # what is measured side by side
    "refimpl/run/config.py": {"ddp"},  # what a `Run` is by default
}


def names_in(text):
    """Return the names that stand as texts of their own, or begin a text that is filled in."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} & (NAMES - WORDS)
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            begins = node.values[0].value
            if re.fullmatch(r"[a-z]+", begins):
                found |= {begins for name in NAMES if re.fullmatch(begins + r"\d", name)}
    return found


def files():
    """Return the package's files outside of the room, and the models."""
    for path in sorted([*TOP.glob("refimpl/**/*.py"), *TOP.glob("models/*.py")]):
        name = path.relative_to(TOP).as_posix()
        if not name.startswith("refimpl/methods/"):
            yield name, path.read_text(encoding="utf-8")


def test_no_other_place_names_a_strategy_or_a_method():
    found = {name: names_in(text) for name, text in files()}
    assert {name: names for name, names in found.items() if names} == KNOWN


def test_in_their_own_room_only_the_table_and_a_methods_own_line_name_one():
    """Docstrings with examples aside, which are no constants of their own."""
    for path in (TOP / "refimpl" / "methods").rglob("*.py"):
        if path.name == "strategies.py":
            continue
        text = path.read_text(encoding="utf-8")
        own = set(re.findall(r'^    name: ClassVar\[str\] = "(\S+)"$', text, re.M))
        assert names_in(text) <= own, path


@pytest.mark.parametrize(
    "text, names",
    [
        ("if row.name == 'gtc': pass", {"gtc"}),
        ("x = ['ddp', 'mics-gtc']", {"ddp", "mics-gtc"}),
        ("f'zero{stage}'", {"zero"}),
        ("'''gtc is a method'''\nx = 'gtc --tau 8', 'exact', f'gtc {n}'", set()),
    ],
)
def test_names_are_found(text, names):
    assert names_in(text) == names
