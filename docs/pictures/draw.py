"""Draw the pictures of README.md beside this file, or into another folder that is given."""

import re
import sys
from pathlib import Path

from refimpl import cli

HERE = Path(__file__).resolve().parent


def commands():
    """Return the words of every picture's command, by the picture's name."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    return {
        name: command.split()
        for name, command in re.findall(r"^\| \[(.*)\]\(\1\) \| `refimpl (.*)` \|$", text, re.M)
    }


def draw(folder):
    """Draw all of them."""
    for name, words in commands().items():
        if cli.main([*words, "--svg", str(Path(folder) / name)]):
            sys.exit(f"cannot draw {name}")


if __name__ == "__main__":
    draw(sys.argv[1] if len(sys.argv) > 1 else HERE)
