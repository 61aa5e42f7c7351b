"""idx files, the format of MNIST: big-endian header, then the array.

bytes 0, 1    zero
byte  2       element type (8 = unsigned byte)
byte  3       number of dimensions
4 per dim.    their lengths, unsigned 32-bit big-endian
then          the elements, last dimension fastest
"""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import UserError, require

UNSIGNED_BYTE = 8
LARGEST = 1 << 30  # elements; MNIST has 47 million
DENSEST = 1032  # bytes that a byte of a gzip file can stand for: no more are asked for


def find(folder: Path, stem: str) -> Path:
    """Return the file ``stem`` or ``stem.gz`` of a folder."""
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise UserError(
        f"no {stem} or {stem}.gz in {folder}: an image folder holds train-images-idx3-ubyte, "
        "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte"
    )


def read(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Return the array of an idx file of unsigned bytes, plain or gzipped.

    Raises `UserError` if the file cannot be read, is no idx file, has another element type or
    number of dimensions, or is shorter or longer than its header says.
    """
    from gzip import open as unzipped

    start = 4 + 4 * dimensions
    try:
        size = path.stat().st_size
        with unzipped(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(start)
            shape = _shape(path, head, dimensions)
            need = math.prod(shape)
            room = (size * DENSEST if path.suffix == ".gz" else size) - start
            require(
                need <= min(room, LARGEST),
                f"{path} says that it holds {need} elements but has room for "
                f"{max(min(room, LARGEST), 0)} at most: the file is truncated or damaged, copy "
                "it again",
            )
            raw = file.read(need + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    require(
        len(raw) == need,
        f"{path} holds {'more' if len(raw) > need else len(raw)} elements, its header says "
        f"{need}: the file is truncated or damaged, copy it again",
    )
    return np.frombuffer(raw, np.uint8, need).reshape(shape)


def _shape(path: Path, head: bytes, dimensions: int) -> tuple[int, ...]:
    """Return the lengths that a header gives, or refuse it."""
    require(
        len(head) >= 4 and head[:2] == b"\0\0",
        f"{path} is not an idx file: it must begin with two zero bytes",
    )
    require(
        head[2] == UNSIGNED_BYTE and head[3] == dimensions,
        f"{path} holds {head[3]} dimensions of element type {head[2]}: needed are "
        f"{dimensions} dimensions of unsigned bytes (type {UNSIGNED_BYTE})",
    )
    require(
        len(head) == 4 + 4 * dimensions,
        f"{path} ends in its header: the file is truncated or damaged, copy it again",
    )
    return struct.unpack(f">{dimensions}I", head[4:])
