"""What a run refuses of a recipe, of the command line and of an edited file: by name."""

from dataclasses import replace

import pytest
from loopback import spawn

from refimpl.collectives.auto import ASSUMED
from refimpl.run import modelfile
from refimpl.run.config import Recipe, Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.trainer import Trainer
from refimpl.support.errors import UserError

RECIPE = Recipe(task="images", epochs=1, lr=0.1)
RUN = Run("mlp", RECIPE, strategy="serial")
LINKS, AUTO = ASSUMED.plain(), {"collectives": "auto"}
INF, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    "recipe, message",
    [
        ({"epochs": 10**9}, "--epochs 1000000000: give 1 to 100,000$"),
        ({"epochs": 10**400}, "--epochs 10{79}: give"),
        ({"batch": 10**12}, "--batch 1000000000000: give"),
        ({"microsteps": 10**12}, "--microsteps 1000000000000: give"),
        ({"lr": INF}, "--lr inf: must be a positive number"),
        ({"lr": NAN}, "--lr nan: must be a positive number"),
        ({"lr": 10**400}, "--lr 1000.*: must be a positive number"),
        ({"clip": INF}, "--clip inf: must be a positive number"),
        ({"clip": NAN}, "--clip nan: must be a positive number"),
        ({"momentum": NAN}, "--momentum nan: must be"),
        ({"momentum": INF}, "--momentum inf: must be"),
        ({"weight_decay": INF}, "--weight-decay inf: must be"),
        ({"weight_decay": NAN}, "--weight-decay nan: must be"),
        ({"schedule": "exponential", "decay": NAN}, "--decay nan: must be"),
        ({"warmup": INF}, "--warmup inf: must be"),
        ({"methods": {"tau": INF}}, "--tau inf: must be"),
        ({"methods": {"sync": ["two-hop"]}}, r"--sync \['two-hop'\]: choose one of"),
        ({"lr": 10**5000}, "--lr a number of thousands of digits: must be"),
        ({"methods": {"tau": NAN}}, "--tau nan: must be"),
        ({"methods": {"tau": 10**400}}, "--tau 1000.*: must be"),
        ({"methods": {"block_steps": 10**400}}, "--block-steps 1000.*: must be"),
    ],
)
def test_a_number_of_a_recipe_that_cannot_be_meant_is_refused(recipe, message):
    strategy = "gtc-bmuf" if "methods" in recipe else "serial"
    run = replace(RUN, recipe=replace(RECIPE, **recipe), strategy=strategy)
    with pytest.raises(UserError, match=f"^{message}"):
        run.check_values()


@pytest.mark.parametrize("tau", ["x", -1.0, NAN])
def test_a_recipe_is_checked_for_strategies_that_are_not_this_runs_too(tau):
    with pytest.raises(UserError, match="tau"):
        replace(RUN, recipe=replace(RECIPE, methods={"tau": tau})).check(1)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"steps": 10**30}, "--steps 10{30}: give 1 to"),
        ({"seed": -1}, "--seed -1: give 0 to"),
        ({"seed": 10**400}, "--seed 10{79}: give"),
        ({"ranks_per_node": 10**30}, "--ranks-per-node 10{30}: give"),
        ({"links": LINKS}, "--links is what --collectives auto chooses by, and these are ring"),
        ({"links": LINKS | {"cores": 0}, **AUTO}, "--links: cores is 0: links are what `refim"),
        ({"links": LINKS | {"gamma": NAN}, **AUTO}, "--links: gamma is nan: links are what"),
        ({"links": {}, **AUTO}, "--links: intra_alpha is None: links are what"),
    ],
)
def test_a_number_of_a_run_that_cannot_be_meant_is_refused(fields, message):
    with pytest.raises(UserError, match=f"^{message}"):
        replace(RUN, **fields).check_values()


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"hidden": "100000", "depth": "99999"},
            r"has 999,9[\d,]* parameters: .* smaller, or",
        ),
        ({"hidden": "1000000000000"}, "option hidden=1000000000000 of model mlp: .* to 100,000"),
        ({"depth": "1000000000"}, "option depth=1000000000 of model mlp: .* to 100,000"),
    ],
)
def test_a_network_that_no_machine_has_room_for_is_refused_before_it_takes_any(options, message):
    def body(comm):
        with pytest.raises(UserError, match=message):
            Trainer(comm, replace(RUN, options=options), ModelFile.open("mlp", comm), print)

    spawn((0,), body)


def test_room_is_what_the_machine_or_a_limit_of_the_process_has(monkeypatch):
    model = ModelFile.parse("mlp", (modelfile.shelf() / "mlp.py").read_text(), "mlp.py")
    network = model.build(0, 784, 10, {})
    model.plan(network, 10, "float32")
    needed = 4 * (2 * network.size + 10 * (784 + 512 + 512 + 512 + 512 + 10))
    monkeypatch.setattr(modelfile, "room", lambda: needed)
    model.plan(network, 10, "float32")
    for rows, dtype in ((11, "float32"), (10, "float64")):
        with pytest.raises(UserError, match="669,706 parameters: with gradients and 1. rows a ra"):
            model.plan(network, rows, dtype)
    model.plan(network, 11, "float32", partition=2)
