"""Which cases are meant, by globs; and rules that somebody has loosened for some of them.

A glob is matched with ``BUNDLE/CASE``, or with ``BUNDLE`` alone.  Of several a case has to match
one; those that begin with ``!`` take away, wherever they stand, and of all cases if there are no
others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from refimpl.golden.bundle import Array, Bundle, Rule
from refimpl.support.errors import UserError, require

Globs = str | Sequence[str]


def split(globs: Globs) -> tuple[list[str], list[str]]:
    """Return the globs of what is wanted and of what is not.

    >>> split(["layers", "!*/affine.*"]), split("!layers")
    ((['layers'], ['*/affine.*']), (['*'], ['layers']))
    """
    globs = [globs] if isinstance(globs, str) else globs
    wanted = [glob for glob in globs if not glob.startswith("!")]
    return wanted or ["*"], [glob[1:] for glob in globs if glob.startswith("!")]


def hit(name: str, glob: str) -> bool:
    """Tell whether a case's full name matches a glob; a bundle's name stands for its cases.

    >>> hit("blocks.bmuf/cbm.tiny", "blocks.*"), hit("blocks.bmuf/cbm.tiny", "*/nbm*")
    (True, False)
    """
    return fnmatchcase(name, glob) or fnmatchcase(name.partition("/")[0], glob)


def matches(name: str, globs: Globs) -> bool:
    """Tell whether a case, or a bundle, is among those that are meant.

    >>> matches("blocks.bmuf/cbm.tiny", ["blocks.*", "!*/cbm*"])
    False
    """
    wanted, unwanted = split(globs)
    return any(hit(name, glob) for glob in wanted) and not any(hit(name, g) for g in unwanted)


def chosen(bundles: Iterable[Bundle], globs: Globs) -> list[Bundle]:
    """Return the bundles, in the order of the ladder, with only the cases that are meant.

    Raises `UserError` for a glob that matches no case, and if no case is left.
    """
    bundles = sorted(bundles, key=lambda one: one.order)
    names = [f"{one.name}/{case.name}" for one in bundles for case in one.cases]
    wanted, unwanted = split(globs)
    for glob in (*wanted, *unwanted):
        if not any(hit(name, glob) for name in names):
            raise UserError(f"no case matches {glob!r}: see `refimpl golden list`")
    found = []
    for one in bundles:
        cases = tuple(c for c in one.cases if matches(f"{one.name}/{c.name}", globs))
        if cases:
            found.append(replace(one, cases=cases))
    require(bool(found), f"no case is left without {', '.join(map(repr, unwanted))}: exclude less")
    return found


def loosened(bundles: Iterable[Bundle], rules: Sequence[tuple[str, int]]) -> list[Bundle]:
    """Return the bundles with ``ulp: k`` where a glob matches a case or one of its arrays.

    No rule becomes stricter, of two that match the looser counts, and integers keep theirs.  A
    rule that was loosened says what it was (``Rule.stated``).

    Raises `UserError` for a glob that matches no floats that must come out.
    """
    unused = dict(rules)

    def rule_of(case: str, name: str, array: Array) -> Array:
        rule, ulp = array.rule, 0
        if rule is None or array.value.dtype.kind != "f":
            return array
        for glob, k in rules:
            if hit(case, glob) or fnmatchcase(f"{case}/{name}", glob):
                ulp = max(ulp, k)
                unused.pop(glob, None)
        return replace(array, rule=Rule(rule.why, ulp, rule)) if ulp > (rule.ulp or 0) else array

    found = []
    for one in bundles:
        cases = []
        for case in one.cases:
            full = f"{one.name}/{case.name}"
            arrays = {name: rule_of(full, name, array) for name, array in case.arrays.items()}
            cases.append(replace(case, arrays=arrays))
        found.append(replace(one, cases=tuple(cases)))
    for glob in unused:
        raise UserError(
            f"--ulp {glob}={unused[glob]}: no array of floats that must come out matches "
            f"{glob!r}: give BUNDLE, BUNDLE/CASE or BUNDLE/CASE/ARRAY, see `refimpl golden list`"
        )
    return found
