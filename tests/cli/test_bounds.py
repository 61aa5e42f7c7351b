"""Numbers that nobody can mean are refused before they take memory or time."""

import re

import pytest

from refimpl import cli
from refimpl.cli import train
from refimpl.run.saving import Habits
from refimpl.support.errors import UserError

PLAN = ["plan", "--flops", "1e14", "-n", "4"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["topology", "-n", "1000000000"], "-n: '1000000000' is not .* at most 50,000"),
        (["topology", "-n", "9" * 5000], "argument -n: '9{40}' is not a whole number"),
        (["topology", "-n", "4", "--ranks-per-node", "10" * 20], "--ranks-per-node: .* at most"),
        (["topology", "-n", "4", "--parameters", "10" * 200], "--parameters: .* at most 1,000,0"),
        (["topology", "-n", "4", "--parameters", "9", "--density", "nan"], "density nan: must be"),
        (["topology", "-n", "4", "--parameters", "9", "--microsteps", "9" * 20], "at most"),
        (["explain", "ring", "-p", "1000000000"], "1000000000"),
        (["explain", "hierarchical", "-k", "1000000000000000000000"], "-k: .* at most"),
        ([*PLAN, "-n", "1000000000", "--parameters", "9"], "-n: .* at most 16,384"),
        ([*PLAN, "--parameters", "1e400"], "--parameters: '1e400' is not a positive"),
        ([*PLAN, "--parameters", "1e29"], "--parameters: .* at most 1,000,000,000,000"),
        ([*PLAN, "--parameters", "1e14", "--units", "1000000000"], "at most 10,000,000"),
        ([*PLAN, "--layers", "1000000000", "--hidden", "8"], "--layers: .* 10,000,000"),
        (
            [*PLAN, "--parameters", "9", "--call", "inf"],
            "--call: 'inf' is not a number",
        ),
        ([*PLAN, "--parameters", "9", "--memory", "nan"], "--memory: 'nan' is not a"),
        (
            ["plan", "-n", "4", "--parameters", "9", "--flops", "1e-300"],
            "--flops: '1e-300' is not",
        ),
        (
            ["plan", "--preset", "p4d-100b", "--ranks", "8,1000000000"],
            "--ranks: .* most 16,384",
        ),
        (["train", "mlp", "--batch", "1" + "0" * 400], "--batch: .* at most 1,000,000,000"),
        (["train", "mlp", "--seed", "1" + "0" * 400], "--seed: .* at most 1,000,000,000"),
        (["train", "mlp", "--lr", "1e300"], "--lr: '1e300' is not a positive number, at most"),
        (["compare", "mlp", "--seeds", "1000000000"], "--seeds: .* at most 1,000"),
        (["bench", "--repeats", "1000000000"], "--repeats: .* at most 1,000,000"),
        (["data", "synth", "x", "--seed", "9" * 99], "--seed: .* at most"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_number_beyond_its_bound_is_refused_by_name(capsys, arguments, said):
    assert cli.main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and len(error) < 300
    assert re.search(said, error), error


@pytest.mark.parametrize(
    "arguments, name",
    [
        (["train", "mlp", "--out", ""], "--out"),
        (["train", "mlp", "--data", ""], "--data"),
        (["train", ""], "MODEL"),
        (["evaluate", "", "--data", "x"], "RUN"),
        (["decode", "run", ""], "WAV"),
        (["compare", "mlp", "--json", ""], "--json"),
        (["bench", "--json", ""], "--json"),
        (["data", "synth", ""], "DIR"),
        (["report", ""], "RUN"),
        (["golden", "template", "c", ""], "DIR"),
        (["golden", "check", "x", "--against", ""], "--against"),
    ],
)
def test_an_empty_name_is_a_variable_that_was_never_set(capsys, arguments, name):
    assert cli.main(arguments) == 2
    assert f"argument {name}: the name is empty: name a file or" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["--keep", "5"], ["--checkpoint-failure", "end"], ["--no-checkpoint-async"]]
)
def test_options_of_checkpoints_need_checkpoints(words):
    def habits(before, *more):
        args = cli.parser().parse_args(["train", "mlp", *words, *more])
        return train.habits_of(args, before)

    with pytest.raises(UserError, match="--keep, .* need --checkpoint-every N"):
        habits(Habits())
    assert habits(Habits(steps=3)).steps == 3
    changed = habits(Habits(steps=3), "--checkpoint-every", "9s")
    assert (changed.steps, changed.seconds) == (None, 9)


def test_only_the_first_rank_tells_the_version(capsys, monkeypatch):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("refimpl ")
    monkeypatch.setenv("PMI_RANK", "1")
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == ""


def test_everything_that_a_command_is_told_has_a_name():
    for words in (["bench", "gtc"], ["train", "mlp"], ["golden", "check", "x"], ["report", "x"]):
        named = cli.parser().parse_args(words).named
        assert all(isinstance(name, str) and name for name in named.values()), named


def test_the_largest_grid_is_drawn_with_its_formulas(capsys):
    sizes = ["--strategy", "mics", "--partition", "8", "--ranks-per-node", "8"]
    assert cli.main(["topology", "-n", "50000", *sizes]) == 0
    assert "50000 ranks = 6250 members x 8 shards" in capsys.readouterr().out
    assert cli.main(["topology", "-n", "4000", *sizes, "--parameters", "1" + "0" * 15]) == 0
