"""Editions of the golden values: which cases there were when, and what has changed.

A case never changes once its edition is closed; what must change is another case, with another
name.  So an edition is a list of names: that of a closed one stands in ``editions.json``, with the
digests of its files, and what is in none belongs to the last edition, which is open.

A manifest says ``since`` of a case, and ``edition`` of the bundle, the last in which it changed;
where these are missing they are 1.  So cases up to an edition make the files of that edition, byte
for byte.

    refimpl golden editions
    refimpl golden write --edition 1 DIR
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from refimpl.golden import npz
from refimpl.golden.bundle import ARRAYS, MANIFEST, Bundle, text_of
from refimpl.golden.select import hit
from refimpl.support.errors import require

FILE = Path(__file__).with_name("editions.json")


@cache
def all_editions() -> list[dict[str, Any]]:
    """Return the editions as plain data, the first one first."""
    told: list[dict[str, Any]] = json.loads(FILE.read_text("utf-8"))["editions"]
    return told


def last() -> int:
    """Return the number of the last edition."""
    return len(all_editions())


def since(bundle: str, case: str) -> int:
    """Return the edition in which a case was first.

    >>> since("layers", "affine.tiny"), since("layers", "affine.of-tomorrow") == last()
    (1, True)
    """
    for number, edition in enumerate(all_editions(), 1):
        if case in edition.get("bundles", {}).get(bundle, {}).get("cases", ()):
            return number
    return last()


def dated(one: Bundle) -> Bundle:
    """Return a bundle whose cases say since which edition they are there."""
    cases = [replace(case, since=since(one.name, case.name)) for case in one.cases]
    return replace(one, cases=tuple(cases))


def until(bundles: Iterable[Bundle], edition: int | None) -> Iterator[Bundle]:
    """Yield the bundles as they are in an edition; None for the last one.

    Raises `UserError` if there is none of this number.
    """
    known = f"edition {edition}: there are editions 1 to {last()}, see `refimpl golden editions`"
    require(edition is None or 1 <= edition <= last(), known)
    for one in bundles:
        cases = tuple(case for case in one.cases if case.since <= (edition or last()))
        if cases:
            yield replace(one, cases=cases)


def listing(bundles: Iterable[Bundle]) -> dict[str, Any]:
    """Return what a closed edition lists of its bundles: digests of the files, and the cases."""
    return {
        one.name: {
            MANIFEST: hashlib.sha256(text_of(one.manifest()).encode("ascii")).hexdigest(),
            ARRAYS: hashlib.sha256(npz.npz(one.values())).hexdigest(),
            "cases": [case.name for case in one.cases],
        }
        for one in bundles
    }


def changes(number: int, bundles: Iterable[Bundle]) -> Iterator[tuple[str, str]]:
    """Yield the cases that an edition brought, by their full names, each with the reason.

    That is the edition's reason for the first glob that the name matches, or else what the case
    shows.
    """
    reasons = all_editions()[number - 1].get("changes", [])
    for one in bundles:
        for case in one.cases:
            if case.since == number:
                name = f"{one.name}/{case.name}"
                whys = [told["why"] for told in reasons if hit(name, told["cases"])]
                yield name, (whys or [case.text])[0]
