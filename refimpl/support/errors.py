"""Two kinds of errors: what a caller can get wrong, and what cannot happen.

A caller's mistake is a `UserError`: one line that says what was given, what is needed and
what would work.  It is shown without a traceback, and it must be raised on every rank, so
that no rank is left waiting for one that has gone; `refimpl.world.agree` sees to that where
only one rank can know.  What cannot happen is an ``assert``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import MISSING, fields
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

# What helps where the system refuses.
REMEDIES = {
    errno.ENOSPC: "give another folder, or make room",
    errno.EDQUOT: "give another folder, or make room",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENAMETOOLONG: "give a shorter name",
}


# Characters of a message, of which the first and the last are kept, and of another's text in it.
LONGEST, LAST, THEIRS = 2000, 400, 500


class UserError(Exception):
    """A mistake of the caller's; its text is the one line that the caller sees.

    Lines of a text that others have written, such as an exception's, are joined.  ``code`` is the
    exit code of a job that it ends.
    """

    code = 2

    def __init__(self, message: str) -> None:
        line = " ".join(filter(None, map(str.strip, message.splitlines())))
        if len(line) > LONGEST:
            line = f"{line[: LONGEST - LAST]} ... {line[-LAST:]}"
        super().__init__(line)


class Diverged(UserError):
    """A run whose loss is not finite any more; raised on all ranks."""


class Drifted(UserError):
    """A run whose replicas are not equal any more; raised on all ranks."""

    code = 4


class Lost(UserError):
    """A run that cannot go on without what was lost with its dead ranks; on all that live."""

    code = 5


class Stopped(UserError):
    """A run that was asked to end early, by a signal, and has saved itself; on all ranks.

    Its code is BSD's EX_TEMPFAIL.
    """

    code = 75


def require(condition: bool, message: str) -> None:
    """Raise `UserError` with this message unless the condition holds."""
    if not condition:
        raise UserError(message)


def failure(error: UserError | OSError | MemoryError) -> str:
    """Return in one line what went wrong: a mistake, or what the system refuses.

    >>> failure(MemoryError())
    'not enough memory: give less data, or a smaller model'
    """
    if isinstance(error, MemoryError):
        return f"not enough memory: {str(error) or 'give less data, or a smaller model'}"
    return str(error if isinstance(error, UserError) else refused(error))


def brief(value: Any) -> str:
    """Return a value as it stands in a message: in one line of 80 characters at most."""
    try:
        return " ".join(repr(value).split())[:80]
    except ValueError:  # a number whose digits Python declines to count
        return "a number of thousands of digits"


def told(error: BaseException) -> str:
    """Return kind and text of what somebody else's code has raised, whatever that is.

    >>> told(KeyError("lr"))
    "KeyError: 'lr'"
    """
    kind = type(error).__name__
    try:
        return f"{kind}: {str(error)[:THEIRS]}"
    except BaseException:  # its text raises one itself
        return kind


def refused(error: OSError, what: str = "") -> UserError:
    """Return what to say where the system refuses something, by default to do with its file."""
    name = what or (brief(str(error.filename)) if error.filename else "the system refuses")
    remedy = REMEDIES.get(error.errno or 0, "give another place, or see to its permissions")
    return UserError(f"{name}: {error.strerror or error}: {remedy}")


def require_types(values: Any, what: str) -> None:
    """Raise `UserError` unless every field of a dataclass holds what its annotation says.

    An int counts as a float, a list as a tuple, and a bool as nothing but a bool.
    """
    hints = _hints(type(values))  # type: ignore[arg-type]  # a class has a hash
    for field in fields(values):
        value = getattr(values, field.name)
        require(
            _fits(value, hints[field.name]),
            f"{what} {field.name} is {brief(value)}: its type must be {field.type}",
        )


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the annotations of a class, evaluated once."""
    return get_type_hints(kind)


def typed(kind: type[T], plain: dict[str, Any], what: str) -> T:
    """Return a dataclass made of plain data, or raise `UserError` that names the field.

    The dataclass sees to types and values itself, by `require_types`; here it is no field too
    many and none too few.
    """
    require(isinstance(plain, dict), f"no {what} in {brief(plain)}: a JSON object is needed")
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for name in plain:
        require(name in known, f"no {what} {name!r}: there are {listed(known) or 'none'}")
    for name, field in known.items():
        needed = field.default is MISSING and field.default_factory is MISSING
        require(name in plain or not needed, f"{what} {name} is missing")
    return kind(**plain)


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value is of an annotated type."""
    if kind is Any:
        return True
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        each = get_args(kind)[0]
        return isinstance(value, (tuple, list)) and all(_fits(one, each) for one in value)
    if get_origin(kind) is dict and isinstance(value, dict):
        key, item = get_args(kind)
        return all(_fits(name, key) and _fits(one, item) for name, one in value.items())
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else get_origin(kind) or kind)


def listed(names: Iterable[object]) -> str:
    """Return names as they stand in an error message: ``a, b, c``, sorted."""
    return ", ".join(sorted(str(name) for name in names))
