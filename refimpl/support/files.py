"""Files that are written whole or not at all, and read with the name of what is broken.

Nobody reads half a file, and no job another's work: what is being written has a name of its own,
and a rename completes it.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from refimpl.support.errors import UserError, refused, require

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

PIECE = 1 << 20  # bytes that are read at a time


def partial_of(path: Path) -> Path:
    """Return the name under which this process writes ``path``, until a rename completes it.

    It lies beside ``path`` and holds host and process: jobs of many machines may write the same
    file of a shared folder at once, each its own, and each removes its own only.
    """
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial")


def check_file(option: str, name: str, *endings: str) -> None:
    """Refuse a file that could not be written, before the work that it is to hold is done."""
    path = Path(name)
    require(
        not endings or name.endswith(endings),
        f"{option} {name}: give a file whose name ends in {' or '.join(endings)}",
    )
    require(not path.is_dir(), f"{option} {name} is a folder: give a file")
    require(path.parent.is_dir(), f"{option} {name}: there is no folder {path.parent}; make it")
    require(
        os.access(path if path.exists() else path.parent, os.W_OK),
        f"{option} {name} may not be written: give another file",
    )


@contextmanager
def writing(path: Path, durable: bool = False) -> Iterator[Path]:
    """Give the name to write under; the file is there whole or not at all, as it was before.

    A pipe or device is written as it is.  ``durable``: also after a loss of power; the content is
    on the disk before it has its name, and the name before this returns.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    as_it_is = os.path.exists(path) and not os.path.isfile(path)
    partial = path if as_it_is else partial_of(path)
    try:
        yield partial
        if durable:
            sync(partial)
        if partial != path:
            os.replace(partial, path)
        if durable:
            sync(path.parent)
    except OSError as error:
        raise refused(error, f"cannot write {path}") from error
    finally:
        if partial != path:
            with suppress(OSError):
                partial.unlink()


def sync(path: Path) -> None:
    """Wait until a file or folder is on its disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_whole(path: Path, content: bytes, durable: bool = False) -> None:
    """Write a file so that it is there whole or not at all; a pipe or device as it is."""
    with writing(path, durable) as partial:
        partial.write_bytes(content)


def append_line(path: Path, line: str) -> None:
    """Append a line, whole or not at all."""
    try:
        with path.open("ab", buffering=0) as file:
            before, content = file.tell(), line.encode() + b"\n"
            try:
                while content:
                    content = content[file.write(content) :]
            except OSError:
                file.truncate(before)
                raise
    except OSError as error:
        raise refused(error, f"cannot write {path}") from error


def write_json(path: Path, plain: Any, durable: bool = False) -> None:
    """Write plain data as a JSON text, whole or not at all."""
    write_whole(path, (json.dumps(plain, indent=2) + "\n").encode(), durable)


def save_arrays(
    path: Path, arrays: Iterable[tuple[str, np.ndarray]], durable: bool = False
) -> None:
    """Write named arrays as an npz file, whole or not at all; holds one array at a time."""
    from zipfile import ZipFile  # here, as in NumPy: a rank that only starts does without

    with writing(path, durable) as partial, ZipFile(partial, "w") as file:
        for name, array in arrays:
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def check_is_file(path: Path) -> None:
    """Refuse a pipe, which may never say anything, and a folder; what is not there passes."""
    require(
        path.is_file() or not path.exists(),
        f"cannot read {path}: it is not a file: write what it holds to one, and give that",
    )


def read_text(path: Path) -> str:
    """Return the text of a file; raise `UserError` if it cannot be read, or is no UTF-8.

    A byte order mark is passed over.
    """
    check_is_file(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def load_arrays(
    path: Path, rooms: Mapping[str, Callable[..., np.ndarray]] | None = None
) -> dict[str, np.ndarray]:
    """Return the named arrays of an npz file; raise `UserError` if it is not whole.

    Its members are stored as they are, so that none can be larger than the file.  ``rooms``: what
    returns memory for the array of a name, given shape and dtype, in C order.
    """
    with _members(path) as (archive, members):
        arrays = {}
        for name, entry in members.items():
            with archive.open(entry) as member:
                room = (rooms or {}).get(name, np.empty)
                arrays[name] = read_array(member, entry.file_size, room)
        return arrays


def mapped_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the named arrays of an npz file without reading them: pages come when looked at.

    What `load_arrays` refuses is refused, but for a wrong checksum of a member.
    """
    with _members(path) as (_, members), path.open("rb") as file:
        arrays = {}
        for name, entry in members.items():
            file.seek(entry.header_offset + 26)  # a member's own header, and the two lengths in it
            skip = sum(struct.unpack("<HH", file.read(4)))
            start = entry.header_offset + 30 + skip
            file.seek(start)
            shape, by_column, dtype = _npy_header(file, start, entry.file_size)
            arrays[name] = (
                np.memmap(path, dtype, "r", file.tell(), shape, "F" if by_column else "C")
                if math.prod(shape)
                else np.empty(shape, dtype)
            )
        return arrays


@contextmanager
def _members(path: Path) -> Iterator[tuple[ZipFile, dict[str, ZipInfo]]]:
    """Give the members of an npz file by their arrays' names; an error names the file."""
    from zipfile import ZIP_STORED, ZipFile

    check_is_file(path)
    try:
        with ZipFile(path) as archive:
            members: dict[str, ZipInfo] = {}
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                require(
                    entry.compress_type == ZIP_STORED and name not in members,
                    f"cannot read {path}: {name} is compressed or there twice",
                )
                members[name] = entry
            yield archive, members
    except UserError:
        raise
    except Exception as error:  # whatever a file makes of its reader that nobody has written so
        raise UserError(f"cannot read {path}: {error or type(error).__name__}") from error


def read_array(
    file: IO[bytes], nbytes: int, room: Callable[..., np.ndarray] = np.empty
) -> np.ndarray:
    """Return the array in an npy file of so many bytes, in the memory that ``room`` gives.

    Raises
    ------
    ValueError
        If it holds objects, or more or less than its header claims: before room is made for it.
    """
    shape, by_column, dtype = _npy_header(file, 0, nbytes)
    array = room(shape[::-1] if by_column else shape, dtype)
    if array.nbytes:
        content = array.reshape(-1).view(np.uint8)
        for start in range(0, content.size, PIECE):
            part = content[start : start + PIECE]
            part[:] = np.frombuffer(file.read(part.size), np.uint8)
    file.read()  # to the end, where an archive's member compares its checksum
    return array.T if by_column else array


def _npy_header(file: IO[bytes], start: int, nbytes: int) -> tuple[tuple[int, ...], bool, Any]:
    """Return shape, order and dtype of an npy file of so many bytes that begins at ``start``."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, by_column, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("it holds objects, which only pickle can read")
    claimed, held = math.prod(shape) * dtype.itemsize, start + nbytes - file.tell()
    if claimed != held:
        raise ValueError(f"its header claims {claimed:,} bytes and {held:,} follow")
    return shape, by_column, dtype


def read_json(text: str) -> Any:
    """Return what a JSON text holds; raise `ValueError` if it is none, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a dict of arrays and plain data; the plain part as one JSON text."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in state.items() if name not in arrays}
    assert "plain" not in arrays
    save_arrays(path, [*arrays.items(), ("plain", np.array(json.dumps(plain)))])


def load_state(path: Path) -> dict[str, Any]:
    """Return what `save_state` wrote."""
    arrays = load_arrays(path)
    try:
        return {**read_json(str(arrays.pop("plain"))), **arrays}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: its plain part is missing or broken") from error
