"""Names for what is being written: nobody reads half a file, and no job another's work."""

from __future__ import annotations

import os
from pathlib import Path


def partial_of(path: Path) -> Path:
    """Return the name under which this process writes ``path``, until a rename completes it.

    It lies beside ``path`` and holds host and process: jobs of many machines may write the same
    file of a shared folder at once, each its own, and each removes its own only.
    """
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial")
