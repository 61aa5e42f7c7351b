"""From a network's outputs to states and words: re-alignment, decoding, scores.

The recogniser never sees the network, only a function

    outputs(frames, index) -> (len(index), classes) logits

that evaluates it on 256 frames or fewer.  It is collective, since a network may be spread
over ranks: all ranks call it equally often, at the end perhaps with an empty index.

Nothing here depends on how many ranks there are, to the last bit: the network's outputs do not
(`posteriors.py`), what a rank makes of an utterance's involves no other utterance, and results
are counts, or floating-point numbers per utterance added exactly.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from refimpl.collectives import small
from refimpl.numerics.exact import from_units, units
from refimpl.tasks.acoustic.align import align, utterance_graph
from refimpl.tasks.acoustic.corpus import Split
from refimpl.tasks.acoustic.decode import WordLoop
from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.acoustic.hmm import States, Statistics
from refimpl.tasks.acoustic.lexicon import Lexicon
from refimpl.tasks.acoustic.posteriors import gathered, posteriors
from refimpl.tasks.acoustic.score import WordErrors, word_errors
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.targets import once_per_node
from refimpl.tasks.protocol import Outputs
from refimpl.world.communicator import Communicator

Window = list[tuple[int, NDArray[np.float64]]]
"""Utterances side by side: their numbers, and log p(state | frame) of each."""


class Recogniser:
    """All that stands between log p(state | frame) and words.

    ``statistics``: priors and durations of the states; all alike until they are counted.
    ``word_penalty``: the decoder's; changed by `tune`.
    """

    def __init__(self, settings: AcousticSettings, lexicon: Lexicon, states: States) -> None:
        self.settings, self.lexicon, self.states = settings, lexicon, states
        self.statistics = Statistics(
            np.full(states.count, 1 / states.count), np.full(states.count, 0.5)
        )
        self.word_penalty = settings.word_penalty

    def likelihoods(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log p(x | s) but for a constant of each frame: Bayes' rule, priors scaled."""
        return log_p - self.settings.prior_scale * np.log(self.statistics.priors)

    # ---------------------------------------------------------------- states

    def forced_alignment(
        self, split: Split, outputs: Outputs, comm: Communicator
    ) -> NDArray[np.int64]:
        """Return each frame's state on the best path through its utterance's words.

        It is -1 where a word is unknown.  Collective; the same result on every rank, read-only,
        one copy per node.
        """
        mine: dict[int, NDArray[np.int16]] = {}
        for window in posteriors(split.frames, self.states.count, outputs, comm, "aligning"):
            for (u, log_p), path in zip(window, self._paths(split, window), strict=True):
                none = np.full(len(log_p), -1)
                mine[u] = (none if path is None else path).astype(np.int16)
        paths = gathered(comm, mine)
        return once_per_node(comm, split.frames.count, lambda out: np.concatenate(paths, out=out))

    def _align(self, split: Split, window: Window) -> list[NDArray[np.int64]]:
        """Return the forced alignment of a window's utterances."""
        graphs = [
            utterance_graph(split.utterances[u].said, self.lexicon, self.states) for u, _ in window
        ]
        found = align([self.likelihoods(log_p) for _, log_p in window], graphs, self.statistics)
        # There is a path: `check_lengths` saw to that.  (Of NaN the path is anything.)
        assert not any(score == -math.inf for score, _ in found)
        return [path for _, path in found]

    # ----------------------------------------------------------------- words

    def transcribe(
        self, frames: Frames, outputs: Outputs, comm: Communicator
    ) -> list[tuple[str, ...]]:
        """Return the words of each utterance.  Collective."""
        loop = self._loop()
        mine: dict[int, tuple[str, ...]] = {}
        for window in posteriors(frames, self.states.count, outputs, comm, "decoding"):
            heard = self._decode(loop, window, self.word_penalty)
            mine.update({u: words for (u, _), words in zip(window, heard, strict=True)})
        return gathered(comm, mine)

    def tune(self, split: Split, outputs: Outputs, comm: Communicator) -> dict[float, WordErrors]:
        """Set `word_penalty` to that of `settings.word_penalties` with fewest errors.

        Ties go to the one listed first.  Collective; returns each value's word errors.
        """
        loop = self._loop()
        mine: dict[int, list[WordErrors]] = {}
        for window in posteriors(split.frames, self.states.count, outputs, comm, "choosing"):
            for u, _ in window:
                mine[u] = []
            for penalty in self.settings.word_penalties:
                heard = self._decode(loop, window, penalty)
                for (u, _), guess in zip(window, heard, strict=True):
                    mine[u].append(word_errors(split.utterances[u].said, guess))
        per_penalty = zip(*gathered(comm, mine), strict=True)
        table = {
            penalty: WordErrors.total(errors)
            for penalty, errors in zip(self.settings.word_penalties, per_penalty, strict=True)
        }
        self.word_penalty = min(table, key=lambda penalty: table[penalty].errors)
        return table

    def _loop(self) -> WordLoop:
        """Return the decoder's search space with the present statistics."""
        return WordLoop(self.lexicon, self.states, self.statistics)

    def _decode(self, loop: WordLoop, window: Window, penalty: float) -> list[tuple[str, ...]]:
        """Return the words of a window's utterances."""
        likelihoods = [self.likelihoods(log_p) for _, log_p in window]
        return loop.decode(likelihoods, penalty, self.settings.acoustic_scale)

    # ---------------------------------------------------------------- scores

    def evaluate(
        self, split: Split, outputs: Outputs, comm: Communicator, words: bool = True
    ) -> dict:
        """Score the network on a split.  Collective; the same result on every rank.

        Frames are scored against the exact alignment where the split has one, else against
        `Split.aligned`, else against the forced alignment of its words by this very network; words
        that the lexicon lacks cannot be aligned, and without an exact alignment their utterances'
        frames are not scored.

        Returns frames: how many were scored; loss: mean cross-entropy per frame; frame_error_rate:
        share of frames whose most probable state is not the target; word_error_rate: see
        `WordErrors.as_dict`, left out (and the decoder's time) without `words`.
        """
        loop = self._loop()
        frames = loss = broken = wrong = 0
        total = WordErrors()
        for window in posteriors(split.frames, self.states.count, outputs, comm):
            targets = self._targets(split, window)
            heard: list[tuple[str, ...]] = [()] * len(window)
            if words:
                heard = self._decode(loop, window, self.word_penalty)
            for (u, log_p), target, guess in zip(window, targets, heard, strict=True):
                if target is not None:
                    frames += len(target)
                    mine = -float(log_p[np.arange(len(target)), target].sum())
                    if math.isfinite(mine):
                        loss += units(mine)
                    else:
                        broken += 1
                    wrong += int(np.count_nonzero(log_p.argmax(axis=1) != target))
                if words:
                    said = split.utterances[u].said
                    total = WordErrors.total([total, word_errors(said, guess)])

        sums = small.summed(comm, (frames, loss, broken, wrong, *total))
        frames, loss, broken, wrong, *errors = sums
        result: dict[str, Any] = {
            "frames": frames,
            "loss": math.nan if broken else from_units(loss) / frames,
            "frame_error_rate": wrong / frames,
        }
        if words:
            result["word_error_rate"] = WordErrors(*errors).as_dict()
        return result

    def _targets(self, split: Split, window: Window) -> list[NDArray[np.int64] | None]:
        """Return what a window's utterances are scored against; None: nothing is known."""
        states = split.aligned if split.exact is None else split.exact
        if states is None:
            return self._paths(split, window)
        offsets = split.frames.offsets
        rows = [states[offsets[u] : offsets[u + 1]] for u, _ in window]
        return [row if row[0] >= 0 else None for row in rows]

    def _paths(self, split: Split, window: Window) -> list[NDArray[np.int64] | None]:
        """Return the forced alignment of a window's utterances; None where a word is unknown."""
        known = [one for one in window if one[0] not in split.unknown]
        paths = {}
        if known:
            aligned = self._align(split, known)
            paths = {u: path for (u, _), path in zip(known, aligned, strict=True)}
        return [paths.get(u) for u, _ in window]
