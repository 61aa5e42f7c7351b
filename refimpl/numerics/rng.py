"""Random numbers that do not depend on the cluster.

Every draw is named by a seed, a purpose and an index ("the initial weights of layer hidden0",
"the order of frames in epoch 3"), never by a rank or by what was drawn before it.  Whoever
needs the numbers, wherever it runs, gets the same ones.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, purpose: str, *index: int | str) -> np.random.Generator:
    """Return the generator named (seed, purpose, index): equal names, equal numbers.

    The name is hashed (SHA-256) to the 128-bit key of a Philox counter generator, so streams
    of different names are independent and none has to be advanced to reach another.

    >>> bool(stream(1, "order", 0).integers(1000) == stream(1, "order", 0).integers(1000))
    True
    >>> bool(stream(1, "order", 0).integers(1000) == stream(1, "order", 1).integers(1000))
    False
    """
    name = "/".join(repr(part) for part in (int(seed), purpose, *index))
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))
