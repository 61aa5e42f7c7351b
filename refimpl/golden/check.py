"""The check: somebody's arrays against the ladder, a line for each, and the first broken rung.

An array that must be there and is not, one that nobody asked for, a file that cannot be read:
each is a line that says so.  Lines are in the order of the ladder, so the first case that is wrong
is where to start, and in it what is wrong in the earliest step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from refimpl.golden import bundle, npz, read
from refimpl.golden.bundle import Bundle, Case
from refimpl.golden.compare import verdict
from refimpl.golden.select import Globs, chosen, matches
from refimpl.support.errors import UserError


@dataclass(frozen=True)
class Line:
    """What was found of one array, or of one file."""

    right: bool
    rung: str
    bundle: str
    case: str
    array: str
    text: str
    step: float = -1  # where it begins to be wrong, if it has steps; inf: after all of them

    @property
    def name(self) -> str:
        """The full name: bundle/case/array, as far as there are any."""
        return "/".join(part for part in (self.bundle, self.case, self.array) if part)

    def __str__(self) -> str:
        return f"{'ok   ' if self.right else 'WRONG'} {self.name}: {self.text}"


@dataclass
class Report:
    """All lines, in the order of the ladder, and what was left out and why."""

    lines: list[Line] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[Line]:
        """The lines that are not ok."""
        return [line for line in self.lines if not line.right]

    @property
    def first(self) -> Line | None:
        """What to look at first: in the first case that is wrong, what is wrong earliest."""
        wrong = self.wrong
        if not wrong:
            return None
        case = (wrong[0].bundle, wrong[0].case)
        return min((one for one in wrong if (one.bundle, one.case) == case), key=lambda o: o.step)

    @property
    def right(self) -> bool:
        """Whether something was compared, and all of it is right."""
        return bool(self.lines) and not self.wrong

    def summary(self) -> str:
        """Return the last words: how many, and the first broken rung."""
        cases = {(line.bundle, line.case) for line in self.lines}
        text = f"{len(self.lines)} arrays of {len(cases)} cases, {len(self.wrong)} wrong"
        if self.skipped:
            text += f"; left out: {', '.join(self.skipped)}"
        if self.first is not None:
            number = bundle.RUNGS.index(self.first.rung) + 1
            text += f"\nfirst broken rung: {number}, {self.first.rung}: {self.first.name}"
        elif not self.lines:
            text += ": nothing to compare"
        return text


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
            yield line(found.right, key, found.text + note, found.step)
        elif want.role == "output":
            yield line(False, key, "missing")
    for key in sorted((set(have) | set(damaged)) - set(case.arrays)):
        yield line(False, key, "extra: the case has no such array")


def folders(theirs: Path, against: Iterable[Bundle], globs: Globs = "*") -> Iterator[Line]:
    """Yield the lines of a folder of bundles: theirs/BUNDLE/arrays.npz for each bundle.

    Every case of ``against`` whose name matches must be there; other cases of its bundles may be,
    and are not looked at; bundles that it does not know are extra.  A manifest of theirs is not
    needed, and not read.
    """
    against = list(against)
    known = {one.name: {case.name for case in one.cases} for one in against}
    for wanted in chosen(against, globs):
        file = theirs / wanted.name / bundle.ARRAYS
        yield from _of_bundle(file, wanted, known[wanted.name])
    for file in sorted(theirs.glob(f"*/{bundle.ARRAYS}")):
        name = file.parent.name
        if name not in known and matches(name, globs):
            yield Line(False, bundle.RUNGS[-1], name, "", "", "extra: there is no such bundle")


def _of_bundle(file: Path, wanted: Bundle, known: set[str]) -> Iterator[Line]:
    try:
        archive = npz.read(file)
    except npz.Damaged as damage:
        yield Line(False, wanted.rung, wanted.name, "", "", f"{bundle.ARRAYS} is {damage}")
        return
    by_case: dict[str, tuple[dict[str, np.ndarray], dict[str, str]]] = {}
    for full, value in archive.arrays.items():
        name, _, key = full.rpartition("/")
        by_case.setdefault(name, ({}, {}))[0][key] = value
    for full, why in archive.damaged.items():
        name, _, key = full.rpartition("/")
        by_case.setdefault(name, ({}, {}))[1][key] = why
    for case in wanted.cases:
        have, damaged = by_case.pop(case.name, ({}, {}))
        yield from of_case(wanted.rung, wanted.name, case, have, damaged)
    for name, (have, damaged) in by_case.items():
        for key in [*have, *damaged] if name not in known else ():
            text = "extra: the bundle has no such case"
            yield Line(False, wanted.rung, wanted.name, name, key, text)


def loaded(folder: Path) -> list[Bundle]:
    """Return all bundles of a folder, in the order of the ladder.

    Raises `UserError` if there are none, or one is damaged.
    """
    read.check_around(folder)
    names = read.names(folder)
    if not names:
        raise UserError(f"no golden bundles in {folder}: write some with `refimpl golden write`")
    return sorted((read.load(folder / name) for name in names), key=lambda one: one.order)
