"""Files that are written whole or not at all, and read with the name of what is broken.

Nobody reads half a file, and no job another's work: what is being written has a name of its own,
and a rename completes it.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from refimpl.support.errors import UserError, require


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
def writing(name: str) -> Iterator[None]:
    """Make a `UserError` of what keeps the file of this name from being written."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {name}: {error.strerror}") from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all; a pipe or device as it is."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    partial = partial_of(path)
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, plain: Any) -> None:
    """Write plain data as a JSON text, whole or not at all."""
    write_whole(path, (json.dumps(plain, indent=2) + "\n").encode())


def save_arrays(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write named arrays as an npz file, whole or not at all; holds one array at a time."""
    partial = partial_of(path)
    try:
        with ZipFile(partial, "w") as file:
            for name, array in arrays:
                with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the named arrays of an npz file; raise `UserError` if it is not whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}") from error


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
        return {**json.loads(str(arrays.pop("plain"))), **arrays}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"cannot read {path}: its plain part is missing or broken") from error
