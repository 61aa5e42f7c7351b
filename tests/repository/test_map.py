"""The book's contents and the folders of tests follow the map of rooms in `refimpl`."""

import re
from pathlib import Path

import benchmarks
import refimpl

TOP = Path(__file__).resolve().parents[2]
CHAPTERS = {path.name for path in (TOP / "docs").glob("*.md")} - {"README.md"}
FOLDERS = {path.parent.name for path in (TOP / "refimpl").glob("*/__init__.py")}
MAP = re.findall(r"^    (\w+)/  +\S", refimpl.__doc__, re.MULTILINE)
CONTENTS = re.findall(
    r"^\| ([\w`, ]*)\| (?:\[([\w ]+)\]\(([\w-]+\.md)\) )?\| [^|]+ \|$",
    (TOP / "docs" / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def test_the_book_lists_every_room_in_the_order_of_the_map_and_then_what_stands_beside():
    rooms = [room for cell, _, _ in CONTENTS for room in re.findall(r"`(\w+)`", cell)]
    assert rooms == [*MAP, "tests", "benchmarks"]


def test_the_book_lists_every_chapter_once():
    listed = [file for _, _, file in CONTENTS if file]
    assert sorted(listed) == sorted(CHAPTERS)
    titles = [title.replace(" ", "-") for _, title, _ in CONTENTS if title]
    assert titles == [file[:-3] for file in listed]


def test_the_benchmarks_are_listed_each_with_what_it_tells():
    listed = re.findall(r"^    (\w+)(?:/|\.py)  +\S", benchmarks.__doc__, re.MULTILINE)
    there = [path for path in (TOP / "benchmarks").iterdir() if path.name[0] not in "._"]
    assert sorted(listed) == sorted(path.stem for path in there)


def test_tests_live_in_the_rooms_of_what_they_test():
    """Beside the rooms: bundles, helpers, and what is tested from outside or on many ranks."""
    beside = {"golden", "helpers", "ladder", "launch", "oracle", "parallel", "repository"}
    folders = {p.name for p in (TOP / "tests").iterdir() if p.is_dir()} - {"__pycache__"}
    assert folders <= FOLDERS | beside
    assert not [path.name for path in (TOP / "tests").glob("test_*.py")]
