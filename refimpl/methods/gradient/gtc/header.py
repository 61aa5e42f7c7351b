"""The head of a GTC message: what it is, for how many values, how many entries, which tau."""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.methods.gradient.gtc.threshold import MOST

FORMATS = ("index", "two-bit", "rice")

_HEADER = struct.Struct("<4sBBHIId")
MAGIC = b"GTC1"
HEADER_BYTES = _HEADER.size


class MessageError(ValueError):
    """Bytes that are not a GTC message for this vector and threshold."""


class Header(NamedTuple):
    """What stands at the head of a message."""

    format: str
    k: int
    n: int
    entries: int
    tau: float

    def write(self, out: NDArray[np.uint8]) -> None:
        """Write the header into the first bytes of a message."""
        number = FORMATS.index(self.format)
        _HEADER.pack_into(out.data, 0, MAGIC, number, self.k, 0, self.n, self.entries, self.tau)

    @classmethod
    def read(cls, message: NDArray[np.uint8]) -> Header:
        """Read a header and check what can be checked without knowing what is expected."""
        if message.size < HEADER_BYTES:
            raise MessageError(
                f"{message.size} bytes are no GTC message: its header alone has {HEADER_BYTES}"
            )
        magic, number, k, zero, n, entries, tau = _HEADER.unpack_from(message.data)
        if magic != MAGIC:
            raise MessageError(f"not a GTC message: it begins with {magic!r}, not {MAGIC!r}")
        if number >= len(FORMATS) or zero != 0:
            raise MessageError(f"unknown format {number} (reserved bytes {zero}) in a GTC message")
        if n > MOST or entries > n:
            raise MessageError(f"a GTC message of {entries} entries for {n} values")
        if not (math.isfinite(tau) and tau > 0):
            raise MessageError(f"a GTC message with threshold {tau}")
        return cls(FORMATS[number], k, n, entries, tau)

    def need(self, right: bool, body: NDArray[np.uint8]) -> None:
        """Refuse a body unless it is right, as one of another length than the header says."""
        if not right:
            raise MessageError(
                f"{body.size} bytes are not the body of a {self.format} GTC message of "
                f"{self.entries} entries for {self.n} values: cut off, or too long, or altered"
            )
