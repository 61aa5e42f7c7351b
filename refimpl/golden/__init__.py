"""Golden values: what other implementations of the same methods test themselves against.

file          what it holds
npz.py        arrays in a .npz file, the same bytes everywhere
operations/   what every operation is, as data (operations.json)
schema.py     the manifest's JSON Schema (schema.json), and a check against it
bundle.py     a bundle: a manifest and arrays, in a folder
container.py  arrays in a .npz or a .safetensors file, as somebody has written it
read.py       bundles read again and checked
select.py     which cases are meant, by globs; loosened rules
compare.py    one array against another, by its rule
report.py     a line for each array, the first broken rung; also as JSON and as JUnit's XML
check.py      a folder against the ladder
expected.py   what is expected to fail
editions.py   which cases there were when (editions.json)
pack.py       an edition as one archive
draw.py       numbers for inputs
cases/        the ladder
backend.py    an implementation in the same process
adapters/     templates of a backend, in C, Python and Rust

    refimpl golden write DIR
    refimpl golden check THEIRS --against DIR

>>> from refimpl.golden import Reference, check_backend
>>> report = check_backend(Reference(), pattern="blocks.bmuf/nbm.tiny")
3 arrays of 1 cases, 0 wrong
>>> report.right
True
"""

from refimpl.golden.backend import OPERATIONS, Reference, check_backend
from refimpl.golden.report import Line, Report

__all__ = ["OPERATIONS", "Line", "Reference", "Report", "check_backend"]
