"""Decoding: which words were said?  Viterbi's algorithm over a loop of all words.

    start --> ( hub ) --> any word of the lexicon, or silence --> ( hub ) --> end

Any word may follow any other, with or without silence between; there is no language model but
one number, the word penalty, that each word adds to a path's score: the lower, the fewer words.
It is chosen on development data, once (`AcousticTask.tune`).

All pronunciations and silence are chains of states laid side by side in one row of nodes.  With
l[t, s] the scaled log-likelihood of frame t in state s times the acoustic scale,

    hub[t]      = max over last nodes j of (score[t, j] + log p(j moves on))     hub[-1] = 0
    score[t, j] = l[t, j] + max of  score[t-1, j]   + log p(j stays)
                                    score[t-1, j-1] + log p(j-1 moves on)     inside a chain
                                    hub[t-1]        + penalty                 j first of a word
                                    hub[t-1]                                  j first of silence

Silence costs nothing to enter.  Ties go to staying, at the hub to the chain that comes first:
silence, then the words, sorted.

Between two hubs a path is in one chain, so all that need be known of it is which, and when it left
the hub.  That frame moves along with the score, and of every frame only the hub's best is kept:

    entered[t, j] = t at the first node of a chain, if score[t, j] comes from the hub
                    entered[t-1, j-1] or [t-1, j], whichever it comes from, elsewhere
"""

from __future__ import annotations

import numpy as np

from refimpl.tasks.acoustic.align import batches
from refimpl.tasks.acoustic.hmm import States, Statistics
from refimpl.tasks.acoustic.lexicon import Lexicon

# Bytes that a node takes: three floats (two scores, one for what is added), two frames, a mark.
NODE = 33


class WordLoop:
    """The row of nodes, and the search."""

    def __init__(self, lexicon: Lexicon, states: States, statistics: Statistics) -> None:
        chains: list[tuple[str | None, np.ndarray]] = [(None, states.silence)]
        for word, pronunciations in lexicon.pronunciations.items():
            chains += [(word, states.of(phones)) for phones in pronunciations]
        self.words = [word for word, _ in chains]  # of each chain; None: silence
        self.state = np.concatenate([row for _, row in chains])
        ends = np.cumsum([len(row) for _, row in chains])
        self.last = ends - 1  # node of each chain
        self.first = np.concatenate(([0], ends[:-1]))
        self.stay = statistics.log_stay[self.state]
        self.move = statistics.log_move[self.state]

    def decode(
        self, likelihoods: list[np.ndarray], penalty: float, acoustic_scale: float
    ) -> list[tuple[str, ...]]:
        """Return the words of the best path of each utterance.

        ``likelihoods``: scaled log-likelihoods; not modified.

        Cost: about 8 operations per utterance, frame and node, in max(T_u) vectorised steps per
        batch of utterances of similar length; the result does not depend on the batches.  Memory:
        `NODE` bytes per utterance and node, and a copy of the likelihoods.
        """
        results: list[tuple[str, ...]] = [()] * len(likelihoods)
        for batch in batches([one.nbytes + NODE * len(self.state) for one in likelihoods]):
            some = self.best_words([likelihoods[u] for u in batch], penalty, acoustic_scale)
            for u, words in zip(batch, some, strict=True):
                results[u] = words
        return results

    def best_words(
        self, likelihoods: list[np.ndarray], penalty: float, acoustic_scale: float
    ) -> list[tuple[str, ...]]:
        """Return what `decode` does, all utterances side by side, padded to the longest."""
        U, T = len(likelihoods), max(map(len, likelihoods))
        lengths = np.array([len(one) for one in likelihoods])
        frames = np.zeros((U, T, likelihoods[0].shape[1]))
        for u, one in enumerate(likelihoods):
            frames[u, : len(one)] = one
        frames *= acoustic_scale
        enter = np.array([0.0 if word is None else penalty for word in self.words])

        exits = np.zeros((T, U), dtype=np.int64)  # the chain whose end is the hub's best
        since = np.zeros((T, U), dtype=np.int64)  # the first frame of the best path in that chain
        score = np.full((U, len(self.state)), -np.inf)
        arrive = np.empty_like(score)
        came = np.empty(score.shape, dtype=bool)  # from the node before, or the hub
        entered = np.zeros(score.shape, dtype=np.int32)
        moved = np.empty_like(entered)
        hub = np.zeros(U)
        fits = np.zeros(U, dtype=bool)  # some path ends with the utterance's last frame
        for t in range(T):
            arrive[:, 1:] = score[:, :-1] + self.move[:-1]
            arrive[:, self.first] = hub[:, None] + enter
            score += self.stay
            np.greater(arrive, score, out=came)
            np.maximum(score, arrive, out=score)
            moved[:, 1:] = entered[:, :-1]
            moved[:, self.first] = t
            moved -= entered
            moved *= came  # in a third of the time that `np.where` takes
            entered += moved
            score += frames[:, t][:, self.state]
            ends = score[:, self.last] + self.move[self.last]
            exits[t] = ends.argmax(axis=1)
            since[t] = entered[np.arange(U), self.last[exits[t]]]
            hub = ends.max(axis=1)
            fits |= (lengths == t + 1) & (hub > -np.inf)

        return [
            self.trace(exits[:, u], since[:, u], lengths[u]) if fits[u] else () for u in range(U)
        ]

    def trace(self, exits: np.ndarray, since: np.ndarray, length: int) -> tuple[str, ...]:
        """Read the best path backwards from frame length - 1."""
        words, t = [], length - 1
        while t >= 0:
            words.append(self.words[exits[t]])
            t = int(since[t]) - 1
        return tuple(word for word in reversed(words) if word is not None)
