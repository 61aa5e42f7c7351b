"""``python -m refimpl``, and the console script ``refimpl``."""

import sys

from refimpl import cli
from refimpl.cli.endings import leave


def main() -> int:
    """Run one command and leave with its exit code."""
    return leave(cli.main())


if __name__ == "__main__":
    sys.path.append("")  # last: model files may import what lies in the folder one works in
    raise SystemExit(main())
