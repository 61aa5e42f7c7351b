"""From a docstring as it is written here to reStructuredText.

Docstrings are read in the source first.  What a reader takes for a table, an equation or a picture
there, because of its place or its gaps, is one here, letter by letter; what stands in backticks is
code, or an equation as TeX has it; between stars a word is new; nothing else in a sentence has a
meaning of its own.  Sections are napoleon's affair.
"""

from __future__ import annotations

import re

SECTIONS = ("Parameters", "Attributes", "Returns", "Raises")  # of names, each with a text below it
ITEM = re.compile(r"(?:[-*]|\d+\.) ")
GAP = re.compile(r"""\S {3,}\S|[^\s.?!:;)"'`] {2}\S""")  # no sentence has one
LETTER = re.compile(r"^(\s*\(?[A-Za-z])([.)])(?=\s|$)")  # a symbol, and no item of a list
MARKED = re.compile(r"(``.+?``|:math:`[^`]+`|`[^`]+`|\*\w[^*]*\w\*)")


def inline(line: str) -> str:
    """Return a line of a sentence in which nothing but these has a meaning of its own."""
    parts = MARKED.split(line)
    parts[::2] = [re.sub(r"[\\|*_`]", r"\\\g<0>", part) for part in parts[::2]]
    parts[1::2] = [p if p[0] in ":*" else f"``{p.strip('`')}``" for p in parts[1::2]]
    for code in range(1, len(parts), 2):
        if parts[code + 1][:1].isalnum():
            parts[code] += "\\ "  # as in "the `update`s": a mark between them, which is not set
    return LETTER.sub(r"\1\\\2", "".join(parts))


def told(lines: list[str]) -> list[str]:
    """Return a docstring's lines, set."""
    result: list[str] = []
    section, literal = "", False  # the one that we are in; whether "::" stands before
    for block in re.split(r"\n\s*\n", "\n".join(lines).strip("\n")):
        rows = block.split("\n")
        if len(rows) > 1 and set(rows[1]) == {"-"}:
            section = rows[0]
            result += rows[:2]
            del rows[:2]
        indented = rows[0].startswith(" ")
        shaped = any(row.startswith(" ") for row in rows) and not ITEM.match(rows[0])
        if rows[0].lstrip().startswith((">>> ", ".. math::")) or (indented and literal):
            result += rows
        elif section not in SECTIONS and (shaped or any(map(GAP.search, rows))):
            result += [*([] if literal else ["::", ""]), *[f"    {row}" for row in rows]]
        else:
            result += map(inline, rows)
        result.append("")
        literal = block.endswith("::") or (literal and indented)
    return result
