"""benchmarks/bad_inputs.py: what it calls good, and that its cases can be asked for."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import bad_inputs
from benchmarks.bad_inputs import HANGS
from benchmarks.mistakes.case import Case

ONE = "refimpl: error: no file x: give another\n"
REFUSED, WORKS = Case("files", "a", "train x", "no file x"), Case("files", "b", "train y", None)


@pytest.mark.parametrize(
    "case, code, error, wrong",
    [
        (REFUSED, 2, ONE, ""),
        (REFUSED, 0, "", "exit code 0"),
        (REFUSED, 1, ONE, "exit code 1"),
        (REFUSED, HANGS, "", "hangs"),
        (REFUSED, 2, ONE * 2, "2 lines"),
        (REFUSED, 2, "", "0 lines"),
        (REFUSED, 2, ONE.replace("file x", "file y"), "other words"),
        (REFUSED, 2, f"Traceback (most recent call last):\n{ONE}", "traceback"),
        (REFUSED, 2, f"{ONE}Abort(2) on node 0\n", "not ours"),
        (REFUSED, 2, ONE.replace("give", "g" * 2000), "a long line"),
        (WORKS, 0, "", ""),
        (WORKS, 2, ONE, "exit code 2"),
        (WORKS, 0, "a warning\n", "stderr"),
    ],
)
def test_an_outcome_is_good_or_it_is_told_why_not(tmp_path, case, code, error, wrong):
    found = bad_inputs.judged(case, code, "", error, tmp_path)
    assert wrong in found and bool(found) == bool(wrong)


@pytest.mark.parametrize("name", ["out/config.json", "out/summary.json", "x.npz.1.partial"])
def test_what_is_left_of_a_refusal_is_not_good(tmp_path, name):
    assert bad_inputs.judged(REFUSED, 2, "", ONE, tmp_path) == ""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    assert "left" in bad_inputs.judged(REFUSED, 2, "", ONE, tmp_path)


def test_every_case_has_a_kind_and_a_name_of_its_own():
    cases = [case for cases in bad_inputs.KINDS.values() for case in cases()]
    assert {case.kind for case in cases} == set(bad_inputs.KINDS) and len(cases) > 1000
    names = [(case.kind, case.name) for case in cases]
    assert not {name for name in names if names.count(name) > 1}
    assert sys.version_info >= (3, 11) or not any(" -P " in case.words for case in cases)
