"""The book is true: sessions print what they say, links lead somewhere, no chapter is missing."""

import doctest
import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from refimpl import cli
from refimpl.cli import compare
from refimpl.cli.run_options import run_of
from refimpl.run.config import Recipe, Run
from refimpl.run.modelfile import ModelFile

TOP = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((TOP / "docs").glob("*.md"))
COMMAND = r"^ {4,}(?:\$ )?(?:[A-Z_]+=\S+ )*\./run_mpi\.sh (.*)"
PAGES = [TOP / "README.md", *CHAPTERS]
# Chapters that tell of code; the others are about words, or about all of them.
TOLD = [page for page in CHAPTERS if page.name not in ("README.md", "notation.md")]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.name)
def test_sessions_in_a_chapter_print_what_it_says(chapter):
    assert doctest.testfile(str(chapter), module_relative=False).failed == 0


def test_there_are_sessions_to_be_wrong():
    sessions = [page.name for page in CHAPTERS if ">>> " in page.read_text(encoding="utf-8")]
    assert {"networks.md", "gtc.md", "bmuf.md", "numerics.md"} <= set(sessions)


@pytest.mark.parametrize("page", [*PAGES, *TOP.glob("C*.md")], ids=lambda path: path.name)
def test_links_between_pages_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


FOLDERS = "refimpl|models|tests|benchmarks|docs"
NAMED = re.compile(rf"(?<![\w/.~-])((?:{FOLDERS})/[\w/*.{{}}-]*[\w/*])")
DOTTED = re.compile(r"(?<![\w/.-])(refimpl(?:\.\w+)+)")


def there(name):
    """Return whether a dotted name is a module, or something in one."""
    for end in range(name.count("."), -1, -1):
        parts = name.split(".")
        try:
            found = importlib.import_module(".".join(parts[: end + 1]))
        except ModuleNotFoundError:
            continue
        for part in parts[end + 1 :]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_files_and_folders_that_a_page_names_are_there(page):
    named = NAMED.findall(page.read_text(encoding="utf-8"))
    missing = {name for name in named if not list(TOP.glob(name.rstrip("/")))}
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_modules_and_functions_that_a_page_names_are_there(page):
    named = DOTTED.findall(page.read_text(encoding="utf-8"))
    missing = {name for name in named if not there(name)}
    assert not missing


ROOMS = sorted(path.parent.name for path in (TOP / "refimpl").glob("*/__init__.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_files_modules_and_functions_that_docstrings_and_comments_name_are_there(room):
    for path in (TOP / "refimpl" / room).rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        quoted = re.findall(r"`([\w./*-]+)`", text)
        named = [name for name in quoted if name.startswith("refimpl.")]
        assert [name for name in named if not there(name)] == [], path
        files = [name for name in quoted if NAMED.fullmatch(name)]
        assert [name for name in files if not list(TOP.glob(name.rstrip("/")))] == [], path


@pytest.mark.parametrize("page", TOLD, ids=lambda path: path.name)
def test_a_chapter_begins_with_where_its_code_is(page):
    beginning = page.read_text(encoding="utf-8").split("\n## ")[0]
    assert NAMED.search(beginning) or "run_mpi.sh" in beginning


@pytest.mark.parametrize("page", [*TOLD, TOP / "docs" / "notation.md"], ids=lambda path: path.name)
def test_a_chapter_ends_with_commands_that_show_it(page):
    last = page.read_text(encoding="utf-8").split("\n## ")[-1]
    assert last.startswith("See it\n")
    assert re.search(r"^    (?:[A-Z_]+=\S+ )*(?:\./run_mpi\.sh|refimpl|python|docs/)", last, re.M)


def test_the_python_example_of_the_readme_runs_and_sends_nothing_on_one_rank():
    (example,) = re.findall(r"```python\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    run = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, cwd=TOP)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "Count(messages=0, bytes=0)\n"


def test_the_model_of_the_chapter_on_training_has_a_recipe_that_runs():
    text = (TOP / "docs" / "training.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    model = ModelFile.parse("mine", example, "training.md")
    assert model.build(0, 784, 10, {"hidden": "4"}).outputs == 10
    for name in "serial", "gtc", "bmuf":
        run = Run("mine", model.recipe(), strategy=name)
        run.check(1)
    assert run.chosen().block.steps == 20


def commands(page):
    """Return (ranks, words) of every `./run_mpi.sh` command that stands on a page's own line."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    text = text.replace('"$SLURM_ARRAY_TASK_ID"', "1")
    found = []
    for line in re.findall(
        r"^ {4,}(?:\$ )?(?:[A-Z_]+=\S+ )*\./run_mpi\.sh (.*)", text, re.MULTILINE
    ):
        words = shlex.split(line.split("; ")[0], comments=True)
        ranks = 4
        while words and words[0] in ("-n", "--hostfile", "--restarts"):
            ranks = int(words[1]) if words[0] == "-n" else ranks
            words = words[2:]
        if words and words[0] not in ("test", "setup"):
            found.append((ranks, words))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_on_a_page_are_commands_that_can_be(page):
    model = SimpleNamespace(recipe=lambda: Recipe(task="images", epochs=1, lr=0.1))
    for ranks, words in commands(page):
        args = cli.parser().parse_args(words)
        if words[0] == "train" and args.resume is None:
            run_of(args, model, args.strategy or "ddp").check(ranks)
        if words[0] == "compare":
            for name, run in compare.runs(args, model, ranks).items():
                run.check(1 if name == "serial" else ranks)


def test_there_are_commands_to_be_wrong():
    assert sum(len(commands(page)) for page in PAGES) > 25
