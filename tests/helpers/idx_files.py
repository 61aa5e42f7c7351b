"""Writing idx files, which refimpl only reads."""

import struct


def write(path, array):
    """Write an array of unsigned bytes as an idx file."""
    head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())
