"""The line per step: what is in it, and that it starts over where it should."""

import json

import pytest

from refimpl import cli
from refimpl.methods.losses import Loss
from refimpl.methods.protocol import GradientAxis
from refimpl.run.steplog import StepLog
from refimpl.world.events import Event
from refimpl.world.ledger import Ledger


def test_a_line_counts_from_the_last_one():
    ledger = Ledger()
    log = StepLog(2, GradientAxis(), ledger, frames=10)

    def step(number, loss):
        ledger.count(Event("send", nbytes=100 * number, link="inter"))
        return log.line(number, 0.5, Loss.of(loss))

    assert step(1, 10.0) is None
    line = step(2, 30.0)
    assert (line["step"], line["lr"], line["loss"]) == (2, 0.5, 2.0)
    assert line["ledger"]["inter"] == {"messages": 2, "bytes": 300}
    assert line["ledger"]["intra"] == {"messages": 0, "bytes": 0}
    assert step(3, 5.0) is None
    # an epoch ends between two lines: evaluation sends, and the sum of losses starts anew
    ledger.count(Event("send", nbytes=7, link="intra"))
    log.begin()
    line = step(4, 20.0)
    assert line["loss"] == 2.0 and line["ledger"]["inter"] == {"messages": 1, "bytes": 400}
    assert line["ledger"]["intra"]["bytes"] == 0


def test_no_lines_unless_asked_for():
    log = StepLog(0, GradientAxis(), Ledger(), frames=1)
    assert [log.line(step, 1.0, Loss()) for step in range(1, 5)] == [None] * 4


@pytest.mark.parametrize("strategy", ["serial", "gtc"])
def test_train_leaves_the_lines_in_the_runs_folder(tmp_path, capsys, strategy):
    out = tmp_path / "run"
    options = ["--strategy", strategy, "--steps", "6", "--log-every", "2", "--out", str(out)]
    assert cli.main(["train", "mlp", *options]) == 0
    lines = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    epoch = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert sum(line["loss"] for line in lines) / 3 == pytest.approx(epoch["loss"], rel=1e-9)
    compressed = [line.get("compression") for line in lines]
    if strategy == "gtc":
        assert all(0 <= numbers["density"] <= 1 for numbers in compressed)
        for name in ("tau", "format", "dense", "units"):
            assert compressed[-1][name] == epoch["compression"][name]
        # on one rank: the means of the six steps, of which three have lines
        assert epoch["compression"]["entries"] == epoch["compression"]["density"] * 669_706
        assert {"tau", "entries", "message_bytes", "residual"} <= set(compressed[-1])
    else:
        assert compressed == [None] * 3
