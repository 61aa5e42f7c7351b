"""What an operation is, as data: its arrays, its settings, its equation.

An array's ``axes`` are words in one text, as in a manifest.  A name with ``{i}`` stands for one
array for every layer i.  ``when`` says where an array is there; without it, it always is.  Of
two dtypes or axes, as in ``<f4 or <f8``, a case has either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from refimpl.golden import schema

REQUIRED = object()


@dataclass(frozen=True)
class Values:
    """An array of an operation: ``role`` is input, output or detail."""

    role: str
    name: str
    dtype: str
    axes: str
    meaning: str
    when: str = ""

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What its names match as a whole."""
        return re.compile(re.escape(self.name).replace(r"\{i\}", r"\d+"))

    def described(self) -> dict[str, Any]:
        """Return what `operations.json` says."""
        told: dict[str, Any] = {"dtype": self.dtype, "axes": self.axes.split()}
        told["meaning"] = self.meaning
        return told | ({"when": self.when} if self.when else {})


def given(name: str, dtype: str, axes: str, meaning: str, when: str = "") -> Values:
    """Return an input."""
    return Values("input", name, dtype, axes, meaning, when)


def out(name: str, dtype: str, axes: str, meaning: str, when: str = "") -> Values:
    """Return an array that must come out."""
    return Values("output", name, dtype, axes, meaning, when)


def detail(name: str, dtype: str, axes: str, meaning: str, when: str = "") -> Values:
    """Return an array on the way to an output, which must be right if it is there."""
    return Values("detail", name, dtype, axes, meaning, when)


@dataclass(frozen=True)
class Setting:
    """A setting: ``kind`` is a JSON type or a JSON Schema; with a default it may be missing."""

    name: str
    kind: str | Mapping[str, Any]
    meaning: str
    default: Any = REQUIRED

    def described(self) -> dict[str, Any]:
        """Return its JSON Schema."""
        kind = {"type": self.kind} if isinstance(self.kind, str) else dict(self.kind)
        left_out = {} if self.default is REQUIRED else {"default": self.default}
        return {**kind, "description": self.meaning, **left_out}


@dataclass(frozen=True)
class Operation:
    """One operation.

    ``text`` says what is true afterwards, ``equation`` how, line by line, in the names of arrays
    and settings.  Arithmetic is that of the arrays' dtype where nothing else is said.
    """

    name: str
    text: str
    equation: str
    arrays: tuple[Values, ...]
    settings: tuple[Setting, ...] = ()

    def of(self, role: str) -> list[Values]:
        """Return the arrays of a role."""
        return [one for one in self.arrays if one.role == role]

    def lines(self) -> list[str]:
        """Return the equation's lines, without the indent that they stand in."""
        lines = [line.rstrip() for line in self.equation.strip("\n").split("\n")]
        indent = min((len(one) - len(one.lstrip()) for one in lines if one), default=0)
        found = [line[indent:] for line in lines]
        return found if found[-1] else found[:-1]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the settings."""
        return {
            "type": "object",
            "required": [one.name for one in self.settings if one.default is REQUIRED],
            "additionalProperties": False,
            "properties": {one.name: one.described() for one in self.settings},
        }

    def described(self) -> dict[str, Any]:
        """Return it as plain data: an entry of `operations.json`."""
        roles = {"inputs": "input", "outputs": "output", "details": "detail"}
        arrays = {
            key: {one.name: one.described() for one in self.of(role)}
            for key, role in roles.items()
            if self.of(role)
        }
        return {
            "text": self.text,
            "equation": self.lines(),
            **arrays,
            "settings": self.schema,
        }

    def mistakes(self, case: Mapping[str, Any]) -> Iterator[str]:
        """Yield in what a case, as its manifest has it, is not one of this operation."""
        yield from schema.broken(case["settings"], self.schema, "settings")
        found = set()
        for array in case["arrays"]:
            name, axes = array["name"], " ".join(array["axes"])
            one = next((one for one in self.arrays if one.pattern.fullmatch(name)), None)
            if one is None:
                yield f"{self.name} has no array {name}"
                continue
            found.add(one)
            for what, have, want in (
                ("role", array["role"], one.role),
                ("axes", axes, one.axes),
                ("dtype", array["dtype"], one.dtype),
            ):
                if have not in want.split(" or "):
                    yield f"{name} of {self.name} has {what} {have!r}, not {want!r}"
        for one in self.arrays:
            if one not in found and not one.when and one.role != "detail":
                yield f"{one.name} of {self.name} is missing"
