"""The book as a site has all chapters and all docstrings; no generator is needed to know it."""

import runpy
from configparser import ConfigParser
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
BUILD = runpy.run_path(str(TOP / "docs" / "site" / "build.py"))
told = runpy.run_path(str(TOP / "docs" / "site" / "docstrings.py"))["told"]


def test_the_site_has_every_chapter_once_and_begins_as_the_book_does():
    pages = BUILD["chapters"]()
    files = [path for folder in ("docs", "docs/pictures") for path in (TOP / folder).glob("*.md")]
    assert sorted(pages) == sorted(str(file.relative_to(TOP).with_suffix("")) for file in files)
    assert pages[:2] == ["docs/README", "docs/ten-minutes"]


def test_the_site_has_every_package():
    config = ConfigParser()
    config.read(TOP / "setup.cfg")
    packages = {name for room in BUILD["packages"]() for name in room}
    listed = set(config["options"]["packages"].split()) - {"refimpl", "refimpl.models"}
    assert packages == listed
    assert ".. automodule:: refimpl.collectives.ring\n" in BUILD["page"]("refimpl.collectives", [])


def test_what_is_a_table_in_a_docstring_stays_one_and_sentences_stay_sentences():
    text = "A `ring` of |p|.  Two.\nz.  No item.\n\nname   what\nx      y\n\n"
    text += "    z = x\n\nSays::\n\n    u\n"
    assert "\n".join(told(text.split("\n"))) == (
        "A ``ring`` of \\|p\\|.  Two.\nz\\.  No item."
        "\n\n::\n\n    name   what\n    x      y\n\n"
        "::\n\n        z = x\n\nSays::\n\n    u\n"
    )


def test_sections_and_doctests_and_equations_are_left_to_sphinx():
    text = (
        "One.\n\nParameters\n----------\nx : (n,) array\n    The `x`s.\n\n.. math:: x_1\n\n>>> x_1"
    )
    assert told(text.split("\n")) == [*text.replace("`x`s", r"``x``\ s").split("\n"), ""]
