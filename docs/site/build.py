"""Build the book as a site: python docs/site/build.py [FOLDER], by default build/site.

Needs the extra [docs].  A warning is an error: a link that leads nowhere, a page that nothing
leads to, a docstring that cannot be set.

The sources are copied to a scratch folder as they are, so that a link from one file to another
leads where it does on a code host.  Added are the contents, which are those of docs/README.md, and
a page for each package of `refimpl`.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
ROOM = re.compile(r"^    (\w+)/  +\S", re.MULTILINE)
CHAPTER = re.compile(r"^\| .*\| \[[\w ]+\]\(([\w-]+)\.md\) \|", re.MULTILINE)


def chapters() -> list[str]:
    """Return the pages of the book in the order of its contents."""
    listed = CHAPTER.findall((TOP / "docs" / "README.md").read_text(encoding="utf-8"))
    return [f"docs/{name}" for name in ("README", *listed, "pictures/README")]


def packages() -> list[list[str]]:
    """Return for each room, in reading order, the dotted names of its packages, its own first."""
    rooms = ROOM.findall((TOP / "refimpl" / "__init__.py").read_text(encoding="utf-8"))
    found = (sorted((TOP / "refimpl" / room).rglob("__init__.py")) for room in rooms)
    return [[".".join(file.parent.relative_to(TOP).parts) for file in files] for files in found]


def contents(caption: str, pages: list[str]) -> str:
    """Return a part of the contents, in Markdown."""
    return "\n".join(["", f"```{{toctree}}\n:hidden:\n:caption: {caption}\n", *pages, "```", ""])


def page(package: str, below: list[str]) -> str:
    """Return a page of the docstrings of a package's files, in reStructuredText."""
    lines = [package, "=" * len(package), "", f".. automodule:: {package}", ""]
    lines += [".. toctree::", "   :hidden:", "", *[f"   {name}" for name in below], ""]
    for file in sorted(TOP.joinpath(*package.split(".")).glob("[!_]*.py")):
        lines += [file.stem, "-" * len(file.stem), ""]
        lines += [f".. automodule:: {package}.{file.stem}", "   :members:", ""]
    return "\n".join(lines)


def gather(source: Path) -> None:
    """Fill a folder with what the site is built from."""
    shutil.copytree(TOP / "docs", source / "docs", ignore=shutil.ignore_patterns("site"))
    (source / "refimpl").symlink_to(TOP / "refimpl")
    for path in TOP.glob("*.md"):
        shutil.copy(path, source)
    (source / "api").mkdir()
    rooms = packages()
    for room, *inner in rooms:
        (source / "api" / f"{room}.rst").write_text(page(room, inner))
        for name in inner:
            (source / "api" / f"{name}.rst").write_text(page(name, []))
    with (source / "README.md").open("a", encoding="utf-8") as home:
        home.write(contents("The book", chapters()))
        home.write(contents("The code", [f"api/{room}" for room, *_ in rooms]))
        others = sorted(path.stem for path in TOP.glob("*.md") if path.name != "README.md")
        home.write(contents("The project", others))


def build(folder: Path) -> int:
    """Build the site in a folder; return an exit code."""
    from sphinx.cmd.build import main

    with tempfile.TemporaryDirectory() as scratch:
        gather(Path(scratch))
        places = ["-c", str(HERE), "-d", f"{scratch}/.doctrees", scratch, str(folder)]
        code = main(["-b", "html", "-q", "-W", "--keep-going", *places])
    if code == 0:
        shutil.copy(folder / "README.html", folder / "index.html")
        print(f"the site is in {folder}: open {folder / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(TOP))
    sys.exit(build(Path(*sys.argv[1:2] or [TOP / "build" / "site"]).resolve()))
