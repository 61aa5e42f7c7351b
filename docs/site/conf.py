"""How Sphinx sets the book; `build.py` beside this file calls it."""

import sys
from pathlib import Path

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml
from pygments.lexers.special import TextLexer
from sphinx.highlighting import lexers

sys.path.insert(0, str(Path(__file__).parent))

import docstrings

from refimpl import __version__

project = "refimpl"
author = "The refimpl authors"
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["*.md", "docs/*.md", "docs/pictures/*.md", "api/*"]

html_theme = "furo"
html_title = "refimpl"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
html_math_renderer = "mathml"  # which browsers draw themselves: no script of another site
toc_object_entries = False  # modules are enough, and half of the time

myst_heading_anchors = 4
highlight_language = "text"  # of blocks without a language: sessions, tables, equations
lexers["output"] = TextLexer()

autodoc_mock_imports = ["mpi4py"]  # whose import would start an MPI
autodoc_member_order = "bysource"
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "DTypeLike": "DTypeLike"}  # in short
autodoc_typehints_format = "short"
maximum_signature_line_length = 80
napoleon_google_docstring = False
napoleon_use_ivar = True
suppress_warnings = ["ref.python"]  # the name of a type may be that of several


def set_docstring(app, what, name, thing, options, lines):
    if "".join(lines).startswith("Alias for field number "):  # what Python says of a named tuple's
        lines.clear()
    lines[:] = docstrings.told(lines)


def inline_equation(translator, node):
    translator.body.append(tex2mathml(node.astext()))
    raise SkipNode


def equation(translator, node):
    mathml = tex2mathml(node.astext()).replace("<math ", '<math display="block" ', 1)
    translator.body.append(f'<div class="equation">{mathml}</div>')
    raise SkipNode


def setup(app):
    app.connect("autodoc-process-docstring", set_docstring, priority=1)  # before napoleon
    app.add_html_math_renderer("mathml", (inline_equation, None), (equation, None))
