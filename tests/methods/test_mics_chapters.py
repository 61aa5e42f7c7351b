"""Chapters show what commands print and quote what the code says."""

import re
from fractions import Fraction
from pathlib import Path

import pytest

from refimpl import cli

TOP = Path(__file__).resolve().parents[2]
MUTANTS = TOP / "tests/methods/test_mutants.py"
CHAPTERS = ["topology.md", "mics.md"]


def having(language):
    """Return the chapters that have something of this language with a command or a file above."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in TOP.glob("docs/*.md")}
    return [name for name, text in sorted(texts.items()) if f"\n```{language} " in text]


PICTURED, QUOTING = having("text"), having("python")
TESTS = "\n".join(path.read_text(encoding="utf-8") for path in TOP.glob("tests/**/*.py"))


def text_of(chapter):
    return (TOP / "docs" / chapter).read_text(encoding="utf-8")


def fences(chapter, language):
    return re.findall(rf"^```{language} (\S.*)\n((?:.*\n)*?)```$", text_of(chapter), re.MULTILINE)


@pytest.mark.parametrize("chapter", PICTURED)
def test_pictures_are_what_the_commands_above_them_print(chapter, capsys):
    for command, shown in fences(chapter, "text"):
        words, _, paragraph = command.removeprefix("refimpl ").partition(" | ")
        assert cli.main(words.split()) == 0, command
        printed = [line.rstrip() for line in capsys.readouterr().out.strip("\n").splitlines()]
        if paragraph:  # "one step ..." stands for the paragraph that begins so
            begins = paragraph.removesuffix(" ...")
            [printed] = [
                part.splitlines()
                for part in "\n".join(printed).split("\n\n")
                if part.startswith(begins)
            ]
        assert shown.splitlines() == printed, command


@pytest.mark.parametrize("chapter", QUOTING)
def test_quoted_code_stands_in_its_file_line_by_line_but_for_what_dots_leave_out(chapter):
    for path, shown in fences(chapter, "python"):
        source, at = (TOP / path).read_text(encoding="utf-8"), 0
        for part in re.split(r"^ *\.\.\.\n", shown, flags=re.MULTILINE):
            at = source.find(part, at)
            assert at >= 0, f"{path}: {part}"


def test_there_are_chapters_with_pictures_and_quotes():
    assert {"topology.md", "mics.md", "training.md", "collectives.md"} <= set(QUOTING)
    assert {"topology.md", "mics.md", "gtc.md", "hybrid.md", "collectives.md"} <= set(PICTURED)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_tests_that_a_chapter_names_are_there(chapter):
    named = set(re.findall(r"`(test_\w+)`", text_of(chapter)))
    assert named
    for name in named:
        assert f"def {name}(" in TESTS, name


def test_table_of_volumes_and_steps_is_the_formulas():
    rows = re.findall(
        r"^\| (\d+), (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \| (\d+) \|$",
        text_of("mics.md"),
        re.MULTILINE,
    )
    assert len(rows) == 4
    for p, k, flat, hierarchical, ratio, flat_steps, steps in rows:
        p, k = int(p), int(k)
        assert float(flat) == round(float(Fraction(p - 1, p)), 3)
        assert float(hierarchical) == round(float(Fraction(p - k, p)), 3)
        assert float(ratio) == round(float(Fraction(p - k, p - 1)), 3)
        assert (int(flat_steps), int(steps)) == (p - 1, p // k + k - 2)


def test_every_bug_of_the_table_has_a_mutant():
    bugs = text_of("mics.md").split("## Bugs that others shipped")[1].split("##")[0]
    rows = [line for line in bugs.splitlines() if line.startswith("| ")][2:]
    mutants = re.findall(r"^def (test_\w+)", MUTANTS.read_text(), re.M)
    # The mutant of prefetching is nobody's but ours.
    assert len(rows) == len(mutants) - 1
