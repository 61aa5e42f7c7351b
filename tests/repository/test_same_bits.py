"""benchmarks/same_bits.py: what counts as equal, and that its trainings can be asked for."""

import importlib.util
from copy import deepcopy
from pathlib import Path

import pytest

from refimpl.cli import parser

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "same_bits.py"
spec = importlib.util.spec_from_file_location("same_bits", FILE)
same_bits = importlib.util.module_from_spec(spec)
spec.loader.exec_module(same_bits)

SUMMARY = {
    "parameters_sha256": "c0ffee",
    "loss": 1.25,
    "frame_error_rate": {"dev": 0.5},
    "steps": 10,
    "frames": 640,
    "world_size": 8,
    "partition": 4,
    "seconds": 3.0,
    "ledger": {"intra": {"messages": 60, "bytes": 4000}, "inter": {"messages": 0, "bytes": 0}},
}
CLIPPED = "8 mlp --strategy mics --partition 4 --clip 0.5 --reduction "


def changed(messages=0, size=0, link="intra", **values):
    """Return the summary with other values, or with more messages."""
    new = deepcopy(SUMMARY) | values
    new["ledger"][link]["messages"] += messages
    new["ledger"][link]["bytes"] += size
    return new


def wrong(new, line="8 mlp --strategy mics --partition 4"):
    return same_bits.differences(line, SUMMARY, new)[0]


def test_only_the_time_may_differ():
    assert wrong(changed(seconds=4.0)) == []
    assert wrong(changed(parameters_sha256="bad")) == ["parameters_sha256: c0ffee became bad"]
    assert len(wrong(changed(loss=1.26, steps=11))) == 2
    assert len(wrong(changed(word_error_rate={"dev": 0.1}))) == 1
    assert wrong(changed(messages=1)) == ["intra: +1 messages, +0 bytes"]
    assert wrong(changed(size=-4, link="inter")) == ["inter: +0 messages, -4 bytes"]
    assert wrong({"failed": "exit 1: no"}) == ["new exit 1: no"]


# Two groups of 4 ranks, 10 steps: 2 * 10 * 4 * 3 messages a round.
@pytest.mark.parametrize("kind, messages, size", [("float", 240, 1920), ("exact", 480, 5760)])
def test_messages_of_the_clip_norm_are_accepted_and_told(kind, messages, size):
    wrong, note = same_bits.differences(CLIPPED + kind, SUMMARY, changed(messages, size))
    assert wrong == []
    assert note == f"and the norm's {messages:,} messages, {size:,} bytes"


@pytest.mark.parametrize("messages, size, link", [(239, 1920, "intra"), (240, 1920, "inter")])
def test_other_messages_of_a_clipped_run_are_not(messages, size, link):
    assert wrong(changed(messages, size, link), CLIPPED + "float")
    assert wrong(changed(240, 1920), CLIPPED.replace("--clip 0.5", "") + "float")


@pytest.mark.parametrize("line", same_bits.trainings() + same_bits.lines(same_bits.TIMED))
def test_a_training_can_be_asked_for(line):
    ranks, *words = line.split()
    given = parser().parse_args(["train", *words])
    assert 1 <= int(ranks) <= 8
    assert given.strategy
