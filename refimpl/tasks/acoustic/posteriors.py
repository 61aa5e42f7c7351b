"""What the network says of every frame, the same bits on any number of ranks.

A matrix product's last bits may depend on how many rows it has.  So utterances are cut into
packs by their lengths alone, and pack k is rank k mod p's: whatever p is, the same rows go
through the network together.  A pack holds whole utterances, so that whoever has it can align
and decode them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.protocol import Outputs
from refimpl.tasks.scoring import CHUNK
from refimpl.world.communicator import Communicator

# A rank aligns and decodes about so many frames side by side: 3 MB of posteriors and copies.
WINDOW = 2048


def posteriors(
    frames: Frames, classes: int, outputs: Outputs, comm: Communicator, doing: str = "scoring"
) -> Iterator[list[tuple[int, NDArray[np.float64]]]]:
    """Yield this rank's utterances, some at a time: (number, log p(state | frame) (T, classes)).

    Collective, and only if every rank exhausts it: it calls `outputs` equally often on all.
    ``doing``: what is done with them, for who watches.
    """
    rows, offsets = CHUNK, frames.offsets
    cut = packs(np.diff(offsets).tolist(), rows)
    calls = [
        sum(-((offsets[a] - offsets[b]) // rows) for a, b in cut[rank :: comm.size])
        for rank in range(comm.size)
    ]
    window: list[tuple[int, NDArray[np.float64]]] = []
    filled = 0
    mine = cut[comm.rank :: comm.size]
    for number, (a, b) in enumerate(mine):
        first, last = int(offsets[a]), int(offsets[b])
        logits = np.empty((last - first, classes), dtype=np.float32)
        for i in range(first, last, rows):
            index = np.arange(i, min(i + rows, last))
            logits[i - first : i - first + len(index)] = outputs(frames, index)
        log_p = log_softmax(logits)
        window += [(u, log_p[offsets[u] - first : offsets[u + 1] - first]) for u in range(a, b)]
        filled += last - first
        comm.events.progress(doing, number + 1, len(mine))
        if filled >= WINDOW:
            yield window
            window, filled = [], 0
    if window:
        yield window
    for _ in range(max(calls) - calls[comm.rank]):
        outputs(frames, np.arange(0))


def packs(lengths: list[int], rows: int) -> list[tuple[int, int]]:
    """Cut utterances into runs [a, b) of at most `rows` frames, or of one longer utterance.

    >>> packs([3, 4, 5, 20, 1], rows=8)
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    cut, a, filled = [], 0, 0
    for u, length in enumerate(lengths):
        if filled and filled + length > rows:
            cut.append((a, u))
            a, filled = u, 0
        filled += length
    cut.append((a, len(lengths)))
    return cut


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return log(exp(z_s) / sum over r of exp(z_r)) of each row, in float64."""
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def gathered(comm: Communicator, mine: dict) -> list:
    """Return the values of all ranks' dicts number -> value in the order of their numbers."""
    everything: dict = {}
    for some in comm.allgather_object(mine):
        everything.update(some)
    return [everything[u] for u in sorted(everything)]
