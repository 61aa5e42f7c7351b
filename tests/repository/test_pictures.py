"""Every picture in the book is what the command beside it draws, to the byte."""

import importlib.util
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

TOP = Path(__file__).resolve().parents[2]
PICTURES = TOP / "docs" / "pictures"
SPEC = importlib.util.spec_from_file_location("draw", PICTURES / "draw.py")
draw = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(draw)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw.draw(folder)
    return folder


@pytest.mark.parametrize("name", sorted(path.name for path in PICTURES.glob("*.svg")))
def test_a_picture_is_what_its_command_draws(drawn, name):
    assert (drawn / name).read_bytes() == (PICTURES / name).read_bytes()


def test_every_command_has_its_picture_and_every_picture_a_place_in_the_book():
    names = {path.name for path in PICTURES.glob("*.svg")}
    pages = [TOP / "README.md", *TOP.glob("docs/*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    shown = re.findall(r"!\[[^]]+\]\((?:docs/)?pictures/([^)]+)\)", text)
    assert names == set(draw.commands()) == set(shown)


@pytest.mark.parametrize("name", sorted(draw.commands()))
def test_a_picture_says_what_it_shows_has_no_script_and_two_looks(name):
    text = (PICTURES / name).read_text(encoding="utf-8")
    top = ElementTree.fromstring(text)
    for part in "title", "desc":
        assert top.find(f"{{http://www.w3.org/2000/svg}}{part}").text
    assert "prefers-color-scheme:dark" in text
    assert not re.search(r"<script|href|url\(|\d\.\d{3}", text)
