"""How a case is put together: inputs, an operation, and how exactly each answer must be met."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from refimpl.golden import npz, operations
from refimpl.golden.bundle import Array, Case, Rule

Arrays = dict[str, np.ndarray]
Settings = dict[str, Any]
Operation = Callable[[Arrays, Settings], Arrays]

COPIES = Rule("numbers are copied")
EXACT = Rule("the numbers have so few digits that no operation rounds, in any order")
ORDER = Rule("sums are rounded, in the documented order")
INTEGERS = Rule("integers")
BYTES = Rule("bytes of a message, as documented")


class Answer(NamedTuple):
    """What an array that must come out is: its axes, its rule, and whether it is a detail."""

    axes: str
    rule: Rule
    role: str = "output"


def case(
    name: str,
    operation: Operation,
    text: str,
    settings: dict[str, Any],
    inputs: Mapping[str, tuple[np.ndarray, str]],
    answers: Mapping[str, Answer] | Callable[[str], Answer],
) -> Case:
    """Return a case whose answers are what ``operation`` makes of its inputs.

    ``inputs`` maps a name to values and axes; axes are words in one text.  ``answers`` says of
    each name what it is: all that may come out, in order, or a function of what does.  A detail
    that the operation does not return does not exist in this case.  The case is as its operation
    is declared in `refimpl.golden.operations`.
    """
    made = Case(name, operation.__name__, text, settings)
    for key, (value, axes) in inputs.items():
        assert value.ndim == len(axes.split()), (name, key)
        made.arrays[key] = Array("input", value, tuple(axes.split()))
    results = operation(made.inputs(), settings)
    if callable(answers):
        answers = {key: answers(key) for key in results}
    assert set(results) <= set(answers), (name, set(results) - set(answers))
    for key, answer in answers.items():
        if key not in results and answer.role == "detail":
            continue
        value = np.asarray(results[key])
        assert value.ndim == len(answer.axes.split()), (name, key, value.shape)
        assert value.dtype.kind in "iu" or np.isfinite(value).all(), (name, key)
        made.arrays[key] = Array(answer.role, value, tuple(answer.axes.split()), answer.rule)
    undeclared = list(operations.mistakes(_told(made)))
    assert not undeclared, f"{name}: not as in refimpl/golden/operations: {undeclared}"
    return made


def _told(made: Case) -> dict[str, Any]:
    """Return of a case what its operation declares, as a manifest has it."""
    arrays = [
        {"name": n, "role": a.role, "axes": a.axes, "dtype": npz.little(a.value).dtype.str}
        for n, a in made.arrays.items()
    ]
    return {"operation": made.operation, "settings": made.settings, "arrays": arrays}
