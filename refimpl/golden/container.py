"""The arrays of a bundle, or of answers to it: in either container, or in both."""

from __future__ import annotations

from pathlib import Path

from refimpl.golden import npz
from refimpl.golden.bundle import ARRAYS, TENSORS
from refimpl.golden.npz import MOST, Archive, Damaged
from refimpl.support.safetensors import load_safetensors


def there(folder: Path) -> list[str]:
    """Return which containers are in a folder, .npz first."""
    return [name for name in (ARRAYS, TENSORS) if (folder / name).exists()]


def read(folder: Path) -> Archive:
    """Read the container in a folder; of two, each, and they must hold the same.

    Raises `Damaged`, which names the file, if there is none or it cannot be read.
    """
    found = []
    for name in there(folder) or [ARRAYS]:
        try:
            found.append((npz.read if name == ARRAYS else _tensors)(folder / name))
        except Damaged as damage:
            raise Damaged(f"{name} is {damage}") from None
    ours, *more = found
    for other in more:
        for name in sorted(ours.arrays.keys() | ours.damaged.keys() | other.arrays.keys()):
            if not _same(ours, other, name):
                raise Damaged(f"{ARRAYS} and {TENSORS} differ in {name}: take one of them away")
    return ours


def _same(one: Archive, other: Archive, name: str) -> bool:
    """Tell whether an array is in both, with the same dtype, shape and bytes."""
    a, b = one.arrays.get(name), other.arrays.get(name)
    if a is None or b is None:
        return False
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def _tensors(path: Path) -> Archive:
    if not path.is_file():
        raise Damaged("not a file")
    if path.stat().st_size > MOST:
        raise Damaged(f"too large: at most {MOST:,} bytes are read")
    try:
        return Archive(load_safetensors(path), {})
    except OSError as error:
        raise Damaged(f"not readable: {error.strerror}") from None
    except ValueError as error:
        raise Damaged(" ".join(f"corrupt: {error}".split())) from None
