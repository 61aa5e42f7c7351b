"""Word errors: the fewest edits that turn what was said into what was heard.

S substitutions, D deletions (said, not heard) and I insertions (heard, not said); the word
error rate is (S + D + I) / N for N words said, and may exceed 1.  The fewest edits are one
number, their kinds are not: "a b" heard as "b c" is two substitutions, or one deletion and one
insertion.  Where edits tie, a match or substitution is preferred to a deletion and a
deletion to an insertion, looking from the end of the sentence, so that counts are reproducible.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class WordErrors(NamedTuple):
    """Counts; they add up over utterances in any order to the same bits, being integers."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    words: int = 0

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def wer(self) -> float:
        """Word error rate as a fraction; NaN where no word was said."""
        return self.errors / self.words if self.words else float("nan")

    @classmethod
    def total(cls, counts: Iterable[WordErrors]) -> WordErrors:
        """Return the sum of all."""
        return cls(*(sum(column) for column in zip(cls(), *counts, strict=True)))

    def as_dict(self) -> dict:
        """Return the counts and the rate as plain data."""
        return {"wer": self.wer, **self._asdict()}


def word_errors(said: Sequence[str], heard: Sequence[str]) -> WordErrors:
    """Count the edits from `said` to `heard`.

    cost[i, j] is the fewest edits from the first i words said to the first j heard:

        cost[i, j] = min(cost[i-1, j-1] + (said[i-1] != heard[j-1]),    match or substitution
                         cost[i-1, j] + 1,                              deletion
                         cost[i, j-1] + 1)                              insertion

    >>> word_errors("one two three".split(), "one too three four".split())
    WordErrors(substitutions=1, deletions=0, insertions=1, words=3)
    """
    n, m = len(said), len(heard)
    cost = np.zeros((n + 1, m + 1), dtype=np.int64)
    cost[:, 0] = np.arange(n + 1)
    cost[0, :] = np.arange(m + 1)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            differ = said[i - 1] != heard[j - 1]
            cost[i, j] = min(cost[i - 1, j - 1] + differ, cost[i - 1, j] + 1, cost[i, j - 1] + 1)

    substitutions = deletions = insertions = 0
    i, j = n, m
    while i or j:
        if i and j and cost[i, j] == cost[i - 1, j - 1] + (said[i - 1] != heard[j - 1]):
            i, j = i - 1, j - 1
            substitutions += said[i] != heard[j]
        elif i and cost[i, j] == cost[i - 1, j] + 1:
            i, deletions = i - 1, deletions + 1
        else:
            j, insertions = j - 1, insertions + 1
    return WordErrors(substitutions, deletions, insertions, n)
