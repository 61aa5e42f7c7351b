"""What came of a check, for people and for machines.

A line is in one of four states; the last two come of a list of what is expected to fail:

    right        as it must be
    wrong        not so
    expected     not so, and expected
    unexpected   right, and expected to fail: the list is out of date

Nothing must be wrong or unexpected.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from xml.etree import ElementTree as xml

from refimpl.golden import bundle

WORDS = {"right": "ok   ", "expected": "known"}
NAMED = 8  # of what was left out
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
    expected: str = ""  # who expects it to fail
    loose: bool = False  # right, but not by the rule that is stated

    @property
    def name(self) -> str:
        """The full name: bundle/case/array, as far as there are any."""
        return "/".join(part for part in (self.bundle, self.case, self.array) if part)

    @property
    def state(self) -> str:
        """One of the four states."""
        if self.expected:
            return "unexpected" if self.right else "expected"
        return "right" if self.right else "wrong"

    @property
    def bad(self) -> bool:
        """Whether something is to be done about it."""
        return self.right == bool(self.expected)

    def __str__(self) -> str:
        return f"{WORDS.get(self.state, 'WRONG')} {self.name}: {self.text}"


@dataclass
class Report:
    """All lines, in the order of the ladder, and what was left out and why."""

    lines: list[Line] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> list[Line]:
        """The lines about which something is to be done."""
        return [line for line in self.lines if line.bad]

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

    @property
    def counts(self) -> dict[str, int]:
        """How many arrays (or files) and cases there are, and how many of each kind."""
        states = [line.state for line in self.lines]
        return {
            "arrays": len(self.lines),
            "cases": len({(line.bundle, line.case) for line in self.lines}),
            "wrong": len(self.wrong),
            "expected": states.count("expected"),
            "unexpected": states.count("unexpected"),
            "loose": sum(line.loose for line in self.lines),
        }

    def summary(self) -> str:
        """Return the last words: how many, and the first broken rung."""
        counts = self.counts
        text = f"{counts['arrays']} arrays of {counts['cases']} cases, {counts['wrong']} wrong"
        if counts["expected"]:
            text += f", {counts['expected']} wrong as expected"
        if counts["loose"]:
            text += f", {counts['loose']} right by --ulp only"
        if self.skipped:
            text += f"; left out: {', '.join(self.skipped[:NAMED])}"
            if len(self.skipped) > NAMED:
                text += f" and {len(self.skipped) - NAMED} more"
        if self.first is not None and self.first.right:
            text += f"\nfirst unexpected pass: {self.first.name}"
        elif self.first is not None:
            number = bundle.RUNGS.index(self.first.rung) + 1
            text += f"\nfirst broken rung: {number}, {self.first.rung}: {self.first.name}"
        elif not self.lines:
            text += ": nothing to compare"
        return text


def as_json(report: Report) -> str:
    """Return a report as JSON: what the summary says, and an object for each line.

    ``step`` is where the array begins to be wrong, null where it has no steps.
    """
    told = {
        "right": report.right,
        **report.counts,
        "first": report.first and report.first.name,
        "left_out": report.skipped,
        "lines": [
            {
                "state": line.state,
                "rung": bundle.RUNGS.index(line.rung) + 1,
                "bundle": line.bundle,
                "case": line.case,
                "array": line.array,
                "step": line.step if 0 <= line.step < math.inf else None,
                "loose": line.loose,
                "text": line.text,
            }
            for line in report.lines
        ],
    }
    return json.dumps(told, indent=1) + "\n"


def as_junit(report: Report) -> str:
    """Return a report as JUnit's XML: a suite for each bundle, a test for each case.

    A case with anything wrong fails, with its lines; one that is wrong as expected, or that was
    left out, is skipped.
    """
    suites: dict[str, list[xml.Element]] = {}

    def add(name: str, case: str, kind: str, message: str, text: str = "") -> None:
        test = xml.Element("testcase", classname=_clean(name), name=_clean(case))
        if kind:
            xml.SubElement(test, kind, message=_clean(message)).text = _clean(text)
        suites.setdefault(name, []).append(test)

    for (name, case), group in groupby(report.lines, lambda line: (line.bundle, line.case)):
        lines = list(group)
        bad = [str(line) for line in lines if line.bad]
        expected = [str(line) for line in lines if line.state == "expected"]
        kind = "failure" if bad else "skipped" if expected else ""
        told = bad or expected
        add(name, case or "arrays", kind, told[0] if told else "", "\n".join(told))
    for full in report.skipped:
        name, _, case = full.partition("/")
        add(name, case or "all cases", "skipped", "left out")
    top = xml.Element("testsuites", name="refimpl golden check")
    for name, tests in suites.items():
        suite = xml.SubElement(top, "testsuite", name=_clean(name), errors="0")
        suite.extend(tests)
        suite.set("tests", str(len(tests)))
        for kind in ("failure", "skipped"):
            count = str(sum(test.find(kind) is not None for test in tests))
            suite.set({"failure": "failures"}.get(kind, kind), count)
    xml.indent(top, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + xml.tostring(top, "unicode") + "\n"


def _clean(text: str) -> str:
    """Return a text without the characters that XML cannot hold; theirs may hold any."""
    return NO_XML.sub(lambda found: ascii(found[0])[1:-1], text)


FORMS: dict[str, Callable[[Report], str]] = {"json": as_json, "junit": as_junit}
