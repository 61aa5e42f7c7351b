"""What `explain` prints of methods and strategies is what they do."""

import re

import pytest

from refimpl.methods import explain
from refimpl.methods.gradient import explain as values


def parts(text):
    """Return the parts of a step: title -> lines."""
    found = [part.splitlines() for part in text.split("\n\n")[4:]]
    return {head.partition(":")[0]: (head, lines) for head, *lines in found}


def said(text, title, word):
    """How often a line of a part begins so."""
    return sum(line.strip().startswith(word) for line in parts(text)[title][1])


@pytest.mark.parametrize("name", explain.NAMES)
def test_every_strategy_explains_a_step_in_100_columns(name):
    text = explain.step(name, 8)
    assert max(map(len, text.splitlines())) <= explain.WIDTH
    lines = [line for _, some in parts(text).values() for line in some]
    assert all(re.search(r"(partition|gradient|block) group +\d+$", line) for line in lines if
               line.strip().startswith(("all-", "reduce-", "messages")))  # fmt: skip
    apart = "end of block" in parts(text)
    assert apart == ("block groups" in text)


def test_the_stages_differ_in_when_they_send_what():
    """Stage 1 sums gradients once a step, stage 2 in every micro-step; 3 gathers, too."""
    first, second, third = (explain.step(f"zero{stage}", 4) for stage in (1, 2, 3))
    assert said(first, "micro-step 1", "reduce-scatter") == 0
    assert said(first, "micro-step 2", "reduce-scatter") == 2
    assert said(first, "update", "all-gather") == said(second, "update", "all-gather") == 2
    assert said(second, "micro-step 1", "reduce-scatter") == 2
    assert parts(second)["micro-step 2"][0].endswith("the same")
    assert said(third, "micro-step 1", "all-gather") == 4
    kept = [
        re.search(r"keeps (\d+) .*\n(\d+) .* (\d+) of the opt", one)
        for one in (first, second, third)
    ]
    assert [one.groups() for one in kept] == [
        ("100", "100", "25"),
        ("100", "25", "25"),
        ("25", "25", "25"),
    ]


def test_mics_hops_are_along_two_axes():
    text = explain.step("mics", 8, 4)
    assert "partition groups: {0, 1, 2, 3} {4, 5, 6, 7}" in text
    assert all(
        "partition" in line for line in parts(text)["micro-step 1"][1] if "gradients" in line
    )
    _, [hop] = parts(text)["combine"]
    assert "gradient group" in hop and hop.split()[-1] == "100"  # of 25 values, all but rounding


def test_what_is_sent_and_what_is_owed_are_what_was_there():
    for text in (values.onebit(), values.topk()):
        rows = {line[:8].strip(): line[8:].split() for line in text.splitlines() if line}
        owed, new, sent, left = (
            [0 if cell == "." else float(cell) for cell in rows[name]]
            for name in ("r before", "gradient", "sent", "r after")
        )
        for before, gradient, message, after in zip(owed, new, sent, left, strict=True):
            assert before + gradient == pytest.approx(message + after, abs=0.01)
