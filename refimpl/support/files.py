"""Files that are written whole or not at all, and read with the name of what is broken.

Nobody reads half a file, and no job another's work: what is being written has a name of its own,
and a rename completes it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from refimpl.support.errors import UserError, refused, require


def partial_of(path: Path) -> Path:
    """Return the name under which this process writes ``path``, until a rename completes it.

    It lies beside ``path`` and holds host and process: jobs of many machines may write the same
    file of a shared folder at once, each its own, and each removes its own only.
    """
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial")


def check_file(option: str, name: str, ending: str = "") -> None:
    """Refuse a file that could not be written, before the work that it is to hold is done."""
    path = Path(name)
    require(name.endswith(ending), f"{option} {name}: give a file whose name ends in {ending}")
    require(not path.is_dir(), f"{option} {name} is a folder: give a file")
    require(path.parent.is_dir(), f"{option} {name}: there is no folder {path.parent}; make it")
    require(
        os.access(path if path.exists() else path.parent, os.W_OK),
        f"{option} {name} may not be written: give another file",
    )


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give the name to write under; the file is there whole or not at all, as it was before.

    A pipe or device is written as it is.

    Raises
    ------
    UserError
        If it cannot be written.
    """
    as_it_is = os.path.exists(path) and not os.path.isfile(path)
    partial = path if as_it_is else partial_of(path)
    try:
        yield partial
        if partial != path:
            os.replace(partial, path)
    except OSError as error:
        raise refused(error, f"cannot write {path}") from error
    finally:
        if partial != path:
            with suppress(OSError):
                partial.unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all; a pipe or device as it is."""
    with writing(path) as partial:
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


def write_json(path: Path, plain: Any) -> None:
    """Write plain data as a JSON text, whole or not at all."""
    write_whole(path, (json.dumps(plain, indent=2) + "\n").encode())


def save_arrays(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write named arrays as an npz file, whole or not at all; holds one array at a time."""
    with writing(path) as partial, ZipFile(partial, "w") as file:
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


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the named arrays of an npz file; raise `UserError` if it is not whole.

    Its members are stored as they are, so that none can be larger than the file.
    """
    check_is_file(path)
    try:
        with ZipFile(path) as archive:
            arrays = {}
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                require(
                    entry.compress_type == ZIP_STORED and name not in arrays,
                    f"cannot read {path}: {name} is compressed or there twice",
                )
                with archive.open(entry) as member:
                    arrays[name] = read_array(member, entry.file_size)
            return arrays
    except UserError:
        raise
    except Exception as error:  # whatever a file makes of its reader that nobody has written so
        raise UserError(f"cannot read {path}: {error or type(error).__name__}") from error


def read_array(file: IO[bytes], nbytes: int) -> np.ndarray:
    """Return the array in an npy file of so many bytes.

    Raises
    ------
    ValueError
        If it holds objects, or more or less than its header claims: before room is made for it.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, by_column, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.hasobject:
        raise ValueError("it holds objects, which only pickle can read")
    claimed, held = math.prod(shape) * dtype.itemsize, nbytes - file.tell()
    if claimed != held:
        raise ValueError(f"its header claims {claimed:,} bytes and {held:,} follow")
    content = bytearray(file.read())
    array = np.frombuffer(content, dtype) if content else np.empty(0, dtype)
    return array.reshape(shape, order="F" if by_column else "C")


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
