"""``python -m refimpl``, and the console script ``refimpl``."""

from refimpl.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
