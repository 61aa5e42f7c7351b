"""Options: what a method lets its user choose, declared once, where the method is.

A method is a frozen dataclass, and its fields are its options::

    @dataclass(frozen=True)
    class BlockFilter(BlockMethod):
        steps: int = option("--block-steps", 50, "local steps of a block", least(1))

From such a field follow its flag on the command line, its key in ``config.json`` and in a recipe
(``block_steps``), its line in the help and in the book, and the refusal of a value that cannot be
meant, however the method is made.  No list of option names stands anywhere else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, NamedTuple, get_args, get_type_hints

from refimpl.support.errors import UserError, brief, listed, require, require_types


class Check(NamedTuple):
    """What a value must be: a test, and the words that follow "must be"."""

    holds: Callable[[Any], bool]
    words: str


LARGEST = 1e30


@cache
def least(number: float) -> Check:
    """Return the check of a number of at least this."""
    return Check(lambda value: number <= value <= LARGEST, f"at least {number:g}")


POSITIVE = Check(lambda value: 0 < value <= LARGEST, "a positive, finite number")


class Option(NamedTuple):
    """One option: ``flag`` on the command line, ``field`` of the method, ``key`` elsewhere.

    ``choices`` maps what a user writes to the field's value; ``axis`` names another axis without
    which the option would mean nothing; ``metavar`` stands for the value in the help.
    """

    flag: str
    field: str
    kind: type
    default: Any
    meaning: str
    check: Check | None
    choices: Mapping[str, Any]
    axis: str
    metavar: str

    @property
    def key(self) -> str:
        """Its name in ``config.json`` and in recipes: that of the flag."""
        return self.flag.lstrip("-").replace("-", "_")

    def refuse(self, value: Any) -> None:
        """Raise `UserError` for a value of the field that cannot be meant."""
        if value is None and self.default is None:
            return
        if self.choices:
            names = ", ".join(self.choices)
            require(value in self.choices.values(), f"{self.flag} {value}: choose one of {names}")
        if self.check is not None:
            holds = self.check.holds(value)
            require(holds, f"{self.flag} {brief(value)}: must be {self.check.words}")

    def value(self, given: Any) -> Any:
        """Return the field's value for what a user, a recipe or a preset gives."""
        if self.choices:
            shown = given if isinstance(given, str) else brief(given)
            if not isinstance(given, str) or given not in self.choices:
                raise UserError(f"{self.flag} {shown}: choose one of {', '.join(self.choices)}")
            return self.choices[given]
        return given

    def parse(self, text: str) -> Any:
        """Return what a text on the command line gives; `value` takes it.

        Raises
        ------
        UserError
            If the text spells no such value.
        """
        try:
            given = text if self.choices else self.kind(text)
        except ValueError:
            what = "a whole number" if self.kind is int else "a number"
            words = f", {self.check.words}" if self.check else ""
            raise UserError(f"{self.flag} {text!r}: must be {what}{words}") from None
        self.refuse(self.value(given))
        return given


def option(
    flag: str,
    default: Any,
    meaning: str,
    check: Check | None = None,
    *,
    choices: Iterable[str] | Mapping[str, Any] = (),
    axis: str = "",
    metavar: str = "",
) -> Any:
    """Return the dataclass field of an option; see `Option`.  A flag alone means true."""
    if not isinstance(choices, Mapping):
        choices = {name: name for name in choices}
    told = {"flag": flag, "meaning": meaning, "check": check, "choices": choices, "axis": axis}
    return dataclasses.field(default=default, metadata=told | {"metavar": metavar})


@dataclass(frozen=True)
class Options:
    """A class of options; making one checks all of its values."""

    def __post_init__(self) -> None:
        require_types(self, type(self).__name__)
        for one in self.options().values():
            one.refuse(getattr(self, one.field))

    @classmethod
    @cache
    def options(cls) -> Mapping[str, Option]:
        """Return the options by key, in order."""
        hints, found = get_type_hints(cls), {}
        for field in fields(cls):
            kind = hints[field.name]
            kinds = [one for one in get_args(kind) or (kind,) if one is not type(None)]
            told = dict(field.metadata)
            metavar = told.pop("metavar") or {int: "N", float: "X"}.get(kinds[0], "WHAT")
            made = Option(
                field=field.name, kind=kinds[0], default=field.default, metavar=metavar, **told
            )
            found[made.key] = made
        return found

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Any:
        """Return the options with what is given by key; keys that are another class's are left."""
        known = cls.options()
        return cls(
            **{one.field: one.value(given[key]) for key, one in known.items() if key in given}
        )


def misplaced(flag: str, given: Any, strategy: str, having: Iterable[str]) -> UserError:
    """Return the error of an option that a strategy does not have; ``having``: who has it."""
    shown = "" if given is True else f" {given}"
    return UserError(
        f"{flag}{shown} does not go with strategy {strategy}: leave it out, or use --strategy "
        f"{listed(having)}"
    )
