"""Options of all rows: who has them, what is refused, and which of several sources counts."""

import re

import pytest
from rows import others

from refimpl.methods import strategies
from refimpl.methods.strategies import STRATEGIES, Lengths
from refimpl.support.errors import UserError

EVERY = strategies.options()
PAIRS = [(row, key) for row in STRATEGIES.values() for key in EVERY]


def fields(row, given, recipe=None):
    """Return the fields of all methods that a row comes to."""
    chosen = row.choose(given, recipe)
    return {
        key: getattr(method, option.field)
        for method in chosen.each()
        for key, option in method.options().items()
    }


@pytest.mark.parametrize("row, key", PAIRS, ids=lambda x: getattr(x, "name", x))
def test_a_row_has_the_options_of_its_methods_that_are_not_settled(row, key):
    """By the name, by a length that it does not have, or for want of an axis or of other ranks."""
    methods = [one for one in (row.partition, row.gradient, row.block) if one is not None]
    mine = [one.options()[key] for one in methods if key in one.options()]
    has = any(not one.axis or getattr(row, one.axis) is not None for one in mine)
    has = has and key not in row.preset and not (row.serial and key in row.gradient.options())
    if key in Lengths.options():
        has = EVERY[key].metavar in row.lengths.split()
    assert (key in row.options()) == has
    value = others(EVERY[key])[0]
    if has:
        row.check({key: value})
        return
    having = {one.name for one in STRATEGIES.values() if key in one.options()}
    shown = EVERY[key].flag + ("" if value is True else f" {value}")
    with pytest.raises(UserError) as error:
        row.check({key: value})
    said = re.fullmatch(
        rf"{shown} does not go with strategy {row.name}: leave it out, or use --strategy (.*)",
        str(error.value),
    )
    assert set(said[1].split(", ")) == having


@pytest.mark.parametrize("row, key", PAIRS, ids=lambda x: getattr(x, "name", x))
def test_what_is_given_counts_before_what_the_name_settles_and_that_before_a_recipe(row, key):
    option = EVERY[key]
    values = [option.value(word) for word in others(option)]
    recipe = {key: others(option)[0]}
    if key in Lengths.options() or key not in fields(row, {}):
        assert fields(row, {}, recipe) == fields(row, {})
        return
    settled = option.value(row.preset[key]) if key in row.preset else values[0]
    assert fields(row, {}, recipe)[key] == settled
    assert fields(row, {})[key] == (settled if key in row.preset else option.default)
    if key in row.options():
        assert fields(row, {key: others(option)[-1]}, recipe)[key] == values[-1]


@pytest.mark.parametrize("key", EVERY)
def test_a_text_or_a_value_that_cannot_be_meant_is_refused_in_one_line_that_names_the_flag(key):
    option = EVERY[key]
    row = next(row for row in STRATEGIES.values() if key in row.options())
    if option.choices:
        wrong = ["nothing", ""]
        with pytest.raises(UserError, match=f"{option.flag} nothing: choose one of "):
            fields(row, {key: "nothing"})
    elif option.kind is bool:
        return  # a flag alone
    else:
        wrong = ["", "many", "nan", "-1", "inf"]
    for text in wrong:
        with pytest.raises(UserError) as error:
            option.parse(text)
        assert str(error.value).startswith(option.flag) and "\n" not in str(error.value)


@pytest.mark.parametrize("key", EVERY)
def test_a_text_gives_what_a_person_would_give(key):
    option = EVERY[key]
    if option.kind is not bool or option.choices:
        for given in others(option):
            assert option.parse(str(given)) == given
