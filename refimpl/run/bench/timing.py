"""How long the ranks take for a piece of work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator


def slowest(comm: Communicator, work: Callable[[], Any]) -> float:
    """Return the seconds from a common start until the last rank is done.  Collective."""
    comm.barrier()
    start = time.perf_counter()
    work()
    return max(comm.allgather_object(time.perf_counter() - start))
