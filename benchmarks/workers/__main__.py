"""``python benchmarks/workers`` and ``python -m benchmarks.workers``: see `command.py`."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])  # not this folder, whose names are common

from benchmarks.workers.command import main  # noqa: E402

sys.exit(main())
