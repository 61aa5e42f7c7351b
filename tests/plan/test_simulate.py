"""A simulated step is the real one, and takes what the planner says where nobody runs ahead."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import overlap
from refimpl.cli import main
from refimpl.collectives.cost import Link, Links
from refimpl.methods import traffic
from refimpl.methods.partition.memory import Bytes, per_rank
from refimpl.nn.flat import Layout
from refimpl.plan import simulate as module
from refimpl.plan.model import Cluster
from refimpl.plan.simulate import network_of, simulate
from refimpl.plan.text import simulated_text
from refimpl.run.config import Recipe, Run
from refimpl.run.modelfile import ModelFile
from refimpl.support.errors import UserError
from refimpl.support.text import size
from refimpl.world.topology import Nodes

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "time.md").read_text(encoding="utf-8")

# Powers of two, so that nothing is rounded; units of 64, 144 and 136 values, for any group.
LINKS = Links(Link(2.0**-16, 2.0**-30), Link(2.0**-12, 2.0**-26))
TEXT = """
from refimpl import nn
from refimpl.run.config import Recipe

def build(seed, inputs=7, classes=8, hidden=8):
    return nn.Sequential(
        nn.Affine("a", inputs, hidden, seed),
        nn.Relu(),
        nn.Affine("b", hidden, 16, seed),
        nn.Affine("c", 16, classes, seed),
    )

def recipe():
    return Recipe(task="images", epochs=1, lr=0.1, batch=4)
