"""The acoustic task: a corpus becomes training examples; a network's outputs become scores.

    DIR/train  DIR/dev  DIR/test    data directories (`kaldi.py`)
    DIR/lexicon.txt                 their words' phones (`lexicon.py`)

The task never sees the network, only a function

    outputs(frames, index) -> (len(index), classes) logits

that evaluates it on 256 frames or fewer.  It is collective, since a network may be spread
over ranks: all ranks call it equally often, at the end perhaps with an empty index.

Nothing here depends on how many ranks there are, to the last bit: the network's outputs do not
(`posteriors.py`), what a rank makes of an utterance's involves no other utterance, and results
are counts, or floating-point numbers per utterance added in the utterances' order.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from refimpl.acoustic.align import align, utterance_graph
from refimpl.acoustic.decode import WordLoop
from refimpl.acoustic.discriminant import linear_discriminant
from refimpl.acoustic.examples import Frames
from refimpl.acoustic.features import log_mel_features
from refimpl.acoustic.frontend import Moments, average, grouped, moments, normalise
from refimpl.acoustic.hmm import (
    STATES_PER_PHONE,
    States,
    Statistics,
    exact_targets,
    flat_start,
    statistics,
)
from refimpl.acoustic.kaldi import Utterance, read_data_directory
from refimpl.acoustic.lexicon import Lexicon, read_lexicon
from refimpl.acoustic.posteriors import gathered, posteriors
from refimpl.acoustic.score import WordErrors, word_errors
from refimpl.acoustic.settings import AcousticSettings
from refimpl.data.scoring import Outputs
from refimpl.errors import listed, require, together

if TYPE_CHECKING:
    from refimpl.communicator import Communicator

STATE_FORMAT = 1


@dataclass
class Split:
    """A data directory, ready for the network."""

    utterances: list[Utterance]
    frames: Frames
    exact: NDArray[np.int64] | None  # states by the exact alignment, if there is one


class AcousticTask:
    """Frame classification into HMM states, scored by frame and by word.

    Attributes
    ----------
    inputs, classes : int
        Width of the network's input and output.
    train : Frames
        The training examples; their targets change with `realign`.
    splits : dict of name -> Split
        "train", "dev", "test" after `prepare`; what `load` added.
    word_penalty : float
        The decoder's; changed by `tune`.
    """

    def __init__(self, settings: AcousticSettings, lexicon: Lexicon) -> None:
        self.settings, self.lexicon = settings, lexicon
        self.states = States(lexicon.phones)
        self.classes = self.states.count
        self.inputs = (2 * settings.context + 1) * settings.bands
        nothing = Moments(0, np.zeros(settings.bands), np.ones(settings.bands))
        self.speakers = nothing  # the training speakers' average
        self.inside = nothing  # of the training data's features, after CMVN
        self.statistics = Statistics(
            np.full(self.classes, 1 / self.classes), np.full(self.classes, 0.5)
        )
        self.word_penalty = settings.word_penalty
        self.splits: dict[str, Split] = {}

    @classmethod
    def prepare(
        cls,
        comm: Communicator,
        directory: str | Path,
        settings: AcousticSettings,
        cache: Path | None,
    ) -> AcousticTask:
        """Return the task of a corpus: features of all splits, first targets for training.

        Collective.  `cache`: where features are kept (`features.default_cache()`), or None.

        Raises
        ------
        UserError
            If anything is wrong with the corpus; on every rank.
        """
        folder, lexicon = Path(directory), None
        with together(comm):
            if comm.rank == 0:
                require(
                    folder.is_dir(),
                    f"no corpus folder {folder}: it needs folders train, dev and test and "
                    "lexicon.txt",
                )
                lexicon = read_lexicon(folder / "lexicon.txt", settings.silence)
                for name in ("train", "dev", "test"):  # all text first: it is read in no time
                    read_data_directory(folder / name)
        task = cls(settings, comm.bcast_object(lexicon, root=0))

        task.load(comm, "train", folder / "train", cache)
        frames = task.train
        frames.labels[:] = task._first_targets(task.splits["train"])
        task.statistics = statistics(frames.labels, frames.offsets, task.classes)
        if not task.exact:
            for _ in range(settings.flat_passes):
                task.realign(linear_discriminant(comm, frames, task.statistics.priors), comm)

        for name in ("dev", "test"):
            task.load(comm, name, folder / name, cache)
        return task

    @property
    def train(self) -> Frames:
        """The training examples."""
        return self.splits["train"].frames

    @property
    def exact(self) -> bool:
        """Whether training targets are exact, so that there is nothing to re-align."""
        return self.settings.alignment != "flat" and self.splits["train"].exact is not None

    # ------------------------------------------------------------------ data

    def load(
        self, comm: Communicator, name: str, directory: str | Path, cache: Path | None
    ) -> None:
        """Add a data directory as split `name`, with this task's front end and lexicon.

        Collective.

        Raises
        ------
        UserError
            As `read_data_directory` and `log_mel_features`; or if a word is not in the
            lexicon, or an utterance has fewer frames than its words have states.
        """
        utterances = None
        with together(comm):
            if comm.rank == 0:
                utterances = read_data_directory(directory)
                for utterance in utterances:
                    self._check_words(utterance, Path(directory))
        utterances = comm.bcast_object(utterances, root=0)
        frames = self._frames(comm, utterances, cache)

        exact = None
        if self.settings.alignment != "flat" or name == "train":
            exact = self._exact_targets(utterances, frames)
        require(
            exact is not None or name != "train" or self.settings.alignment != "exact",
            f"data directory {directory} has no ctm: exact alignment needs one "
            "(or choose alignment auto or flat)",
        )
        if exact is None or self.settings.alignment == "flat":
            self._check_lengths(utterances, frames.offsets)
        self.splits[name] = Split(utterances, frames, exact)

    @staticmethod
    def folders(directory: str | Path) -> list[str]:
        """Return the data directories at `directory`: itself, or else those in it."""
        folder = Path(directory)
        found = sorted(folder.glob("wav.scp")) or sorted(folder.glob("*/wav.scp"))
        require(
            bool(found),
            f"no data directory in {folder}: give a folder with wav.scp, text and utt2spk, or a "
            "folder of such folders",
        )
        return [str(file.parent) for file in found]

    def _frames(
        self, comm: Communicator, utterances: list[Utterance], cache: Path | None
    ) -> Frames:
        """Return the utterances' frames, normalised."""
        rate, offsets, features = log_mel_features(comm, utterances, self.settings, cache)
        self.settings = replace(self.settings, sample_rate=rate)
        if self.settings.cmvn != "none":
            by_speaker = self.settings.cmvn == "speaker"
            groups = grouped(
                features,
                offsets,
                [
                    one.speaker if by_speaker and one.speaker else u
                    for u, one in enumerate(utterances)
                ],
            )
            if not self.speakers.frames:  # these are the training data
                self.speakers = average(groups)
            normalise(groups, self.speakers, self.settings.cmvn_prior)
        if not self.inside.frames:
            self.inside = moments(np.split(features, offsets[1:-1]))
        features -= self.inside.mean.astype(np.float32)
        features /= self.inside.deviation.astype(np.float32)
        return Frames(features, offsets, self.settings.context)

    def _check_words(self, utterance: Utterance, directory: Path) -> None:
        assert utterance.words is not None
        for word in utterance.words:
            require(
                word in self.lexicon.pronunciations,
                f"word {word} of utterance {utterance.name} in {directory / 'text'} is not in "
                "the lexicon: add a line with its phones to lexicon.txt, and train again",
            )
        for phone in utterance.phones or ():
            require(
                phone.name in self.states.phones,
                f"phone {phone.name} of utterance {utterance.name} in {directory / 'ctm'} is in "
                f"no word of the lexicon: it knows {listed(self.states.phones)}",
            )

    def _check_lengths(self, utterances: list[Utterance], offsets: NDArray[np.int64]) -> None:
        for one, frames in zip(utterances, np.diff(offsets).tolist(), strict=True):
            assert one.words is not None
            need = STATES_PER_PHONE * self.lexicon.fewest_phones(one.words)
            require(
                frames >= need,
                f"utterance {one.name} has {frames} frames but its words "
                f"({' '.join(one.words)}) have {need} states, each of one frame or more: "
                "remove it, or check its transcript",
            )

    def _exact_targets(
        self, utterances: list[Utterance], frames: Frames
    ) -> NDArray[np.int64] | None:
        """Return all frames' states by the exact alignments, or None if there are none."""
        settings, parts = self.settings, []
        for one, n in zip(utterances, np.diff(frames.offsets).tolist(), strict=True):
            if one.phones is None:
                return None
            parts.append(
                exact_targets(
                    one.phones, self.states, n, settings.frame_shift, settings.frame_length
                )
            )
        return np.concatenate(parts)

    def _first_targets(self, split: Split) -> NDArray[np.int64]:
        """Return exact targets, or those of a flat start."""
        if self.exact:
            assert split.exact is not None
            return split.exact
        frames, parts = split.frames, []
        for u, one in enumerate(split.utterances):
            assert one.words is not None
            phones = tuple(p for w in one.words for p in self.lexicon.pronunciations[w][0])
            shortest = tuple(
                p for w in one.words for p in min(self.lexicon.pronunciations[w], key=len)
            )
            features = frames.features[frames.offsets[u] : frames.offsets[u + 1]]
            fits = STATES_PER_PHONE * len(phones) <= len(features)
            said = self.states.of(phones if fits else shortest)
            parts.append(flat_start(said, self.states, features))
        return np.concatenate(parts)

    # --------------------------------------------------- likelihoods, targets

    def likelihoods(self, log_p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return log p(x | s) but for a constant of each frame: Bayes' rule, priors scaled."""
        return log_p - self.settings.prior_scale * np.log(self.statistics.priors)

    def _align(self, split: Split, window: list) -> list[NDArray[np.int64]]:
        """Return the forced alignment of a window's utterances."""
        graphs = [
            utterance_graph(split.utterances[u].words, self.lexicon, self.states)
            for u, _ in window
        ]
        found = align([self.likelihoods(log_p) for _, log_p in window], graphs, self.statistics)
        assert all(score > -math.inf for score, _ in found)  # _check_lengths saw to that
        return [path for _, path in found]

    def _targets(self, split: Split, window: list) -> list[NDArray[np.int64]]:
        """Return what a window's utterances are scored against."""
        if split.exact is None:
            return self._align(split, window)
        offsets = split.frames.offsets
        return [split.exact[offsets[u] : offsets[u + 1]] for u, _ in window]

    # --------------------------------------------------------------- scores

    def evaluate(
        self, name: str, outputs: Outputs, comm: Communicator, words: bool = True
    ) -> dict:
        """Score the network on a split.  Collective; the same result on every rank.

        Frames are scored against the exact alignment where the split has one, else against the
        forced alignment of its words by this very network.

        Parameters
        ----------
        words
            False: leave out the word errors, and the decoder's time.

        Returns
        -------
        dict
            frames; loss: mean cross-entropy per frame; frame_error_rate: share of frames whose
            most probable state is not the target; word_error_rate: see `WordErrors.as_dict`.
        """
        split = self.splits[name]
        loop = WordLoop(self.lexicon, self.states, self.statistics)
        mine: dict[int, tuple[float, int, WordErrors]] = {}
        for window in posteriors(split.frames, self.classes, outputs, comm):
            targets = self._targets(split, window)
            heard = [()] * len(window)
            if words:
                heard = self._decode(loop, [log_p for _, log_p in window], self.word_penalty)
            for (u, log_p), target, guess in zip(window, targets, heard, strict=True):
                loss = -float(log_p[np.arange(len(target)), target].sum())
                wrong = int(np.count_nonzero(log_p.argmax(axis=1) != target))
                said = split.utterances[u].words
                mine[u] = loss, wrong, word_errors(said, guess) if words else WordErrors()

        scores = gathered(comm, mine)
        frames = split.frames.count
        result = {
            "frames": frames,
            "loss": math.fsum(loss for loss, _, _ in scores) / frames,
            "frame_error_rate": sum(wrong for _, wrong, _ in scores) / frames,
        }
        if words:
            total = WordErrors.total(errors for _, _, errors in scores)
            result["word_error_rate"] = total.as_dict()
        return result

    def _decode(
        self, loop: WordLoop, log_ps: list[NDArray], penalty: float
    ) -> list[tuple[str, ...]]:
        likelihoods = [self.likelihoods(log_p) for log_p in log_ps]
        return loop.decode(likelihoods, penalty, self.settings.acoustic_scale)

    def tune(self, outputs: Outputs, comm: Communicator) -> dict[float, WordErrors]:
        """Set `word_penalty` to that of `settings.word_penalties` with fewest errors on dev.

        Ties go to the one listed first.  Collective; returns each value's word errors.
        """
        split = self.splits["dev"]
        loop = WordLoop(self.lexicon, self.states, self.statistics)
        mine: dict[int, list[WordErrors]] = {}
        for window in posteriors(split.frames, self.classes, outputs, comm):
            for u, _ in window:
                mine[u] = []
            for penalty in self.settings.word_penalties:
                heard = self._decode(loop, [log_p for _, log_p in window], penalty)
                for (u, _), guess in zip(window, heard, strict=True):
                    mine[u].append(word_errors(split.utterances[u].words, guess))
        per_penalty = zip(*gathered(comm, mine), strict=True)
        table = {
            penalty: WordErrors.total(errors)
            for penalty, errors in zip(self.settings.word_penalties, per_penalty, strict=True)
        }
        self.word_penalty = min(table, key=lambda penalty: table[penalty].errors)
        return table

    def transcribe(
        self, wavs: list[str], outputs: Outputs, comm: Communicator
    ) -> list[tuple[str, ...]]:
        """Return the words of each wav file, whose speaker is unknown.  Collective."""
        utterances = [Utterance(path, None, None, path) for path in wavs]
        split = Split(utterances, self._frames(comm, utterances, None), None)
        loop = WordLoop(self.lexicon, self.states, self.statistics)
        mine: dict[int, tuple[str, ...]] = {}
        for window in posteriors(split.frames, self.classes, outputs, comm):
            heard = self._decode(loop, [log_p for _, log_p in window], self.word_penalty)
            mine.update({u: words for (u, _), words in zip(window, heard, strict=True)})
        return gathered(comm, mine)

    # -------------------------------------------------------------- targets

    def realign_after(self, epoch: int) -> bool:
        """Tell whether the trainer should call `realign` after this epoch (the first is 1)."""
        return not self.exact and epoch in self.settings.realign_epochs

    def realign(self, outputs: Outputs, comm: Communicator) -> float:
        """Re-align the training targets with the network; return the share that changed.

        Priors and durations are estimated anew from the result.  Collective; does nothing and
        returns 0 if the targets are exact.
        """
        if self.exact:
            return 0.0
        split = self.splits["train"]
        mine: dict[int, NDArray] = {}
        for window in posteriors(split.frames, self.classes, outputs, comm):
            paths = self._align(split, window)
            mine.update({u: p.astype(np.int16) for (u, _), p in zip(window, paths, strict=True)})
        targets = np.concatenate(gathered(comm, mine))
        changed = np.count_nonzero(targets != self.train.labels) / self.train.count
        self.train.labels[:] = targets
        self.statistics = statistics(self.train.labels, self.train.offsets, self.classes)
        return changed

    def phone_agreement(self) -> float:
        """Return the share of training frames whose target lies in the phone it exactly is in.

        Tells how well re-alignment does, on a corpus that has a `ctm`.
        """
        exact = self.splits["train"].exact
        require(exact is not None, "the training data has no ctm to compare targets with")
        same = self.train.labels // STATES_PER_PHONE == exact // STATES_PER_PHONE
        return float(np.count_nonzero(same) / same.size)

    # ---------------------------------------------------------------- state

    def state(self) -> dict:
        """Return, as plain data and arrays, all that evaluating and decoding need."""
        return {
            "format": STATE_FORMAT,
            "settings": asdict(self.settings),
            "pronunciations": {
                word: [list(phones) for phones in some]
                for word, some in self.lexicon.pronunciations.items()
            },
            "speakers_frames": self.speakers.frames,
            "speakers_mean": self.speakers.mean.copy(),
            "speakers_variance": self.speakers.variance.copy(),
            "inside_frames": self.inside.frames,
            "inside_mean": self.inside.mean.copy(),
            "inside_variance": self.inside.variance.copy(),
            "priors": self.statistics.priors.copy(),
            "loops": self.statistics.loops.copy(),
            "word_penalty": self.word_penalty,
        }

    @classmethod
    def restore(cls, state: dict) -> AcousticTask:
        """Return the task whose `state` this is, without any data: `load` some, or transcribe."""
        require(
            state.get("format") == STATE_FORMAT,
            f"the run's acoustic state has format {state.get('format')}, this refimpl reads "
            f"{STATE_FORMAT}: train again",
        )
        settings = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in state["settings"].items()
        }
        pronunciations = {
            word: tuple(tuple(phones) for phones in some)
            for word, some in state["pronunciations"].items()
        }
        task = cls(AcousticSettings(**settings), Lexicon(pronunciations, settings["silence"]))
        for name in ("speakers", "inside"):
            frames, mean, variance = (
                np.asarray(state[f"{name}_{what}"], dtype=np.float64)
                for what in ("frames", "mean", "variance")
            )
            setattr(task, name, Moments(int(frames), mean, variance))
        task.statistics = Statistics(
            np.asarray(state["priors"], dtype=np.float64),
            np.asarray(state["loops"], dtype=np.float64),
        )
        task.word_penalty = float(state["word_penalty"])
        return task
