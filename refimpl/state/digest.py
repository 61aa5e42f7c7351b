"""The digest of a model: what two runs must have in common to be called equal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np


class Digest:
    """The SHA-256 of all parameters: name and little-endian bytes of each, in build order."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def over(
        self, parameters: Iterable[tuple[str, np.ndarray]]
    ) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the parameters as they are, and take them into the digest on the way."""
        for name, value in parameters:
            self._sha256.update(name.encode())
            little = value.astype(value.dtype.newbyteorder("<"), copy=False)
            self._sha256.update(np.ascontiguousarray(little).data)
            yield name, value

    def text(self) -> str:
        """Return the digest of what has passed, in hexadecimal."""
        return self._sha256.hexdigest()


def parameters_digest(parameters: dict[str, np.ndarray]) -> str:
    """Return the `Digest` of a whole model."""
    digest = Digest()
    for _ in digest.over(parameters.items()):
        pass
    return digest.text()