"""
MODEL = ModelFile.parse("tiny", TEXT, "tiny.py")


def run_of(strategy, microsteps=1, batch=4, **more):
    names = ("partition", "prefetch", "gtc_group", "secondary_shards")
    methods = {name: more.pop(name) for name in names if name in more}
    recipe = Recipe(task="images", epochs=1, lr=0.1, batch=batch, microsteps=microsteps)
    return Run("tiny", recipe, strategy=strategy, methods=methods, **more)


def cluster(n=8, k=4, flops=2.0**26, links=LINKS):
    return Cluster(n, k, flops, links)


@pytest.mark.parametrize(
    "strategy, more, k",
    [
        ("ddp", {}, 4),
        ("zero3", {}, 4),
        ("zero3", {"collectives": "hierarchical"}, 4),
        ("zero2", {"microsteps": 2}, 8),
        ("mics", {"partition": 4, "microsteps": 2}, 4),
        ("mics", {"partition": 2, "collectives": "halving-doubling"}, 2),
        ("mics", {"partition": 4}, 2),
        ("mics", {"partition": 4, "secondary_shards": "node", "microsteps": 2}, 2),
    ],
)
def test_a_step_takes_exactly_what_is_planned(strategy, more, k):
    one_by_one = more.get("collectives") != "hierarchical"  # else it adds while others come
    links = LINKS._replace(gamma=one_by_one * 2.0**-28)
    found = simulate(run_of(strategy, **more), MODEL, cluster(k=k, links=links), scale=8)
    assert found.planned is not None
    assert found.seconds == found.planned.step
    assert 8 * found.sent["inter"].bytes == found.planned.between


def test_auto_chooses_by_the_links_of_the_run():
    """Where a message costs nothing, the fewest bytes win over the fewest messages."""
    free = Links(Link(0.0, 1.0), Link(0.0, 1.0)).plain()
    run = run_of("ddp", collectives="auto")
    least, free = (simulate(one, MODEL, cluster(k=8)) for one in (run, replace(run, links=free)))
    assert free.sent["intra"].bytes < least.sent["intra"].bytes
    assert [one.planned.step for one in (least, free)] == [least.seconds, free.seconds]


def test_a_rank_that_computes_less_long_than_messages_take_is_not_held_up_by_all_others():
    """Ranks away from the slow link are done earlier, which the planner does not know."""
    found = simulate(run_of("zero3"), MODEL, cluster())
    done = [sum(one) for one in found.spent]
    assert min(done) < max(done) == found.seconds
    for one in found.spent:
        assert one.compute == pytest.approx(6 * 344 * 4 / 2.0**26)


def test_prefetch_hides_a_gather_behind_computing():
    """Between two ranks a gather is one message, which moves while a unit computes."""
    plain, ahead = (
        simulate(run_of("mics", partition=2, **more), MODEL, cluster(2, 2, 2.0**20), scale=64)
        for more in ({}, {"prefetch": True})
    )
    assert plain.planned is not None and ahead.planned is not None
    assert plain.seconds == plain.planned.step
    hidden = plain.seconds - ahead.seconds
    assert 0 < hidden <= ahead.planned.hidden
    first = ahead.planned.gather / 6  # in both passes the first unit's is waited for
    assert hidden == pytest.approx(ahead.planned.gather - 2 * first, rel=0.5)


def test_every_byte_and_operation_stands_for_many():
    quick = Links(Link(0, 2.0**-30), Link(0, 2.0**-26))
    once, more = (
        simulate(run_of("mics", partition=2), MODEL, cluster(links=quick), scale)
        for scale in (1, 32)
    )
    assert more.seconds == 32 * once.seconds
    assert (more.parameters, more.sent) == (32 * once.parameters, once.sent)


@pytest.mark.parametrize("strategy", ["mics", "gtc", "bmuf", "topk-bmuf"])
def test_what_is_sent_is_what_the_formulas_say_and_every_strategy_runs(strategy):
    grid = {"mics": {"partition": 2}, "topk-bmuf": {"gtc_group": 2}}.get(strategy, {})
    run = run_of(strategy, steps=2, **grid)
    found = simulate(run, MODEL, cluster())
    assert (found.planned is None) == (strategy != "mics")
    if strategy == "mics":
        layout = Layout(network_of(run, MODEL).units, 2)
        setting = run.setting(Nodes.of(8, 4), layout)
        told = traffic.sent(traffic.step_calls(run.chosen(), setting)).values()
        for link, count in found.sent.items():
            assert count == tuple(2 * sum(one[link][i] for one in told) for i in (0, 1))
    assert strategy in simulated_text(found, cluster(), [])


def test_the_command_writes_the_same_trace_each_time(tmp_path, capsys):
    (tmp_path / "tiny.py").write_text(TEXT)
    words = f"simulate {tmp_path / 'tiny.py'} -n 4 --ranks-per-node 2 --flops 1e9 --strategy zero3"
    for name in ("a", "b"):
        assert main([*words.split(), "--trace", str(tmp_path / name)]) == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert b"rank 3 (node 1, virtual time)" in (tmp_path / "a").read_bytes()
    text = capsys.readouterr().out
    assert "assumed, not given: --intra, --inter" in text and "simulated / on paper 1.0" in text
    assert "an addition" not in text
    (tmp_path / "links").write_text(json.dumps(LINKS._replace(gamma=2.0**-30).plain()))
    assert main([*words.split(), "--links", str(tmp_path / "links"), "--inter", "1,0"]) == 0
    text = capsys.readouterr().out
    assert (
        "inside a node: 1.53e-05 s + bytes / 1.07 GB/s" in text and "between nodes: 1 s," in text
    )
    assert "an addition: bytes / 1.07 GB/s" in text and "assumed" not in text
    assert main([*words.split(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (
        main(
            [
                "simulate",
                str(tmp_path / "tiny.py"),
                "-n",
                "4",
                "--flops",
                "1e9",
                "--partition",
                "2",
            ]
        )
        == 0
    )
    assert "2 members x 2 shards on 1 node (mics)" in capsys.readouterr().out
    assert told["ranks"] == 4 and np.isclose(told["seconds"], told["planned"]["step"], rtol=1e-2)


@pytest.mark.parametrize(
    "words, said",
    [
        ("-n 2000", "each rank is a thread here, give 1024 at most"),
        ("-n 2 --collectives native", "collectives native state no cost"),
        ("-n 2 --data x", "--data x: inputs are drawn here"),
        ("-n 4 --trace /nowhere/t", "no folder"),
        ("-n 2 --links measure", "nothing is here to measure, give a file"),
        ("-n 2 --scale 1e30", "344 parameters would stand for more than 1e+15"),
        ("-n 9", "9 ranks of 344 parameters need"),
    ],
)
def test_what_cannot_be_simulated_is_refused(words, said, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(module, "room", lambda: 60_000)
    (tmp_path / "tiny.py").write_text(TEXT)
    assert main(["simulate", str(tmp_path / "tiny.py"), "--flops", "1e9", *words.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize(
    "words, p, stage, each, more",
    [
        ("--strategy ddp --optimizer sgd --lr 1", 1, 0, Bytes(4, 4, 0), {}),
        ("--strategy zero2 --optimizer adam --lr 1 --dtype float64", 4, 2, Bytes(8, 8, 16), {}),
        ("--strategy zero1 --reduction exact", 4, 1, Bytes(), {"exact": True}),
        ("--strategy zero1 --microsteps 2", 4, 1, Bytes(), {"microsteps": 2}),
        ("--partition 2 --prefetch", 2, 3, Bytes(), {"prefetch": True}),
        ("--partition 4 --secondary-shards node", 4, 3, Bytes(), {"near": 2}),
    ],
)
def test_room_is_asked_for_what_ranks_hold(
    words, p, stage, each, more, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(module, "room", lambda: 0)
    (tmp_path / "tiny.py").write_text(TEXT)
    command = f"simulate {tmp_path / 'tiny.py'} -n 4 --ranks-per-node 2 --flops 1e9 {words}"
    assert main(command.split()) == 2
    kept = per_rank([64, 144, 136], p, stage, each, **more).total
    needed = 4 * (kept + each.parameter * 3 * 4 * (7 + 3 * 8 + 2 * 16))
    assert f"need {size(needed)} here" in capsys.readouterr().err


def test_a_model_that_leaves_its_widths_to_the_data_is_refused():
    model = ModelFile.parse("bare", TEXT.replace("inputs=7", "inputs"), "bare.py")
    with pytest.raises(UserError, match="give it inputs=N"):
        module.network_of(run_of("ddp"), model)


# --------------------------------------------------------------------------- what the chapter says

OUTPUTS = re.findall(r"^```\n\$ refimpl (.*)\n([^`]*)```", PAGE, re.MULTILINE)


@pytest.mark.parametrize("words, output", OUTPUTS, ids=["zero3", "mics", "prefetch"])
def test_the_chapter_prints_what_the_command_prints(words, output, capsys):
    assert main(words.split()) == 0
    assert capsys.readouterr().out == output


def test_the_table_of_overlap_is_computed():
    (row,) = re.findall(r"^4       1 +([\d.]+) .* ([\d.]+) +[\d.]+%$", PAGE, re.MULTILINE)
    for cell, both in zip(row, (False, True), strict=True):
        assert f"{1e3 * overlap.step(16, 4, 1e12, both, both):.3f}" == cell
