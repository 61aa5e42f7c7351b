"""The check: somebody's arrays against the ladder, a line for each, and the first broken rung.

An array that must be there and is not, one that nobody asked for, a file that cannot be read:
each is a line that says so.  Lines are in the order of the ladder, so the first case that is wrong
is where to start, and in it what is wrong in the earliest step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from refimpl.golden import bundle, container, npz, read
from refimpl.golden.bundle import Bundle, Case
from refimpl.golden.compare import verdict
from refimpl.golden.report import Line
from refimpl.golden.select import Globs, chosen, matches
from refimpl.support.errors import UserError


def of_case(
    rung: str, name: str, case: Case, have: Mapping[str, np.ndarray], damaged: Mapping[str, str]
) -> Iterator[Line]:
    """Yield a line for each array of a case.  ``have`` may hold inputs, which must then agree."""

    def line(right: bool, array: str, text: str, step: float = -1) -> Line:
        return Line(right, rung, name, case.name, array, text, step)

    for key, want in case.arrays.items():
        if key in damaged:
            yield line(False, key, damaged[key])
        elif key in have:
            found = verdict(have[key], want)
            note = f" ({want.role})" if want.role != "output" else ""
            stated = want.rule and want.rule.stated
            if stated is None:
                yield line(found.right, key, found.text + note, found.step)
                continue
            strict = replace(want, rule=stated)
            loose = found.right and not verdict(have[key], strict).right
            note += f" by --ulp, the rule is {stated}" if loose or found.step >= 0 else ""
            yield replace(line(found.right, key, found.text + note, found.step), loose=loose)
        elif want.role == "output":
            yield line(False, key, "missing")
    for key in sorted((set(have) | set(damaged)) - set(case.arrays)):
        yield line(False, key, "extra: the case has no such array")


def folders(
    theirs: Path,
    against: Iterable[Bundle],
    globs: Globs = "*",
    left_out: list[str] | None = None,
) -> Iterator[Line]:
    """Yield the lines of a folder of bundles: theirs/BUNDLE/arrays.npz, or
    arrays.safetensors, for each bundle.

    Every case of ``against`` whose name matches must be there; other cases of its bundles may be,
    and are not looked at; bundles that it does not know are extra.  A manifest of theirs is not
    needed, and not read.

    With a list ``left_out`` a case must be there only as a whole: one of which theirs has nothing
    but perhaps inputs is not compared, and its name appended; that of the bundle, if all are so.
    """
    against = list(against)
    known = {one.name: {case.name for case in one.cases} for one in against}
    for wanted in chosen(against, globs):
        own = theirs / wanted.name
        if left_out is not None and not container.there(own):
            left_out.append(wanted.name)
            continue
        yield from _of_bundle(own, wanted, known[wanted.name], left_out)
    for name in sorted({file.parent.name for file in theirs.glob("*/*")}):
        if container.there(theirs / name) and name not in known and matches(name, globs):
            yield Line(False, bundle.RUNGS[-1], name, "", "", "extra: there is no such bundle")


def _of_bundle(
    folder: Path, wanted: Bundle, known: set[str], left_out: list[str] | None
) -> Iterator[Line]:
    try:
        archive = container.read(folder)
    except npz.Damaged as damage:
        yield Line(False, wanted.rung, wanted.name, "", "", str(damage))
        return
    by_case: dict[str, tuple[dict[str, np.ndarray], dict[str, str]]] = {}
    for full, value in archive.arrays.items():
        name, _, key = full.rpartition("/")
        by_case.setdefault(name, ({}, {}))[0][key] = value
    for full, why in archive.damaged.items():
        name, _, key = full.rpartition("/")
        by_case.setdefault(name, ({}, {}))[1][key] = why
    unanswered = []
    for case in wanted.cases:
        have, damaged = by_case.pop(case.name, ({}, {}))
        given = {key for key, array in case.arrays.items() if array.role == "input"}
        if left_out is not None and not {*have, *damaged} - given:
            unanswered.append(f"{wanted.name}/{case.name}")
            continue
        yield from of_case(wanted.rung, wanted.name, case, have, damaged)
    if left_out is not None:
        left_out += [wanted.name] if len(unanswered) == len(wanted.cases) else unanswered
    for name, (have, damaged) in by_case.items():
        for key in [*have, *damaged] if name not in known else ():
            text = "extra: the bundle has no such case"
            yield Line(False, wanted.rung, wanted.name, name, key, text)


def until_bad(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield lines up to the end of the first case with one about which something is to be done."""
    bad = None
    for line in lines:
        case = (line.bundle, line.case)
        if bad not in (None, case):
            return
        bad = case if line.bad else bad
        yield line


def loaded(folder: Path) -> list[Bundle]:
    """Return all bundles of a folder, in the order of the ladder.

    Raises `UserError` if there are none, or one is damaged.
    """
    read.check_around(folder)
    names = read.names(folder)
    if not names:
        raise UserError(f"no golden bundles in {folder}: write some with `refimpl golden write`")
    return sorted((read.load(folder / name) for name in names), key=lambda one: one.order)
