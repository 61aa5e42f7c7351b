"""What is expected to fail: a text file with a name or a glob a line, and a check beside it.

A line that names cases (``layers``, ``layers/affine.tiny``, ``*.network/*``) expects something in
each of them to be wrong; one that names arrays (``layers/affine.tiny/dw``, ``*/dw``) expects it of
each of these.  What is wrong then is no news; what is right is: the list is out of date, and that
fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from refimpl.golden.bundle import Bundle
from refimpl.golden.report import Line
from refimpl.golden.select import hit
from refimpl.support.errors import UserError
from refimpl.support.files import read_text


class Expected(NamedTuple):
    """A glob, and where it stands."""

    glob: str
    where: str


def load(path: Path, bundles: Iterable[Bundle]) -> list[Expected]:
    """Return what a file lists; blank lines, and what follows a ``#``, are passed over.

    Raises `UserError` if it cannot be read, or for a line that matches nothing in the bundles.
    """
    cases = [(f"{one.name}/{case.name}", case) for one in bundles for case in one.cases]
    found = []
    for number, text in enumerate(read_text(path).split("\n"), 1):
        glob, where = text.partition("#")[0].strip(), f"{path.name}:{number}"
        if not glob:
            continue
        if not any(
            hit(name, glob) or any(fnmatchcase(f"{name}/{array}", glob) for array in case.arrays)
            for name, case in cases
        ):
            raise UserError(
                f"{path}: line {number}: no case and no array matches {glob!r}: give BUNDLE, "
                "BUNDLE/CASE or BUNDLE/CASE/ARRAY, see `refimpl golden list`"
            )
        found.append(Expected(glob, where))
    return found


def marked(lines: Iterable[Line], listed: Sequence[Expected]) -> Iterator[Line]:
    """Yield the lines, case after case, with who expects them to fail.

    Of a case that is named as a whole and has nothing wrong in it, every line is unexpected.
    """
    for (bundle, case), group in groupby(lines, lambda line: (line.bundle, line.case)):
        of_case, name = list(group), f"{bundle}/{case}" if case else bundle
        whole = next((one for one in listed if hit(name, one.glob)), None)
        failed = any(not line.right for line in of_case)
        for line in of_case:
            one = whole or next((one for one in listed if fnmatchcase(line.name, one.glob)), None)
            if one is None or (one is whole and failed and line.right):
                yield line
            elif line.right:
                text = f"{line.text}, but {one.where} expects it to fail: take that line out"
                yield replace(line, text=text, expected=one.where)
            else:
                text = f"{line.text} (expected: {one.where})"
                yield replace(line, text=text, expected=one.where)
