"""A symbol means the same in every chapter: what docs/notation.md says."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTATION = (DOCS / "notation.md").read_text(encoding="utf-8")

# Speech has letters of its own.
OTHER_FIELDS = {"acoustic.md", "synthesizer.md"}
CHAPTERS = sorted(
    {path.name for path in DOCS.glob("*.md")} - OTHER_FIELDS - {"README.md", "notation.md"}
)

ROW = re.compile(r"^\| ([^|`]+?) \| ([^|]+?) \|", re.MULTILINE)
SYMBOL = r"(?<![\w`/'.-])([A-Za-z\u03b1-\u03c9]|lr|tau|eta|zeta|alpha|beta|gamma)"
# What makes of a sentence a definition: "with X the ...", "X is the ...", "X = number of ...".
VERB = r"(?:is|are|being|counts|stands for)"
DEFINITION = re.compile(
    rf"(?:{SYMBOL} (?:{VERB} (?:the|a|an|its)|= (?:the )?number of)"
    rf"|(?:with|where|and|[,;(]) {SYMBOL} (?:the|its))"
    r" (?:number of )?(?:\*+)?([a-z][\w-]*)"
)


def listed():
    """Return what notation.md says of each symbol and word."""
    rows = [row for row in ROW.findall(NOTATION) if row[0] not in ("symbol", "word", "---")]
    return [(name, says) for names, says in rows for name in names.split(", ")]


def prose(text):
    """Return a text without what is quoted: listings, equations and code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^ {4}.*$", "", text, flags=re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "", text)


def tables(text):
    """Return the rows of a text's lists of words, which are tables without a head."""
    found = re.findall(r"^\| \| \|\n\| ?-+ ?\| ?-+ ?\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [row for table in found for row in ROW.findall(table)]


def redefined(text):
    """Yield each symbol or word to which a text gives another meaning, and that meaning."""
    meaning = dict(listed())
    for names, says in tables(text):
        for name in names.split(", "):
            if name in meaning and not same_beginning(says, meaning[name]):
                yield name, says
    for one, other, noun in DEFINITION.findall(prose(text)):
        name = one or other
        if name in meaning and stem(noun) != stem(meaning[name].split()[0].strip(",;:")):
            yield name, noun


def same_beginning(says, meaning):
    """Return whether one is the other, or the other and more behind a comma or a colon."""
    short = re.split(r"[,;:(]", meaning)[0].strip()
    return re.split(r"[,;:(]", says)[0].strip() == short


def stem(word):
    return word.rstrip("s")


def test_every_symbol_and_word_is_listed_once():
    names = [name for name, _ in listed()]
    assert sorted(names) == sorted(set(names))
    assert set("npgbkNsMV") | {"τ", "η", "ζ", "block", "chunk", "piece"} <= set(names)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_chapter_gives_a_symbol_another_meaning(chapter):
    assert list(redefined((DOCS / chapter).read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "text, found",
    [
        ("| | |\n|---|---|\n| n | values of a gradient |\n", [("n", "values of a gradient")]),
        ("| | |\n|---|---|\n| n | ranks of the world |\n", []),
        ("| | |\n|---|---|\n| p, s | micro-steps of a step |\n", [("p", "micro-steps of a step")]),
        ("After the step, with g the gradient of this worker,", [("g", "gradient")]),
        ("Here N is the number of steps in a block.", [("N", "steps")]),
        ("s = number of seconds", [("s", "seconds")]),
        ("Where k is the largest index, k is a number", [("k", "largest"), ("k", "number")]),
        ("n ranks, s the micro-steps; `s is the start`; p is fastest and n is odd", []),
        ("    with g the gradient, in an equation or a command\n", []),
    ],
)
def test_another_meaning_is_found(text, found):
    assert list(redefined(text)) == found
