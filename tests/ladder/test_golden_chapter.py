"""The chapter on golden values: its example runs without refimpl, and prints what it says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from witness import GOLDEN

from refimpl import cli
from refimpl.golden import OPERATIONS

CHAPTER = (GOLDEN.parents[1] / "docs" / "golden.md").read_text(encoding="utf-8")
(EXAMPLE,) = re.findall(r"```python\n(import json.*?)```", CHAPTER, re.DOTALL)
BUG = " / len(x)"


def answers(program, folder):
    """Run the example in a folder of its own, where refimpl cannot be imported."""
    (folder / "refimpl.py").write_text("raise ImportError('there is no refimpl here')\n")
    (folder / "mine.py").write_text(program)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "mine.py", str(GOLDEN), "theirs"]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return folder / "theirs"


def check(theirs, cases, *more):
    return cli.main(
        ["golden", "check", str(theirs), "--against", str(GOLDEN), "--cases", cases, *more]
    )


def test_the_first_red_line_is_the_one_that_the_chapter_shows(tmp_path, capsys):
    theirs = answers(EXAMPLE, tmp_path)
    assert check(theirs, "layers/affine.[te]*", "--quiet") == 1
    shown = re.search(
        r"\n    \$ refimpl golden check theirs .*--quiet\n(.*?)\n\n", CHAPTER, re.DOTALL
    )
    assert capsys.readouterr().out.splitlines() == [
        line.removeprefix("    ") for line in shown.group(1).splitlines()
    ]


def test_the_first_bundle_is_as_large_as_the_chapter_says():
    folder = GOLDEN / "collectives.ring"
    cases = json.loads((folder / "manifest.json").read_text())["cases"]
    arrays = sum(len(case["arrays"]) for case in cases)
    size = sum(path.stat().st_size for path in folder.iterdir())
    told = f"collectives.ring: {len(cases)} cases, {arrays} arrays, {size:,} bytes"
    assert f"\n    {told}\n" in CHAPTER


@pytest.mark.parametrize("cases", ["layers/affine.*", "layers/relu"])
def test_without_the_bug_all_is_right(tmp_path, cases):
    assert EXAMPLE.count(BUG) == 1
    assert check(answers(EXAMPLE.replace(BUG, ""), tmp_path), cases) == 0


def test_the_chapter_names_every_operation():
    table = CHAPTER.partition("## Operations")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|(.*?)\|", table, re.MULTILINE))))
    assert named == set(OPERATIONS)


def test_the_chapter_counts_the_mutants():
    sources = Path(__file__).parent.glob("test_golden_mutants_*.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--collect-only", *map(str, sources)],
        capture_output=True,
        text=True,
        cwd=GOLDEN.parents[1],
    )
    (count,) = re.findall(r"(\d+) tests collected", run.stdout)
    assert f"\n{count} bugs" in CHAPTER
