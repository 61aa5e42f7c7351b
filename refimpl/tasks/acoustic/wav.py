"""One recording: a RIFF wav file, mono, as the front end wants it.

    "RIFF" size "WAVE"                 then chunks: a name of four bytes, a size, so many bytes
    "fmt " 16+   format, channels, rate, bytes per second, bytes per sample, bits per sample
    "data" size  the samples           what other chunks stand before it are passed over

Sizes are little-endian, and a chunk of odd size is followed by one byte of padding.  The header is
read here, since files of recorders and of pipes, which never went back to fill in their sizes,
are read to their end, while a file that is shorter than it says is refused.

Samples come back as float32 on the scale of 16-bit integers, as Kaldi has them, so that a
16-bit file and the same sound as 32-bit floating point (full scale = 1) give equal features.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import UserError, require
from refimpl.tasks.acoustic.settings import RATES

FULL_SCALE = 32768
CHUNKS = 1000  # that may stand before the samples
LARGEST = 1 << 32  # bytes of samples: the sizes have 32 bits
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
NAMES = {PCM: "integer", FLOAT: "floating-point", 2: "ADPCM", 6: "A-law", 7: "mu-law"}
REMEDY = "copy it again or convert it, for instance with sox FILE -b 16 -c 1 NEW.wav"


class Header(NamedTuple):
    """What the header says: hertz, the type of a sample, where they begin, how many there are."""

    rate: int
    dtype: np.dtype
    start: int
    samples: int


def read_wav(path: str) -> tuple[int, NDArray[np.float32]]:
    """Return (sample rate in hertz, (n,) float32 samples) of a mono wav file.

    Raises `UserError` if the file is missing, is not RIFF wav, ends early, has more than one
    channel or samples that are neither 16-bit integers nor 32-bit floating point.
    """
    try:
        status = os.stat(path)
        require(
            stat.S_ISREG(status.st_mode),
            f"{path} is not a file: write the sound to a wav file and give that",
        )
        with open(path, "rb") as file:
            header = read_header(file, path, status.st_size)
            file.seek(header.start)
            samples = np.fromfile(file, header.dtype, header.samples)
    except FileNotFoundError:
        raise UserError(
            f"no file {path}: give a path that exists on every node; paths in wav.scp are "
            "relative to its folder"
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path} ({reason}): a RIFF wav file is needed") from None
    except MemoryError:
        raise UserError(
            f"{path} is too long for this machine's memory: cut it into shorter recordings"
        ) from None
    require(samples.size == header.samples, f"{path} became shorter while it was read")
    loud = FULL_SCALE if header.dtype.kind == "f" else 1
    with np.errstate(all="ignore"):  # what is not a number is told by utterance, later
        return header.rate, samples.astype(np.float32) * np.float32(loud)


def read_header(file: BinaryIO, path: str, size: int) -> Header:
    """Return the header of an open wav file of `size` bytes; refuse what cannot be read."""

    def sound(condition: bool, found: str) -> None:
        require(condition, f"{path} is truncated or not a RIFF wav file ({found}): {REMEDY}")

    head = file.read(12)
    sound(head[:4] == b"RIFF" and head[8:] == b"WAVE", "it does not begin with RIFF and WAVE")
    (riff,) = struct.unpack("<I", head[4:8])
    layout: tuple[int, np.dtype] | None = None
    at = 12
    for _ in range(CHUNKS):
        chunk = file.read(8)
        sound(len(chunk) == 8, f"it ends at byte {size}, before its samples")
        name, (length,) = chunk[:4], struct.unpack("<I", chunk[4:])
        at, left = at + 8, size - at - 8
        if name == b"data":
            sound(layout is not None, "its data chunk stands before its fmt chunk")
            assert layout is not None
            rate, dtype = layout
            if unknown(length, left, whole=riff + 8 == size):
                length = left - left % dtype.itemsize  # whoever wrote it may have been stopped
            sound(length <= left, f"{left} bytes of samples are left of {length}")
            sound(length % dtype.itemsize == 0, "it ends in the middle of a sample")
            require(length < LARGEST, f"{path} has more samples than a wav file can hold")
            return Header(rate, dtype, at, length // dtype.itemsize)
        sound(length <= left, f"its chunk {name!r} of {length} bytes ends behind the file")
        if name == b"fmt ":
            layout = read_format(file.read(min(length, 40)), path)
        at += length + length % 2
        file.seek(at)
    raise UserError(f"{path} has more than {CHUNKS} chunks before its samples: {REMEDY}")


def unknown(length: int, left: int, whole: bool) -> bool:
    """Tell whether a data chunk's size was never filled in, with so many bytes left in the file.

    Who writes to a pipe puts a size near the largest possible one, 2^32 - 1 or, where sizes are
    signed, 2^31 - 1.  A recorder that was stopped leaves a 0, and a RIFF size that does not make
    the file `whole`.

    >>> [unknown(n, 1000, False) for n in (0, 1000, 2000, 0x7FFFF000, 0xFFFFFFFF)]
    [True, False, False, True, True]
    """
    if length == 0:
        return left > 0 and not whole
    near = any(abs(length - largest) <= 1 << 16 for largest in (1 << 31, 1 << 32))
    return near and length > left


def read_format(fmt: bytes, path: str) -> tuple[int, np.dtype]:
    """Return sample rate and type of samples of a fmt chunk, or refuse it by what it says."""
    require(len(fmt) >= 16, f"{path} has a fmt chunk of {len(fmt)} bytes: 16 are needed; {REMEDY}")
    kind, channels, rate, _, align, bits = struct.unpack("<HHIIHH", fmt[:16])
    if kind == EXTENSIBLE and len(fmt) >= 26:
        (kind,) = struct.unpack("<H", fmt[24:26])
    require(
        channels == 1,
        f"{path} has {channels} channels, mono is needed: take one with sox FILE NEW.wav remix 1",
    )
    require(
        (kind, bits) in ((PCM, 16), (FLOAT, 32)),
        f"{path} holds {bits}-bit {NAMES.get(kind, f'format {kind}')} samples, 16-bit integers or "
        "32-bit floating point are needed: convert it with sox FILE -e signed -b 16 NEW.wav",
    )
    require(
        align == bits // 8,
        f"{path} says that a sample of {bits} bits takes {align} bytes (block align): {REMEDY}",
    )
    require(
        RATES[0] <= rate <= RATES[1],
        f"{path} is sampled at {rate} hertz, {RATES[0]} to {RATES[1]} are needed: "
        "convert it with sox FILE -r 16000 NEW.wav",
    )
    return rate, np.dtype("<i2" if kind == PCM else "<f4")
