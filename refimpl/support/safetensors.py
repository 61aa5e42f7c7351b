"""Arrays in a .safetensors file, which every language reads with a JSON parser.

    bytes   what
    8       n, the length of the header: uint64, little-endian
    n       JSON, filled up with spaces to a multiple of 8:
            {"NAME": {"dtype": "F32", "shape": [4, 8], "data_offsets": [0, 128]}, ...}
            and perhaps "__metadata__", an object of strings, which is passed over here
    ...     the arrays, end to end, little-endian, row after row; offsets count from here

An array without axes has the shape [].  Equal arrays in equal order make equal files.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from refimpl.support.files import writing

# Names of types, and NumPy's.  Others (BF16, F8_E4M3, ...) have no equal there.
TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}
NAMES = {dtype: name for name, dtype in TYPES.items()}
METADATA = "__metadata__"

Form = tuple[np.dtype[Any], tuple[int, ...]]


def save_safetensors(
    path: Path, forms: Mapping[str, Form], arrays: Iterable[tuple[str, np.ndarray]]
) -> None:
    """Write arrays, whole or not at all; holds one at a time.

    ``forms`` has dtype and shape of each, in the order in which they come.
    """
    header, end = {}, 0
    for name, (dtype, shape) in forms.items():
        start, end = end, end + dtype.itemsize * math.prod(shape)
        kind = NAMES[dtype.newbyteorder("<").str]
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    with writing(path) as partial, partial.open("wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        for name, array in arrays:
            assert forms[name] == (array.dtype, array.shape), name
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).data)


def load_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file that anybody may have written, in the order of their numbers.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no such file, or its arrays do not fill it end to end, as the format asks.
    """
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8].ljust(8, b"\0"))
    if not 2 <= length <= len(content) - 8:
        raise ValueError(
            f"its header claims {length:,} bytes and {max(len(content) - 8, 0):,} follow"
        )
    arrays: dict[str, np.ndarray] = {}
    end, begin = 0, 8 + length
    for name, dtype, shape, offsets in sorted(_header(content[8:begin]), key=lambda one: one[3]):
        claimed = dtype.itemsize * math.prod(shape)
        if offsets != [end, end + claimed] or offsets[1] > len(content) - begin:
            raise ValueError(
                f"{name} of {claimed:,} bytes is said to be at {offsets}, in data of "
                f"{len(content) - begin:,} bytes, {end:,} of them taken"
            )
        start, end = begin + end, offsets[1]
        arrays[name] = np.frombuffer(content, dtype, math.prod(shape), start).reshape(shape).copy()
    if begin + end != len(content):
        raise ValueError(f"{len(content) - begin - end:,} bytes at its end belong to no array")
    return arrays


def _header(content: bytes) -> Iterable[tuple[str, np.dtype[Any], list[int], list[int]]]:
    """Yield name, dtype, shape and offsets of each array that a header describes."""
    try:
        told = json.loads(content.decode("utf-8"), object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(told, dict):
        raise ValueError("its header is no JSON object")
    for name, one in told.items():
        if name == METADATA:
            continue
        name.encode()  # half a surrogate pair is no name
        one = one if isinstance(one, dict) else {}
        kind, shape, offsets = (one.get(key) for key in ("dtype", "shape", "data_offsets"))
        if not isinstance(kind, str) or kind not in TYPES:
            raise ValueError(f"{name} has the dtype {kind!r}, read are {', '.join(TYPES)}")
        if not (_whole(shape) and _whole(offsets) and len(offsets) == 2):
            raise ValueError(f"{name} has no shape and data_offsets of whole numbers")
        yield name, np.dtype(TYPES[kind]), shape, offsets


def _whole(numbers: Any) -> TypeGuard[list[int]]:
    """Tell whether these are whole numbers in a list, of 63 bits at most."""
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in numbers)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; raise `ValueError` for a name that is there twice."""
    told = dict(pairs)
    if len(told) != len(pairs):
        raise ValueError("its header has a name twice")
    return told
