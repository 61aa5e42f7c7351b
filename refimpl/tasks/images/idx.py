"""idx files, the format of MNIST: big-endian header, then the array.

bytes 0, 1    zero
byte  2       element type (8 = unsigned byte)
byte  3       number of dimensions
4 per dim.    their lengths, unsigned 32-bit big-endian
then          the elements, last dimension fastest
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import UserError

UNSIGNED_BYTE = 8


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

    Raises
    ------
    UserError
        If the file cannot be read, is no idx file, has another element type or number of
        dimensions, or is shorter or longer than its header says.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise UserError(f"{path} is not an idx file: it must begin with two zero bytes")
    if raw[2] != UNSIGNED_BYTE or raw[3] != dimensions:
        raise UserError(
            f"{path} holds {raw[3]} dimensions of element type {raw[2]}: needed are "
            f"{dimensions} dimensions of unsigned bytes (type {UNSIGNED_BYTE})"
        )
    start = 4 + 4 * dimensions
    shape = struct.unpack(f">{dimensions}I", raw[4:start].ljust(4 * dimensions, b"\0"))
    need = int(np.prod(shape, dtype=np.int64))
    if len(raw) - start != need:
        raise UserError(
            f"{path} holds {len(raw) - start} elements, its header says {need}: "
            "the file is truncated or damaged, copy it again"
        )
    return np.frombuffer(raw, np.uint8, need, start).reshape(shape)
