"""``python -m benchmarks.published NAME``: the same as ``refimpl plan --preset NAME``."""

import sys

from refimpl.cli import main

sys.exit(main(["plan", "--preset", *sys.argv[1:]]))
