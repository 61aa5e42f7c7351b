"""`--collectives` with a method that has its own exchange is used or refused: every row."""

from dataclasses import replace

import pytest
import rows
import tiny

from refimpl import cli, collectives
from refimpl.methods import traffic
from refimpl.methods.calls import Setting
from refimpl.methods.strategies import STRATEGIES
from refimpl.run.compare import fitted
from refimpl.run.config import Recipe, Run
from refimpl.support.errors import UserError
from refimpl.world.topology import Nodes

RECIPE = Recipe(task="images", epochs=1, lr=0.1)
OTHER = "halving-doubling"


class Spy:
    """A family of collectives that notes which operations it is asked for."""

    def __init__(self, family, asked):
        self._family, self._asked = family, asked

    def __getattr__(self, name):
        if name in collectives.OPERATIONS:
            self._asked.add(name)
        return getattr(self._family, name)


def unused(case):
    """Return why a run of a case would have no use for collectives; None if it has."""
    layout = tiny.network_layout(case.grid.partition)
    nodes, family = Nodes.of(case.world), collectives.get(OTHER)
    return traffic.unused(case.methods, Setting(case.grid, nodes, layout, family))


@pytest.mark.parametrize("case", rows.FEW, ids=str)
def test_collectives_are_asked_in_training_or_told_to_be_unused_before_it(case, monkeypatch):
    asked, get = set(), collectives.get
    monkeypatch.setattr(collectives, "get", lambda name: Spy(get(name), asked))
    rows.ran.__wrapped__(case.grid, case.methods, micro_batches=case.world)
    monkeypatch.undo()
    assert (unused(case) is None) == bool(asked) or case.world == 1, asked


def test_a_row_is_refused_if_and_only_if_they_would_be_unused():
    refused = set()
    for case in rows.EVERY:
        given = dict(case.given)
        run = Run("m", RECIPE, strategy=case.name, methods=given, collectives=OTHER)
        replace(run, collectives="ring").check(case.world)
        try:
            run.check(case.world)
        except UserError as error:
            assert f"--collectives {OTHER}: nothing would go by them" in str(error)
            refused.add(case.name)
    assert refused == {case.name for case in rows.EVERY if unused(case)}
    assert {"gtc", "onebit"} <= refused < STRATEGIES.keys()


def test_dense_sums_of_a_method_with_messages_go_by_the_collectives():
    run = Run("m", RECIPE, strategy="gtc", collectives=OTHER)
    with pytest.raises(UserError):
        run.check(4)
    Run("m", RECIPE, strategy="gtc", methods={"gtc_warmup": 3}, collectives=OTHER).check(4)


def test_what_is_compared_is_given_collectives_where_they_are_of_use():
    base = Run("m", RECIPE, collectives=OTHER)
    assert fitted(base, "ddp", 0, 4, base).collectives == OTHER
    assert fitted(base, "gtc", 0, 4, base).collectives == "ring"
    alone = Run("m", RECIPE, collectives="tree")
    with pytest.raises(UserError, match="tree: nothing would go by them"):
        fitted(alone, "gtc", 0, 4, base).check(4)


@pytest.mark.parametrize(
    "words, message",
    [
        ("topology -n 4 --strategy gtc --parameters 9 --collectives tree", "those of gtc"),
        ("bench gtc --collectives tree", "--collectives tree is for `bench step`: gtc has"),
    ],
)
def test_commands_refuse_collectives_that_they_would_not_use(words, message, capsys):
    assert cli.main(words.split()) == 2
    assert message in capsys.readouterr().err
