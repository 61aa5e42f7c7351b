"""Perfetto's trace format, as far as slices on tracks and arrows between them need it.

A trace is a file of protobuf messages (perfetto.dev/docs/reference/trace-packet-proto), which the
viewer at ui.perfetto.dev opens.  A field of a message is its number and a wire type in one varint,
then its value: a varint (type 0), eight bytes (type 1), or a length and as many bytes (type 2).
A trace is packets, one after the other, so that files of packets may be put together.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

BEGIN, END = 1, 2  # TrackEvent.Type


def varint(number: int) -> bytes:
    """Return a whole number of at least 0, seven bits a byte, the lowest first.

    >>> varint(5).hex(), varint(300).hex()
    ('05', 'ac02')
    """
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def field(number: int, value: int | str | bytes) -> bytes:
    """Return a field: a whole number, a text, or a message that is encoded.

    >>> field(1, 150).hex(), field(2, "testing").hex()
    ('089601', '120774657374696e67')
    """
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def fixed64(number: int, value: int) -> bytes:
    """Return a field of eight bytes."""
    return varint(number << 3 | 1) + struct.pack("<Q", value)


def packet(content: bytes) -> bytes:
    """Return a packet of the trace; all are of one sequence."""
    return field(1, content + field(10, 1))  # trusted_packet_sequence_id


def process(uuid: int, pid: int, name: str) -> bytes:
    """Return the packet that declares a process, whose tracks stand below it."""
    told = field(1, pid) + field(6, name)
    return packet(field(60, field(1, uuid) + field(3, told)))


def track(uuid: int, parent: int, name: str, place: int) -> bytes:
    """Return the packet that declares a track of a process; ``place`` orders those of one."""
    return packet(field(60, field(1, uuid) + field(2, name) + field(5, parent) + field(12, place)))


def begin(
    at: int,
    track: int,
    name: str,
    category: str,
    arguments: Mapping[str, int | float | str],
    starts: Sequence[int] = (),
    ends: Sequence[int] = (),
) -> bytes:
    """Return the packet that begins a slice.

    ``at``: nanoseconds.  ``starts``, ``ends``: arrows that begin or end at it, by number.
    """
    event = field(9, BEGIN) + field(11, track) + field(22, category) + field(23, name)
    for key, value in arguments.items():
        event += field(4, field(10, key) + _value(value))
    event += b"".join(fixed64(47, arrow) for arrow in starts)
    event += b"".join(fixed64(48, arrow) for arrow in ends)
    return packet(field(8, at) + field(11, event))


def end(at: int, track: int) -> bytes:
    """Return the packet that ends a track's innermost slice."""
    return packet(field(8, at) + field(11, field(9, END) + field(11, track)))


def _value(value: int | float | str) -> bytes:
    if isinstance(value, str):
        return field(6, value)
    if isinstance(value, int) and value >= 0:
        return field(3, value)
    return varint(5 << 3 | 1) + struct.pack("<d", value)


# ------------------------------------------------------------------------------------ read again


class Edge(NamedTuple):
    """A slice's begin, or (``kind`` == `END`) the end of the innermost one of its track."""

    at: int
    kind: int
    name: str
    arguments: dict[str, int | str]
    starts: list[int]
    ends: list[int]


class Track(NamedTuple):
    """A process (``parent`` None) or a track of one, with what is on it in order."""

    parent: int | None
    name: str
    edges: list[Edge]


def fields(content: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (number, value) of a message: whole numbers, or bytes.

    Raises `ValueError` if it is none.

    >>> list(fields(field(1, 150) + field(2, "testing")))
    [(1, 150), (2, b'testing')]
    """
    at = 0

    def number() -> int:
        nonlocal at
        found = shift = 0
        while True:
            byte = content[at]
            at += 1
            found |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return found

    try:
        while at < len(content):
            key = number()
            if key & 7 == 0:
                yield key >> 3, number()
                continue
            size = 8 if key & 7 == 1 else number() if key & 7 == 2 else len(content)
            value, at = content[at : at + size], at + size
            if at > len(content):
                raise IndexError
            yield key >> 3, int.from_bytes(value, "little") if key & 7 == 1 else value
    except IndexError:
        raise ValueError("not protobuf, or cut off") from None


def read(content: bytes) -> dict[int, Track]:
    """Return the tracks of a trace that the functions above have made, by number.

    Raises `ValueError` if it is none.
    """
    tracks: dict[int, Track] = {}
    try:
        for number, one in fields(content):
            assert number == 1
            told: dict[int, Any] = dict(fields(_bytes(one)))
            if 60 in told:
                about: dict[int, Any] = dict(fields(told[60]))
                name = dict(fields(about[3]))[6] if 3 in about else about[2]
                tracks[about[1]] = Track(about.get(5), _bytes(name).decode(), [])
            else:
                assert isinstance(told[8], int)
                event = list(fields(told[11]))
                first: dict[int, Any] = dict(event)
                arrows = ([int(v) for n, v in event if n == kind] for kind in (47, 48))
                said = dict(_argument(_bytes(v)) for n, v in event if n == 4)
                name = first.get(23, b"").decode()
                tracks[first[11]].edges.append(Edge(told[8], first[9], name, said, *arrows))
    except (AssertionError, AttributeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError("not a trace that refimpl has written") from error
    return tracks


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


def _argument(content: bytes) -> tuple[str, Any]:
    told = dict(fields(content))
    value = told.get(6, told.get(3, told.get(5, 0)))
    return _bytes(told[10]).decode(), value.decode() if isinstance(value, bytes) else value
