"""Arrays in a .npz file: the same bytes on every machine, and readable in any language.

A .npz is a zip archive with one member ``NAME.npy`` for each array.  Here members are *stored*,
not compressed, and all dates are 1980-01-01, so that equal arrays make equal files; a deflated
file would depend on the version of zlib.  A member is, for format 1.0 of .npy:

    bytes    what
    6        \\x93NUMPY
    2        1, 0
    2        length of the header, uint16, little-endian
    ...      {'descr': '<f4', 'fortran_order': False, 'shape': (4, 8), }, spaces, a newline;
             the data begin at a multiple of 64 bytes
    ...      the numbers, row after row, little-endian

Reading is for files that somebody else has written.  What is wrong with one is said in words.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from refimpl.support.files import read_array

DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can hold
ALIGN = 64
MOST = 1 << 30  # bytes of all arrays; those of the largest bundle are a hundredth of it


class Damaged(Exception):
    """A file, or a member, that cannot be read; its text says why."""


class Archive(NamedTuple):
    """What a file holds: arrays by name, and why others of its members cannot be read."""

    arrays: dict[str, np.ndarray]
    damaged: dict[str, str]


def little(array: np.ndarray) -> np.ndarray:
    """Return the array with little-endian numbers, row after row."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def npy(array: np.ndarray) -> bytes:
    """Return the bytes of an array as a .npy file of format 1.0."""
    array = little(array)
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    spaces = -(10 + len(text) + 1) % ALIGN
    header = (text + " " * spaces + "\n").encode("ascii")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.tobytes()


def npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of a .npz file of these arrays, in this order."""
    return stored((f"{name}.npy", npy(array)) for name, array in arrays.items())


def stored(members: Iterable[tuple[str, bytes]]) -> bytes:
    """Return the bytes of a zip archive of these members, the same everywhere."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members:
            member = zipfile.ZipInfo(name, DATE)
            member.create_system, member.external_attr = 3, 0o644 << 16
            archive.writestr(member, content)
    return file.getvalue()


def read(path: Path) -> Archive:
    """Read a .npz file that anybody may have written, without pickle.

    Raises `Damaged` if it is missing or is not a whole zip archive.  What is wrong with single
    members is returned.
    """
    if path.exists() and not path.is_file():
        raise Damaged("not a file")
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise Damaged("missing") from None
    except OSError as error:
        raise Damaged(f"not readable: {error.strerror}") from None
    except Exception as error:  # BadZipFile, and what a broken directory makes of the reader
        raise Damaged(_broken(path, error)) from None
    arrays: dict[str, np.ndarray] = {}
    damaged: dict[str, str] = {}
    with archive:
        members = archive.infolist()
        held = sum(member.file_size for member in members)
        if held > MOST:
            raise Damaged(f"too large: it claims {held:,} bytes, at most {MOST:,} are read")
        for member in members:
            if member.is_dir():  # as `zip -r` writes it
                continue
            name = member.filename.removesuffix(".npy")
            if name in arrays or name in damaged:
                damaged[name] = "there twice"
                arrays.pop(name, None)
                continue
            try:
                with archive.open(member) as file:
                    arrays[name] = read_array(file, member.file_size)
            except Exception as error:  # whatever a broken header or stream makes of its reader
                what = (
                    ""
                    if isinstance(error, (ValueError, zipfile.BadZipFile))
                    else f"{type(error).__name__}: "
                )
                damaged[name] = " ".join(f"unreadable: {what}{error}".split())
    return Archive(arrays, damaged)


def _broken(path: Path, error: Exception) -> str:
    """Return why a file is no zip archive."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        begins = file.read(4)
    if size == 0:
        return "empty, a file of 0 bytes"
    if zipfile.is_zipfile(path):
        return f"corrupt: {error}".splitlines()[0]
    if begins == b"PK\x03\x04":
        return f"truncated: it begins like a zip archive, but its end is missing ({size} bytes)"
    return f"not a zip archive ({size} bytes that begin with {begins!r})"
