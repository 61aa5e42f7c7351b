"""One step of the siblings of GTC on one rank, value by value, as text."""

from __future__ import annotations

import numpy as np

from refimpl.methods.gradient.gtc.explain import GRADIENT, RESIDUAL, owing, table
from refimpl.methods.gradient.onebit import message as onebit_message
from refimpl.methods.gradient.topk import message as topk_message

CHUNK, MOST = 4, 1  # of top-k: values of a chunk, and how many of them are sent


def onebit() -> str:
    """Return a step of one bit per value as a table, before the owners' rounding."""
    together = RESIDUAL + GRADIENT
    _, after = onebit_message.plain(together)
    told = (
        "one step of one bit per value, a chunk of 8\n\nevery value is sent as its sign, and the "
        f"chunk's scale, mean |r + gradient| = {onebit_message.scale_of(together):g}"
    )
    return f"{told}\n\n{table(owing(together - after, after), 2, 2)}"


def topk() -> str:
    """Return a step of top-k as a table."""
    together = RESIDUAL + GRADIENT
    rows = together.reshape(-1, CHUNK)
    places = topk_message.plain(rows, MOST)
    sent = np.zeros_like(rows)
    np.put_along_axis(sent, places, np.take_along_axis(rows, places, 1), 1)
    told = f"one step of top-k: {MOST} of {CHUNK} neighbouring values is sent, as it is"
    return f"{told}\n\n{table(owing(sent.ravel(), together - sent.ravel()), 2, 2)}"
