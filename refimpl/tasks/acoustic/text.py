r"""Text files in Kaldi's manner: a line ends at \n, a field at spaces and tabs, at nothing else.

Unicode knows more ends of lines and more spaces (U+2028, U+0085, U+00A0); in a transcript they
are letters like others, and if that makes a word nobody knows it is named with its line.  What
Windows adds, a byte order mark in front and \r before \n, is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from refimpl.support.errors import UserError, require
from refimpl.tasks.faults import Faults

BLANK = " \t\r\v\f"
LONGEST = 1 << 20  # characters of a line
SHOWN = 60  # characters of a text in a message

_FIELD = re.compile(f"[^{BLANK}]+")


def fields(text: str) -> list[str]:
    r"""Return what stands between blanks.

    >>> fields("a\tb  c\u00a0d ")
    ['a', 'b', 'c\xa0d']
    """
    return _FIELD.findall(text)


def shown(text: str, most: int = SHOWN) -> str:
    r"""Return a text as it stands in a message: in a line, not too long, all of it visible.

    >>> print(shown("Öl"), shown("\u2028six"), len(shown("x" * 1000)))
    Öl '\u2028six' 60
    """
    if len(text) > most:
        text = text[: most - 3] + "..."
    return text if text.isprintable() else repr(text)


def is_file(path: Path) -> bool:
    """Tell whether there is a file; a name that cannot be one is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of every line that is not blank; one at least.

    One after the other: a large file is never in memory as a whole.
    """
    empty = True
    try:
        with file.open("rb") as content:
            for i, raw in enumerate(content, 1):
                if part := _line(f"{file}:{i}", raw, "utf-8-sig" if i == 1 else "utf-8"):
                    empty = False
                    yield i, part
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    require(not empty, f"{file} is empty: it needs one line per utterance")


def _line(where: str, raw: bytes, encoding: str) -> str:
    try:
        line = raw.decode(encoding).strip(BLANK + "\n")
    except UnicodeDecodeError:
        raise UserError(f"{where}: this is not UTF-8: save the file as UTF-8") from None
    require(
        len(line) <= LONGEST,
        f"{where}: a line of {len(line)} characters ({shown(line)}): at most {LONGEST} are read",
    )
    return line


def read_table(file: Path, what: str) -> dict[str, tuple[int, str]]:
    """Return name -> (line number, rest of the line) of a file `name rest`."""
    table: dict[str, tuple[int, str]] = {}
    faults = Faults()
    for line, text in read_lines(file):
        name = fields(text)[0]
        rest = text[len(name) :].strip(BLANK)
        with faults.collected():
            require(bool(rest), f"{file}:{line}: {shown(name)} stands alone: it needs {what}")
            require(
                name not in table,
                f"{file}:{line}: {shown(name)} is there twice, first in line "
                f"{table.get(name, (0,))[0]}: names must differ",
            )
            table[name] = line, rest
    faults.refuse()
    return table
