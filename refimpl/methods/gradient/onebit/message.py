"""One bit per value: the dense sibling of threshold compression.

Every value is sent as its sign, every chunk with one scale; what that gets wrong is kept and
added the next time (*error feedback*), at both places where something is rounded:

    r = r + gradient                 r: this rank's residual; the gradient is a sum over frames
    for every chunk j:               chunk j is that of rank j, its *owner*
        a = mean |r_j|               Q(r_j) = +a where r_j >= 0, else -a
        send Q(r_j) to rank j;  r_j = r_j - Q(r_j)
    the owner of chunk j:
        o = o + Q of rank 0 + Q of rank 1 + ... + Q of rank g - 1         in this order
        send Q(o) to all;  o = o - Q(o)
    result: the chunks Q(o), the owner's own one included, end to end

The owner takes Q(o) and not the exact sum, as otherwise it would differ from all others.  Over
time nothing is lost: results + residuals of all ranks + residuals of the owners = gradients.

    message of a chunk of c values     bytes
    scale                              0-7, float64, little-endian
    signs, 1 for +scale                ceil(c / 8), most significant bit first, filled up with 0

The mean of |r| is the scale with the least square error.  A zero is sent as +a: one bit cannot
say "nothing", so a value whose gradient is always zero swings around it.

How a chunk is said is a `Code`: by one scale, `Scaled`, or by two values for every column of it
(`refimpl.methods.gradient.onebit.columns`), which changes Q and its bytes and nothing else.

The sibling of CNTK's 1-bit SGD and DeepSpeed's 1-bit optimizers; differences are in docs/gtc.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import chunks, pairwise, ring
from refimpl.collectives.chunks import Call
from refimpl.collectives.cost import Cost
from refimpl.methods.gradient.gtc.bits import room
from refimpl.methods.gradient.gtc.header import MessageError

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator

HEADER_BYTES = 8
_SCALE = np.dtype("<f8")

# Values per strip; a multiple of 8, so that every strip fills whole bytes.
STRIP = 1 << 15

# The eight signs that each byte holds.
_SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).view(np.bool_)


def message_bytes(values: int) -> int:
    """Return the bytes of the message of a chunk.

    >>> message_bytes(0), message_bytes(9)
    (8, 10)
    """
    return HEADER_BYTES + room(values)


def scale_of(x: np.ndarray) -> float:
    """Return mean |x|, rounded to x's dtype.

    Strip sums in float64 (NumPy's pairwise), strips from the first.
    """
    total = 0.0
    for start in range(0, x.size, STRIP):
        total += float(np.abs(x[start : start + STRIP]).sum(dtype=np.float64))
    return float(x.dtype.type(total / x.size)) if x.size else 0.0


def plain(x: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Return the message of x (c,), and what it does not say, x - Q(x): the whole method.

    >>> plain(np.array([3.0, -1.0, 0.5]))[1]
    array([ 1.5,  0.5, -1. ])
    """
    scale = scale_of(x)
    signs = np.packbits(x >= 0)
    q = np.where(x >= 0, x.dtype.type(scale), x.dtype.type(-scale))
    return struct.pack("<d", scale) + signs.tobytes(), x - q


def encode(x: np.ndarray, out: NDArray[np.uint8]) -> None:
    """Write the message of x, and leave in x what the message does not say: x = x - Q(x).

    What `plain` does, in place.

    Parameters
    ----------
    x : (c,) float32 or float64
        A chunk of a residual; modified.
    out : (message_bytes(c),) uint8
        Where to write.

    >>> x, message = np.array([3.0, -1.0, 0.5]), np.empty(9, np.uint8)
    >>> encode(x, message)
    >>> x, message[8:]
    (array([ 1.5,  0.5, -1. ]), array([160], dtype=uint8))
    """
    scale = scale_of(x)
    out[:HEADER_BYTES].view(_SCALE)[:] = scale
    said = _eight(scale, x.dtype)
    for start in range(0, x.size, STRIP):
        part = x[start : start + STRIP]
        signs = np.packbits(part >= 0)
        out[HEADER_BYTES + start // 8 :][: signs.size] = signs
        part -= said.take(signs, axis=0).reshape(-1)[: part.size]


def add(message: NDArray[np.uint8], out: np.ndarray) -> None:
    """Add Q, as its message says, to ``out`` (c,).

    Raises
    ------
    MessageError
        If this is not the message of so many values; ``out`` is not changed.
    """
    said = _eight(_scale(message, out.size), out.dtype)
    for start in range(0, out.size, STRIP):
        part = out[start : start + STRIP]
        signs = message[HEADER_BYTES + start // 8 :][: room(part.size)]
        part += said.take(signs, axis=0).reshape(-1)[: part.size]


def _eight(scale: float, dtype: np.dtype) -> np.ndarray:
    """Return (256, 8): the eight values, +scale or -scale, that each byte of signs says.

    A scale of zero is +0.0 in both, never -0.0.
    """
    said: np.ndarray = np.where(_SIGNS, dtype.type(scale), dtype.type(0 - scale))
    return said


def check(message: NDArray[np.uint8], values: int, nbytes: int, what: str) -> None:
    """Raise `MessageError` unless it has its bytes, and no bit after the signs at its end.

    ``what``: so many values, in words.
    """
    if message.size != nbytes:
        raise MessageError(
            f"{message.size} bytes are not the one-bit message of {what}, which has {nbytes}"
        )
    if values % 8 and message[-1] & (255 >> values % 8):
        raise MessageError("bits are set after the last sign of a one-bit message")


def _scale(message: NDArray[np.uint8], values: int) -> float:
    """Return the scale of a message for so many values, if it is one."""
    check(message, values, message_bytes(values), f"{values} values")
    scale = float(message[:HEADER_BYTES].view(_SCALE)[0])
    if scale < 0:
        raise MessageError(f"a one-bit message with scale {scale}")
    return scale


class Code(Protocol):
    """How a chunk is said: ``nbytes`` of a message, `encode` and `add`."""

    nbytes: int

    def encode(self, x: np.ndarray, out: NDArray[np.uint8]) -> None:
        """Write the message of a chunk x, and leave in x what the message does not say."""

    def add(self, message: NDArray[np.uint8], out: np.ndarray) -> None:
        """Add what a message says; raise `MessageError` if it cannot be one."""


class Scaled:
    """A chunk of so many values, said by one scale."""

    encode, add = staticmethod(encode), staticmethod(add)

    def __init__(self, values: int) -> None:
        self.nbytes = message_bytes(values)


def scaled(n: int, p: int) -> list[Scaled]:
    """Return how each of the p chunks of n values is said by one scale."""
    return [Scaled(values) for values in np.diff(chunks.offsets(n, p)).tolist()]


def allreduce(
    comm: Communicator,
    gradient: np.ndarray,
    residual: np.ndarray,
    owned: np.ndarray,
    said: list[np.ndarray] | None = None,
    codes: Sequence[Code] | None = None,
) -> None:
    """Replace ``gradient`` by the sum of all ranks' gradients, one bit per value and way.

    Parameters
    ----------
    comm : Communicator
        p ranks.  All of them call, with the same length and dtype.
    gradient : (n,) array, float32 or float64
        This rank's addend; the same bits on all ranks afterwards.
    residual : (n,) array
        What this rank has not sent yet; brought up to date.
    owned : (n_r,) array
        What this rank has not passed on of the sum of its chunk; brought up to date.
    said : list, optional
        Gets copies of what this rank says: to all owners, end to end, and as an owner to all.
    codes : (p,) sequence of Code, optional
        How each chunk is said, the same on all ranks; by default by one scale.

    Notes
    -----
    Messages of the first part go straight to the owner, by a pairwise all-to-all.  The second part
    is a ring all-gather.  Lengths follow from the codes.

    Cost per rank: 2 (p - 1) messages, about 2 (p - 1)/p n/8 bytes; `cost` gives it exactly.
    """
    p, r = comm.size, comm.rank
    codes = codes or scaled(gradient.size, p)
    chunk, cut = chunks.slices(gradient, p), _cut(codes)
    residual += gradient

    # Out of one buffer go the messages to the owners (slot 0 is the algorithm's), and to all.
    everyones = comm.scratch(int(cut[-1]), np.uint8, slot=1)
    for j, code in enumerate(codes):
        code.encode(residual[chunk[j]], everyones[cut[j] : cut[j + 1]])
    if said is not None:
        said.append(everyones.copy())
    for message in pairwise.alltoall(comm, everyones, offsets=cut):
        codes[r].add(message, owned)

    codes[r].encode(owned, everyones[cut[r] : cut[r + 1]])
    if said is not None:
        said.append(everyones[cut[r] : cut[r + 1]].copy())
    ring.allgather(comm, everyones, offsets=cut)
    gradient.fill(0)
    for j, code in enumerate(codes):
        code.add(everyones[cut[j] : cut[j + 1]], gradient[chunk[j]])


def _cut(codes: Sequence[Code]) -> NDArray[np.int64]:
    """Return where the chunks' messages lie end to end."""
    return np.cumsum([0, *(code.nbytes for code in codes)])


def cost(n: int, nodes: tuple[int, ...], codes: Sequence[Code] | None = None) -> Cost:
    """Return the cost of `allreduce` of n values on ranks that lie on these nodes.

    >>> cost(1000, nodes=(0, 0)).sent_by(0)["intra"]  # dense, in float32: 4000 bytes
    Count(messages=2, bytes=142)
    """
    call = Call(np.diff(_cut(codes or scaled(n, len(nodes)))), nodes)
    return Cost(pairwise.alltoall_steps(call) + ring.allgather_steps(call), nodes, itemsize=1)
