"""The notebooks print what is saved in them: cell by cell, without Jupyter, ranks as threads."""

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_cells_of_a_notebook_print_what_it_says(path):
    notebook, scope = json.loads(path.read_text("utf-8")), {}
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) >= 4
    for cell in cells:
        source, said = "".join(cell["source"]), StringIO()
        with redirect_stdout(said):
            exec(compile(source, path.name, "exec"), scope)
        saved = "".join(line for output in cell["outputs"] for line in output["text"])
        assert said.getvalue() == saved, source


def test_the_book_names_every_notebook_and_their_links_lead_somewhere():
    book = (DOCS / "README.md").read_text("utf-8")
    assert len(NOTEBOOKS) == book.count("](notebooks/") >= 2
    for path in NOTEBOOKS:
        assert f"](notebooks/{path.name})" in book
        text = path.read_text("utf-8")
        for target in (part.split(")")[0].split("#")[0] for part in text.split("](")[1:]):
            assert (path.parent / target).is_file(), target
