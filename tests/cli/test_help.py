"""The help: every command in a group of readers, two examples that the command line takes."""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from refimpl import cli
from refimpl.cli import compare
from refimpl.cli.listing import EXAMPLES, GROUPS
from refimpl.cli.run_options import run_of
from refimpl.run.config import Recipe

FILES = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}


def told(capsys, *arguments):
    assert cli.main(arguments) == 0
    return capsys.readouterr().out


def test_help_lists_each_command_once_below_who_wants_it(capsys):
    text = told(capsys, "--help")
    for title, commands in GROUPS.items():
        below = text.partition(f"\n{title}\n")[2].partition("\n\n")[0]
        assert re.findall(r"^    (\S+) +\S", below, re.M) == list(commands)
    assert [title.partition(":")[0] for title in GROUPS] == [
        *("student", "backend author", "cluster user", "trainer")
    ]
    assert max(map(len, text.splitlines())) < 100


def test_every_file_of_a_command_is_listed():
    commands = {name for name in FILES if "def add(commands" in source(name)}
    assert set(EXAMPLES) == set(cli.COMMANDS) == commands
    assert sum(map(len, GROUPS.values())) == len(EXAMPLES)


def source(name):
    return (Path(cli.__file__).parent / f"{name}.py").read_text()


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_help_of_a_command_ends_with_its_two_examples(capsys, name):
    end = told(capsys, name, "--help").rpartition("\nexamples:\n")[2]
    assert [line.strip() for line in end.splitlines()] == list(EXAMPLES[name])
    assert max(map(len, end.splitlines())) < 100


def parsed(example):
    """Return the number of ranks of an example, its words, and what the parser makes of them."""
    script, *words = shlex.split(example)
    assert script == "./run_mpi.sh"
    ranks = 4
    if words[0] == "-n":
        ranks, words = int(words[1]), words[2:]
    return ranks, words, cli.parser(words[0]).parse_args(words)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_commands_that_can_be(name):
    model = SimpleNamespace(recipe=lambda: Recipe(task="images", epochs=1, lr=0.1))
    first, second = EXAMPLES[name]
    assert first != second
    for example in (first, second):
        ranks, words, args = parsed(example)
        assert words[0] == name and args.run.__module__ == f"refimpl.cli.{name}"
        if name == "train":
            run_of(args, model, args.strategy or "ddp").check(ranks)
        if name == "compare":
            for row, run in compare.runs(args, model, ranks).items():
                run.check(1 if row == "serial" else ranks)


@pytest.mark.parametrize("name", ["topology", "explain", "plan"])
def test_examples_that_need_no_ranks_and_no_files_work(capsys, name):
    for example in EXAMPLES[name]:
        _, words, _ = parsed(example)
        assert told(capsys, *words)


TRIED = """
source "$1"
try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); $made; echo "${COMPREPLY[*]}"; }
made=$(complete -p refimpl | sed 's/.*-F \\([^ ]*\\).*/\\1/')
try refimpl ex; try refimpl compare mlp --glo; try refimpl golden wr
"""


def test_a_shell_completes_commands_and_options(tmp_path):
    pytest.importorskip("shtab", reason="shtab is not installed (extra [completion])")
    make = [sys.executable, "-m", "shtab", "--shell=bash", "refimpl.cli.completion"]
    script = tmp_path / "refimpl.bash"
    script.write_text(subprocess.run(make, check=True, capture_output=True, text=True).stdout)
    tried = ["bash", "-c", TRIED, "bash", str(script)]
    run = subprocess.run(tried, check=True, capture_output=True, text=True)
    assert run.stdout.split() == ["explain", "--global-batch", "write"]


def test_completion_is_made_of_what_each_command_is_for():
    [commands] = [
        one for one in cli.completion()._actions if one.dest == argparse.SUPPRESS and one.choices
    ]
    assert {one.dest: bool(one.help) for one in commands._choices_actions} == dict.fromkeys(
        cli.COMMANDS, True
    )
