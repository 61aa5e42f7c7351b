"""The rooms of the package: imports go one way, and never in a circle.

An import counts wherever it stands, inside a function or for type checkers too: a file that needs
another to be understood needs it.
"""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import refimpl

PACKAGE = Path(refimpl.__file__).parent
ROOMS = re.findall(r"^    (\w+)/ ", refimpl.__doc__, re.M)
TOP = {"refimpl", "refimpl.__main__"}


@cache
def imports():
    """Return file -> files that it imports, all of them as dotted names."""
    source = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        source[name.removesuffix(".__init__")] = path.read_text()
    return {name: set(imported(text, source)) - {name} for name, text in source.items()}


def imported(text, files):
    """Yield which of these files a text imports, by any form of an absolute import."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from [name for name in (full, node.module) if name in files][:1]


def room(file):
    """Return the place of a file's room in the reading order; None for the files at the top."""
    return ROOMS.index(file.split(".")[1]) if file not in TOP else None


def against_the_order(edges):
    return sorted(
        (file, other)
        for file, others in edges.items()
        for other in others
        if None not in (room(file), room(other)) and room(other) > room(file)
    )


def circle(edges):
    """Return a circle of imports, or None."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]


def test_the_map_names_every_room_and_no_other():
    assert sorted(ROOMS) == sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__"}


def test_rooms_import_from_rooms_above_them_only():
    assert against_the_order(imports()) == []


def test_no_circle_of_imports():
    assert circle(imports()) is None


def test_every_form_of_import_is_seen():
    files = {"refimpl.a", "refimpl.a.b", "refimpl.c", "refimpl.d"}
    text = (
        "from __future__ import annotations\n"
        "if TYPE_CHECKING:\n    from refimpl.c import C\n"
        "def f():\n    from refimpl.a import b, f\n    import refimpl.d\n"
    )
    assert set(imported(text, files)) == files
    assert circle({"x": {"y"}, "y": {"z"}, "z": {"x"}}) is not None
    assert against_the_order({"refimpl.support.x": {"refimpl.cli.y"}}) != []
