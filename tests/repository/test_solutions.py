"""Every exercise of a chapter has a solution, and the solutions are right."""

import re
import runpy
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
EXERCISES = {
    path.stem: re.findall(r"^(\d+)\. ", text.split("\n## Exercises\n")[1].split("\n## ")[0], re.M)
    for path in sorted(DOCS.glob("*.md"))
    if "\n## Exercises\n" in (text := path.read_text(encoding="utf-8"))
}
METHODS = {"mics", "hpz", "gtc", "topk", "bmuf", "diloco", "hybrid"}


def test_chapters_on_methods_have_exercises_and_no_solution_is_without_one():
    assert METHODS <= set(EXERCISES) == {path.stem for path in DOCS.glob("solutions/*.py")}


@pytest.mark.parametrize("chapter", EXERCISES)
def test_every_exercise_has_a_solution_that_holds(chapter):
    solutions = runpy.run_path(str(DOCS / "solutions" / f"{chapter}.py"))
    names = [name for name in solutions if name.startswith("exercise_")]
    assert names == [f"exercise_{number}" for number in EXERCISES[chapter]]
    for name in names:
        solutions[name]()
