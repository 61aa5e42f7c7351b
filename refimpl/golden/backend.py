"""A backend in the same process: an object whose methods are the operations of the ladder.

A method takes what a case gives, and returns what must come out, by name:

    def affine(self, inputs, settings):
        x, w, b, dy = (inputs[name] for name in ("x", "w", "b", "dy"))
        return {"y": x @ w + b, "dw": x.T @ dy, "db": dy.sum(0), "dx": dy @ w.T}

``inputs`` are NumPy arrays, the method's own to spoil; ``settings`` is the case's plain data.
The result maps names to NumPy arrays of the dtype and shape that the case states; details may be
left out.  A method that a backend does not have is an operation that it does not offer: its
cases are left out and named.  A method may refuse a single case (an algorithm, a number of ranks)
by raising ``NotImplementedError``.  Any other exception is a wrong answer.

What each operation means stands at the function of its name in ``refimpl/golden/cases``, and for
all of them in docs/golden.md.  `Reference` is the backend that the values come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from refimpl.golden import cases, check
from refimpl.golden.bundle import Bundle, Case
from refimpl.golden.report import Line, Report
from refimpl.golden.select import Globs, chosen

OPERATIONS = tuple(operation.__name__ for operation in cases.OPERATIONS)


class Reference:
    """refimpl as a backend: what everybody else is compared with."""


for _operation in cases.OPERATIONS:
    setattr(Reference, _operation.__name__, staticmethod(_operation))


def check_backend(
    backend: Any,
    against: Path | str | Iterable[Bundle] | None = None,
    pattern: Globs = "*",
    say: Callable[[str], None] = print,
) -> Report:
    """Ask a backend every case that it offers an operation for; say a line for each array.

    Parameters
    ----------
    backend : object
        With methods named after operations; see the module's text.
    against : path or bundles, optional
        A folder of bundles; by default they are computed now.
    pattern : str or strings
        Which cases, as ``layers/affine.*``, or several such globs; ``!layers`` takes away.
    say : callable
        Where lines go: those that are wrong, and the summary.

    Returns
    -------
    Report
        ``report.right`` tells whether all that was asked is right, ``report.first`` names the
        first broken rung, ``report.skipped`` what was not asked.

    Raises
    ------
    UserError
        If there are no such bundles or no such case.

    Examples
    --------
    >>> class Mine:  # whose derivative at 0 is another one
    ...     def relu(self, inputs, settings):
    ...         y = np.maximum(inputs["x"], 0)
    ...         return {"y": y, "dx": inputs["dy"] * (inputs["x"] >= 0)}
    >>> report = check_backend(Mine(), pattern="layers/*")
    WRONG layers/relu/dx: 1 of 24 differ, worst 5.77e+06 ulp of the largest at [row 0, \
element 0]: have 0x1.6000000000000p+0 (1.375), want 0x0.0p+0 (0.0); allowed 1 ulp
    2 arrays of 1 cases, 1 wrong; left out: affine, sigmoid, softmax_cross_entropy, tanh
    first broken rung: 4, layers: layers/relu/dx
    """
    if against is None:
        against = cases.ladder(pattern)
    elif isinstance(against, (str, Path)):
        against = check.loaded(Path(against))
    report, refused = Report(), set()
    for one in chosen(against, pattern):
        for case in one.cases:
            method = getattr(backend, case.operation, None)
            if method is None:
                refused.add(case.operation)
                continue
            try:
                lines = list(_asked(method, one, case))
            except NotImplementedError:
                refused.add(f"{one.name}/{case.name}")
                continue
            report.lines += lines
            for line in lines:
                if not line.right:
                    say(str(line))
    report.skipped = sorted(refused)
    say(report.summary())
    return report


def _answer(method: Callable, case: Case) -> dict[str, np.ndarray]:
    have = method(case.inputs(), deepcopy(case.settings))
    if not isinstance(have, dict):
        raise TypeError(f"returned {type(have).__name__}, wanted a dict of arrays")
    return {str(key): np.asarray(value) for key, value in have.items()}


def _asked(method: Callable, one: Bundle, case: Case) -> Iterator[Line]:
    """Yield the lines of one case."""
    try:
        arrays = _answer(method, case)
    except NotImplementedError:
        raise
    except Exception as error:
        text = f"{case.operation} raised {type(error).__name__}: {error}".splitlines()[0]
        yield Line(False, one.rung, one.name, case.name, "", text)
        return
    yield from check.of_case(one.rung, one.name, case, arrays, {})
