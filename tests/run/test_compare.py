"""Comparisons: which options go where, and the arithmetic of the table."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from launch import launched, needs_mpiexec

from refimpl import cli
from refimpl.cli import compare as compare_command
from refimpl.cli.run_options import given
from refimpl.nn.flat import one_unit
from refimpl.run.compare import fitted, rows, steps_text, table_text
from refimpl.run.config import Recipe, Run, override
from refimpl.run.picture import require_matplotlib
from refimpl.support.errors import UserError
from refimpl.tasks.table import words
from refimpl.world.topology import Nodes

FRAMES, IMAGES = words(["acoustic"]), words(["images"])


def summary(fer, wer=None, sent=0, frames=100):
    made = {
        "frame_error_rate": {"dev": 0.5, "test": fer},
        "ledger": {"intra": {"messages": 1, "bytes": sent}, "inter": {"messages": 0, "bytes": 0}},
        "frames": frames,
        "frames_per_second": 10.0,
        "seconds": frames / 10.0,
        "max_resident_bytes_per_rank": 50_000_000,
    }
    if wer is not None:
        made["word_error_rate"] = {"test": {"wer": wer}}
    return made


def test_increases_are_relative_to_serials_mean_and_spread_over_seeds():
    table = rows(
        {
            "serial": [summary(0.10, 0.02), summary(0.30, 0.02)],
            "gtc": [summary(0.22, 0.03, sent=500), summary(0.26, 0.03, sent=700)],
        }
    )
    gtc = table[1]
    assert gtc["fer"] == pytest.approx(0.24)
    assert gtc["fer_increase"]["mean"] == pytest.approx(0.2)
    assert gtc["fer_increase"]["spread"] == pytest.approx(0.2 / 2**0.5)
    assert gtc["wer_increase"] == {"mean": pytest.approx(0.5), "spread": 0.0}
    assert gtc["intra_bytes_per_frame"] == 6.0
    assert (gtc["seconds"], gtc["resident_bytes_per_rank"]) == (10.0, 50_000_000)
    assert table[0]["fer_increase"]["mean"] == pytest.approx(0.0)


def test_without_serial_or_without_its_errors_there_is_no_increase():
    assert rows({"ddp": [summary(0.1)]})[0]["fer_increase"] is None
    none = rows({"serial": [summary(0.1, 0.0)], "ddp": [summary(0.2, 0.1)]})
    assert none[1]["wer_increase"] is None and none[1]["fer_increase"]["mean"] == 1.0


def test_the_table_lines_up_and_says_what_is_not_known():
    text = table_text({"table": rows({"serial": [summary(0.1)], "gtc": [summary(0.2)]})}, FRAMES)
    head, serial, gtc = text.splitlines()
    assert head.split()[:3] == ["strategy", "FER", "over"] and "WER" not in head
    of_images = table_text({"table": rows({"gtc": [summary(0.2)]})}, IMAGES).splitlines()[0]
    assert of_images.split()[:2] == ["strategy", "error"] and "images/s" in of_images
    assert "FER" not in of_images and "frame" not in of_images
    assert "+100.0 % (0.0)" in gtc and len({len(head), len(serial), len(gtc)}) == 1
    assert " - " in table_text({"table": rows({"gtc": [summary(0.2)]})}, FRAMES)


def test_options_reach_the_strategies_that_have_them_and_no_others():
    run = Run(
        "mlp",
        Recipe(task="images", epochs=1, lr=0.1),
        methods={
            "partition": 2,
            "gtc_group": 2,
            "tau": 3.0,
            "gtc_warmup": 5,
            "block_steps": 7,
            "residuals": "fold",
        },
    )
    serial, ddp = fitted(run, "serial", 4, 8), fitted(run, "ddp", 4, 8)
    assert (serial.seed, ddp.methods) == (4, {})
    assert fitted(run, "onebit", 0, 8).methods == {"gtc_warmup": 5}
    assert fitted(run, "bmuf", 0, 8).methods == {"block_steps": 7}
    assert fitted(run, "mics-gtc-bmuf", 0, 8).methods == run.methods
    for name in ("serial", "ddp", "mics", "gtc", "onebit", "bmuf", "gtc-bmuf", "mics-gtc-bmuf"):
        fitted(run, name, 0, 8).check(1 if name == "serial" else 8)


def test_steps_are_those_of_all_ranks_and_frames_are_the_same_for_all():
    base = Run("mlp", Recipe(task="images", epochs=1, lr=0.1, batch=32), steps=100)
    assert fitted(base, "ddp", 0, 8).steps == 100
    assert fitted(base, "serial", 0, 8).steps == 800
    larger = replace(base, recipe=replace(base.recipe, batch=128))
    assert fitted(larger, "serial", 0, 8, base).steps == 200


def test_steps_that_are_not_the_same_frames_for_all_are_refused_with_those_that_are():
    base = Run("mlp", Recipe(task="images", epochs=1, lr=0.1, batch=32), steps=10)
    larger = replace(base, recipe=replace(base.recipe, batch=48))
    with pytest.raises(UserError, match="10 are 2,560 frames, and ddp takes 384 at a time.* of 3"):
        fitted(larger, "ddp", 0, 8, base)
    assert fitted(replace(larger, steps=12), "ddp", 0, 8, base).steps == 8


@needs_mpiexec
def test_an_epoch_is_the_same_frames_for_all(tmp_path):
    """3,000 examples are 3 of the steps of 900 that one rank takes, and 1 of the 1,800 of two."""
    out = tmp_path / "table.json"
    options = ("--batch", 900, "--epochs", 2, "--set", "hidden=8", "--json", out)
    run = launched(2, "compare", "mlp", "--strategies", "serial,ddp", *options)
    assert run.returncode == 0, run.stderr
    result = json.loads(out.read_text())
    steps = {name: runs[0]["steps"] for name, runs in result["runs"].items()}
    assert {row["frames"] for row in result["table"]} == {3_600}
    assert steps == {"serial": 4, "ddp": 2}


def test_frames_stand_in_the_table_where_a_schedule_has_made_them_differ():
    table = rows({"serial": [summary(0.1, frames=1200)], "gtc": [summary(0.2, frames=900)]})
    head, serial, gtc = table_text({"table": table}, FRAMES).splitlines()
    assert [line.split()[-1] for line in (head, serial, gtc)] == ["frames", "1,200", "900"]


def planned(*options, world=8):
    """What ``refimpl compare mlp OPTIONS`` would train."""
    args = cli.parser().parse_args(["compare", "mlp", *options])
    recipe = Recipe(task="images", epochs=1, lr=0.1, batch=64)
    return compare_command.runs(args, SimpleNamespace(recipe=lambda: recipe), world)


def test_a_step_takes_the_recipes_batch_with_every_strategy():
    names = ("--strategies", "serial,ddp,gtc,bmuf")
    runs = planned(*names, "--steps", "10", world=4)
    assert [run.recipe.batch for run in runs.values()] == [64, 16, 16, 16]
    assert {run.steps for run in runs.values()} == {10}
    larger = planned(*names, "--global-batch", "96", world=5)
    assert [run.recipe.batch for run in larger.values()] == [100, 20, 20, 20]
    assert steps_text(larger, 5).startswith("a step takes 100 images with every strategy: 100 on")
    apart = planned(*names, "--batch", "64", world=4)
    assert [run.recipe.batch for run in apart.values()] == [64] * 4
    assert "serial takes 64 images in each, ddp 256, gtc 256" in steps_text(apart, 4)


def test_options_for_one_strategy_alone():
    runs = planned(
        *("--strategies", "serial,gtc,bmuf", "--lr", "0.2", "--tau", "3", "--set", "hidden=8"),
        *("--for", "gtc --tau 6 --lr 0.4", "--for", "bmuf --batch 16 --set hidden=9"),
    )
    lr = {name: run.recipe.lr for name, run in runs.items()}
    assert lr == {"serial": 0.2, "gtc": 0.4, "bmuf": 0.2}
    assert runs["gtc"].methods == {"tau": 6.0}
    assert (runs["serial"].recipe.batch, runs["bmuf"].recipe.batch) == (64, 16)
    assert [run.options["hidden"] for run in runs.values()] == ["8", "8", "9"]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--for", "zero3 --lr 1"], "--for 'zero3 --lr 1': begin with one of the strategies"),
        (["--for", ""], "begin with one of the strategies, ddp, gtc"),
        (["--for", "gtc --epochs 3"], "--for gtc: --epochs 3 for one strategy alone"),
        (["--for", "ddp --data x"], "--for ddp: --data x for one strategy alone"),
        (["--for", "gtc --tua 3"], r"unrecognized arguments: --tua 3 in --for 'gtc ...'"),
        (["--for", "gtc --lr fast"], "argument --lr: .*fast.* in --for 'gtc ...'"),
        (
            ["--batch", "8", "--global-batch", "32"],
            "--batch 8 is for each rank and --g",
        ),
        (["--for", "gtc --lr '1"], "--for 'gtc --lr '1': No closing quotation"),
    ],
)
def test_what_is_wrong_with_the_options_for_one_is_said(options, message):
    with pytest.raises(UserError, match=message):
        planned("--strategies", "ddp,gtc", *options)


def test_a_strategy_that_diverges_is_told_and_the_others_go_on(tmp_path, capsys):
    out = tmp_path / "table.json"
    options = ["--strategies", "ddp,bmuf", "--steps", "20", "--json", str(out)]
    code = cli.main(["compare", "mlp", *options, "--for", "ddp --lr 1e30"])
    said, table = capsys.readouterr(), json.loads(out.read_text())["table"]
    assert (code, said.err) == (0, "")
    assert "training diverged in step 2: the loss is not finite on rank 0" in said.out
    assert table[0] == {"strategy": "ddp", "seeds": 1, "diverged": 1}
    assert table[1]["fer"] < 0.9
    assert [line.split()[1] for line in said.out.splitlines()[-2:]] == [
        "diverged",
        f"{table[1]['fer']:.2%}",
    ]


def test_figures_of_the_seeds_that_did_not_diverge():
    lost = {"diverged": "why"}
    table = rows({"serial": [summary(0.1)], "ddp": [lost, summary(0.2)], "bmuf": [lost]})
    assert [row["diverged"] for row in table] == [0, 1, 1]
    assert table[1]["fer"] == 0.2 and "fer" not in table[2]
    text = table_text({"table": table}, FRAMES).splitlines()
    assert text[2].startswith("ddp (1 of 2 seeds diverged)") and text[3].split() == [
        "bmuf",
        "diverged",
    ]


def test_a_recipes_clip_and_schedule_can_be_changed_and_taken_away():
    recipe = Recipe(task="images", epochs=1, lr=0.1, clip=2.0, schedule="exponential", warmup=0.1)
    words = ["train", "mlp", "--clip", "0", "--warmup", "0", "--decay", "0.5"]
    changed = override(recipe, given(cli.parser("train").parse_args(words))["recipe"])
    run = Run("mlp", changed)
    run.check(2)
    assert not run.step_options().clip
    assert [run.schedule().rate(step, 1) for step in range(2)] == [0.1, 0.05]
    layout = one_unit(1, 1)
    assert not run.setting(Nodes.of(2), layout).clip
    assert replace(run, recipe=recipe).setting(Nodes.of(2), layout).clip


def test_another_optimizer_does_not_inherit_the_recipes_hyper_parameters():
    recipe = Recipe(task="images", epochs=1, lr=0.1, momentum=0.8, warmup=0.5)
    assert override(recipe, {"lr": 0.2, "momentum": None}).momentum == 0.8
    given = {"optimizer": "adam", "lr": 0.01, "schedule": "step", "weight_decay": 0.1}
    changed = override(recipe, given)
    assert (changed.momentum, changed.weight_decay, changed.warmup) == (None, 0.1, None)
    assert override(recipe, {"optimizer": "momentum"}).momentum == 0.8
    with pytest.raises(UserError, match=r"--optimizer adam: give its --lr, too; .* rate of 0\.1"):
        override(recipe, {"optimizer": "adam"})


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"strategy": "ddp", "methods": {"tau": 1.0}}, "--tau 1.0 does not go with strategy ddp"),
        ({"strategy": "gtc", "methods": {"block_steps": 1}}, "--block-steps 1 does not go with"),
        ({"strategy": "bmuf", "methods": {"residuals": "zero"}}, "--residuals zero does not go"),
        ({"strategy": "onebit", "methods": {"tau": 1.0}}, "--tau 1.0 does not go with"),
        (
            {"strategy": "gtc", "methods": {"residuals": "zero"}},
            "use --strategy gtc-bmuf, mics-gtc",
        ),
        (
            {"strategy": "gtc", "methods": {"sync": "every-microstep"}},
            "--sync every-microstep does",
        ),
        ({"strategy": "bmuf", "methods": {"block_method": "abc"}}, "--block-method abc: choose"),
        ({"strategy": "gtc-bmuf", "methods": {"gtc_group": 2, "residuals": "x"}}, "--residuals x"),
        ({"strategy": "bmuf", "methods": {"block_momentum": 1.5}}, "--block-momentum 1.5: must"),
        ({"strategy": "bmuf", "methods": {"block_steps": "7"}}, "steps is '7': its type must be"),
        ({"strategy": "ddp", "methods": {"tua": 7}}, "no option 'tua': there are"),
        ({"strategy": "gtc", "methods": {"wire_format": "zip"}}, "zip"),
        ({"strategy": "zero3", "methods": {"zero_stage": 2}}, "--zero-stage 2 does not go with"),
        ({"reduction": "exakt"}, "--reduction exakt: choose one of exact, float"),
        ({"collectives": "rign"}, "no collectives 'rign'"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_anything_starts(changes, message):
    run = Run("mlp", Recipe(task="images", epochs=1, lr=0.1), **changes)
    with pytest.raises(UserError, match=message):
        run.check(4)


def test_a_picture_without_matplotlib_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'refimpl\[plot\]'"):
        require_matplotlib()


def test_pictures_are_written_as_png(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")
    from refimpl.run import picture

    require_matplotlib()
    summaries = {"serial": [summary(0.1, 0.02)], "gtc": [summary(0.2, 0.03, sent=300)]}
    out = tmp_path / "c.png"
    picture.comparison({"model": "net", "table": rows(summaries)}, FRAMES, out)
    assert out.read_bytes().startswith(b"\x89PNG")
