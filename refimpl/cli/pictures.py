"""What commands that draw share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from refimpl.cli.base import on_first_rank, say
from refimpl.support.files import check_file, write_whole

SVG_HELP = "draw it into this file, NAME.svg, in place of the text"


def wrote(name: str, picture: Callable[[], str]) -> int:
    """Write a picture to the file that ``--svg`` names, on the first rank only, and say so."""

    def write() -> int:
        check_file("--svg", name, ".svg")
        write_whole(Path(name), picture().encode())
        say(f"wrote {name}")
        return 0

    return on_first_rank(write)
