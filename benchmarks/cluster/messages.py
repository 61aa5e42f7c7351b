"""The messages that show a link's alpha and beta; ranks send them, the report divides by them."""

from typing import NamedTuple


class Message(NamedTuple):
    """``times`` messages of so many bytes, one after the other, make one measurement."""

    bytes: int
    times: int


MESSAGES = {"small": Message(1 << 10, 8), "large": Message(1 << 20, 3)}
ADDED = Message(1 << 20, 8)
