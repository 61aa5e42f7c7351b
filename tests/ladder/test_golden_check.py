"""How a check is asked for: which cases, what may fail, what is loosened, and what is written."""

import pytest
from witness import GOLDEN

from refimpl.golden import cases, read, select
from refimpl.support.errors import UserError

BUNDLES = [read.load(GOLDEN / name) for name in ("blocks.bmuf", "layers")]


# ---------------------------------------------------------------------------------- which cases


@pytest.mark.parametrize(
    "globs, found",
    [
        (["layers/relu", "*/tanh"], ["layers/relu", "layers/tanh"]),
        (["!blocks.bmuf", "layers/[rst]*", "!*/s*"], ["layers/relu", "layers/tanh"]),
        (["!blocks.bmuf", "!*/[as]*"], ["layers/relu", "layers/tanh"]),
        ("*/relu", ["layers/relu"]),
    ],
)
def test_of_several_globs_one_has_to_match_and_those_with_a_mark_take_away(globs, found):
    chosen = select.chosen(BUNDLES, globs)
    assert [f"{one.name}/{case.name}" for one in chosen for case in one.cases] == found


@pytest.mark.parametrize(
    "globs, said",
    [
        (["layers", "layer"], "no case matches 'layer': see"),
        (["layers", "!relu"], "no case matches 'relu': see"),
        (["layers", "!*"], r"no case is left without '\*'"),
    ],
)
def test_a_glob_that_matches_nothing_is_refused(globs, said):
    with pytest.raises(UserError, match=said):
        select.chosen(BUNDLES, globs)


def test_bundles_that_train_are_computed_where_a_glob_may_mean_them(monkeypatch):
    trained = []
    for module in cases.TRAINED:
        monkeypatch.setattr(module, "bundles", lambda: trained.append(1) or ())
    for globs, number in (["layers", "blocks.*"], 0), (["layers", "one-step.*"], 2), ("!x", 2):
        list(cases.ladder(globs))
        assert len(trained) == number
        trained.clear()
