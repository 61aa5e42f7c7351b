r"""Text files in Kaldi's manner: a line ends at \n, a field at spaces and tabs, at nothing else.

Unicode knows more ends of lines and more spaces (U+2028, U+0085, U+00A0); in a transcript they
are letters like others, and if that makes a word nobody knows it is named with its line.  What
Windows adds, a byte order mark in front and \r before \n, is passed over.
"""

from __future__ import annotations

import re
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


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return (line number, text) of every line that is not blank; one at least."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}:{line}: this is not UTF-8: save the file as UTF-8") from None
    lines = [(i, part.strip(BLANK)) for i, part in enumerate(text.split("\n"), 1)]
    lines = [(i, part) for i, part in lines if part]
    for i, part in lines:
        require(
            len(part) <= LONGEST,
            f"{file}:{i}: a line of {len(part)} characters ({shown(part)}): "
            f"at most {LONGEST} are read",
        )
    require(bool(lines), f"{file} is empty: it needs one line per utterance")
    return lines


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
