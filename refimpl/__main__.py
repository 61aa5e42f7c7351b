"""``python -m refimpl``, and the console script ``refimpl``."""

import sys

from refimpl.cli import main

if __name__ == "__main__":
    sys.path.append("")  # last: model files may import what lies in the folder one works in
    raise SystemExit(main())
