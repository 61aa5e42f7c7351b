"""An array that all ranks read, once in the memory of every node.

The first rank of a node makes a file in the folder for temporary files ($TMPDIR), all ranks of the
node map it into their memory, and its name is deleted at once: what stays are pages of the machine
that the ranks share, gone with the last of them.

It is a file and not a window of MPI's shared memory.  That is in /dev/shm, often small in
containers, where a page too many kills the rank that writes it; and only all its ranks together
can free a window, of whom some may have died.  A file is the same under every MPI.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike

from refimpl.world.communicator import Communicator

PREFIX = "refimpl-shared-"

# Bytes that are reserved, or sent as one object, at a time: bounds the work memory.
PIECE = 1 << 20


def room(comm: Communicator, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return memory for an array that `sent_once` will send from here, which then copies nothing.

    Its file has a name until then, or until the array is gone.  Where this rank is alone on its
    node, or no file can be made, it is memory of its own.
    """
    path, nbytes = "", math.prod(shape) * np.dtype(dtype).itemsize
    if comm.nodes.count(comm.nodes[comm.rank]) > 1 and nbytes:
        path = _made(nbytes)
    memory = _mapped(path, shape, dtype, "r+") if path else None
    if memory is None:
        _removed(path)
        return np.empty(shape, dtype)
    weakref.finalize(memory, _removed, path)
    return memory


def sent_once(
    comm: Communicator, array: np.ndarray | None, shape: tuple[int, ...], dtype: DTypeLike
) -> np.ndarray:
    """Return rank 0's array on all ranks, read-only, one copy per node.  Collective.

    A rank that is alone on its node has a copy of its own, and so have all ranks of a node whose
    file could not be made, for want of room, or not be opened by all of them.

    Parameters
    ----------
    comm : Communicator
        All of its ranks call, with the same shape and dtype.
    array : (shape) array of dtype
        On rank 0, which may use it no more; None elsewhere.  In the memory of `room`: the other
        ranks of the node cannot share any other, and have copies.
    """
    within, across = comm.levels()
    first = within.rank == 0
    memory = room(comm, shape, dtype) if first and array is None else array
    path = within.bcast_object(_path(memory))
    if not first and path:
        memory = _mapped(path, shape, dtype, "r")
    shared = all(within.allgather_object(bool(path) and memory is not None))
    if first:
        _removed(path)
    if memory is None or not (first or shared):
        memory = np.empty(shape, dtype)
    memory = np.asarray(memory)  # no `np.memmap`, nor what is computed with it
    if first:
        _broadcast(across, memory)
    if shared:
        within.bcast_object("all is there")
    else:
        _broadcast(within, memory)
    memory.flags.writeable = False
    return memory


def _made(nbytes: int) -> str:
    """Return the path of a new file of so many bytes, which have their room; "" if they do not.

    Zeros are written, as a hole in a file finds out that there is no room when it is too late.
    """
    path = ""
    try:
        number, path = tempfile.mkstemp(prefix=PREFIX)
        with os.fdopen(number, "wb") as file:
            for start in range(0, nbytes, PIECE):
                file.write(bytes(min(PIECE, nbytes - start)))
    except OSError:
        _removed(path)
        return ""
    return path


def _mapped(
    path: str, shape: tuple[int, ...], dtype: DTypeLike, mode: Literal["r", "r+"]
) -> np.memmap | None:
    """Return a file's content as an array, or None if it cannot be opened here."""
    try:
        return np.memmap(path, dtype, mode, shape=shape)
    except OSError:
        return None


def _path(array: np.ndarray | None) -> str:
    """Return the path of the file that `room` has made for an array; "" if it has not."""
    path = str(array.filename) if isinstance(array, np.memmap) else ""
    return path if Path(path).name.startswith(PREFIX) else ""


def _removed(path: str) -> None:
    """Delete a file, if it is there."""
    with suppress(OSError):
        os.unlink(path)


def _broadcast(comm: Communicator, array: np.ndarray) -> None:
    """Replace array by that of rank 0."""
    if comm.size == 1:
        return
    content = array.reshape(-1).view(np.uint8)
    for start in range(0, content.size, PIECE):
        part = content[start : start + PIECE]
        told = comm.bcast_object(part if comm.rank == 0 else None)
        if comm.rank != 0:
            part[:] = told


def resident() -> int:
    """Return how many bytes of such arrays this process has in memory, where the system tells."""
    with suppress(OSError):
        maps = Path("/proc/self/smaps").read_text()
        return 1024 * sum(map(int, re.findall(rf"{PREFIX}.*\n(?:\w+:.*\n)*?Rss: +(\d+)", maps)))
    return 0
