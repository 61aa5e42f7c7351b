"""The acoustic task, as the trainer sees it: frames to train on, targets that improve, scores.

    Corpus        (`corpus.py`)      recordings -> frames, first targets
    Recogniser    (`recogniser.py`)  the network's outputs -> new targets, words, scores
    plain         (`saved.py`)       both -> what is saved with a run

Here they meet, and priors and durations follow the training targets whenever these change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from refimpl.support.errors import require, typed
from refimpl.tasks.acoustic.builtin import builtin_corpus
from refimpl.tasks.acoustic.corpus import Corpus, Split, data_directories
from refimpl.tasks.acoustic.discriminant import linear_discriminant
from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.acoustic.features import default_cache
from refimpl.tasks.acoustic.fingerprint import refuse_others
from refimpl.tasks.acoustic.hmm import Statistics, statistics
from refimpl.tasks.acoustic.kaldi import Utterance
from refimpl.tasks.acoustic.recogniser import Recogniser
from refimpl.tasks.acoustic.saved import WHAT, State, plain, restored, set_trained, trained
from refimpl.tasks.acoustic.score import WordErrors
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.protocol import Outputs, Say, Words
from refimpl.world.communicator import Communicator


class AcousticTask:
    """Frame classification into HMM states, scored by frame and by word.

    ``inputs``, ``classes``: width of the network's input and output.
    """

    Settings: ClassVar[type] = AcousticSettings
    words: ClassVar[Words] = Words("frames", "FER")

    def __init__(self, corpus: Corpus, recogniser: Recogniser) -> None:
        self.corpus, self.recogniser = corpus, recogniser
        self.inputs = (2 * corpus.settings.context + 1) * corpus.settings.bands
        self.classes = corpus.states.count

    @classmethod
    def prepare(
        cls, comm: Communicator, settings: AcousticSettings, data: str | None, say: Say
    ) -> AcousticTask:
        """Return the task of a corpus, or of the built-in one if no folder is given.

        Features are kept in the `default_cache`.  Collective.
        """
        cache = default_cache()
        directory = Path(data) if data else builtin_corpus(comm, cache, say)
        return cls.read(comm, directory, settings, cache)

    @classmethod
    def read(
        cls,
        comm: Communicator,
        directory: str | Path,
        settings: AcousticSettings,
        cache: Path | None,
    ) -> AcousticTask:
        """Return the task of a corpus: features of all splits, first targets for training.

        Collective.  `cache`: the folder where features are kept, or None.

        Raises `UserError` if anything is wrong with the corpus; on every rank.
        """
        corpus = Corpus.read(comm, directory, settings, cache)
        task = cls(corpus, Recogniser(settings, corpus.lexicon, corpus.states))
        task._count()
        if not corpus.exact:
            for _ in range(settings.flat_passes):
                first = linear_discriminant(comm, task.train, task.statistics.priors)
                task._align_train(first, comm)
        if task.splits["dev"].exact is None:
            last = linear_discriminant(comm, task.train, task.statistics.priors)
            task._align_dev(last, comm)
        return task

    @property
    def settings(self) -> AcousticSettings:
        """All choices, and the sample rate of the data."""
        return self.corpus.settings

    @property
    def splits(self) -> dict[str, Split]:
        """By name: train, dev and test after `prepare`, and what `load` added."""
        return self.corpus.splits

    @property
    def train(self) -> Frames:
        """The training examples; their targets change with `realign`."""
        return self.splits["train"].frames

    @property
    def notes(self) -> list[str]:
        """What there is to say of the data."""
        return self.corpus.notes

    @property
    def statistics(self) -> Statistics:
        """Priors and durations of the states by the training targets."""
        return self.recogniser.statistics

    # --------------------------------------------------------------- targets

    def realign_after(self, epoch: int) -> bool:
        """Tell whether the trainer should call `realign` after this epoch (the first is 1)."""
        return not self.corpus.exact and epoch in self.settings.realign_epochs

    def realign(self, outputs: Outputs, comm: Communicator) -> float:
        """Re-align the training targets with the network; return the share that changed.

        Priors and durations are estimated anew from the result, and dev is aligned anew, too.
        Collective; does nothing and returns 0 if the targets are exact.
        """
        if self.corpus.exact:
            return 0.0
        self._align_dev(outputs, comm)
        return self._align_train(outputs, comm)

    def _align_train(self, outputs: Outputs, comm: Communicator) -> float:
        """Re-align the training targets, and count them; return the share that changed."""
        targets = self.recogniser.forced_alignment(self.splits["train"], outputs, comm)
        changed = np.count_nonzero(targets != self.train.labels) / self.train.count
        self.train.labels = targets
        self._count()
        return changed

    def _align_dev(self, outputs: Outputs, comm: Communicator) -> None:
        """Hold dev to this network's alignment until the next, so that losses can be compared."""
        dev = self.splits["dev"]
        if dev.exact is None:
            dev.aligned = self.recogniser.forced_alignment(dev, outputs, comm)

    def _count(self) -> None:
        """Estimate priors and durations from the training targets."""
        labels, offsets = self.train.labels, self.train.offsets
        self.recogniser.statistics = statistics(labels, offsets, self.classes)

    # ---------------------------------------------------------------- scores

    def evaluate(
        self, name: str, outputs: Outputs, comm: Communicator, words: bool = True
    ) -> dict:
        """Return the scores of split `name`: see `Recogniser.evaluate`.  Collective."""
        return self.recogniser.evaluate(self.splits[name], outputs, comm, words)

    def tune(self, outputs: Outputs, comm: Communicator) -> dict[float, WordErrors]:
        """Choose the word penalty on dev: see `Recogniser.tune`.  Collective.

        From now on dev, like test, is scored against the alignment of who is scored.
        """
        self.splits["dev"].aligned = None
        return self.recogniser.tune(self.splits["dev"], outputs, comm)

    def transcribe(
        self, wavs: list[str], outputs: Outputs, comm: Communicator
    ) -> list[tuple[str, ...]]:
        """Return the words of each wav file, whose speaker is unknown.  Collective."""
        refuse_others(comm, map(Path, wavs))
        utterances = [Utterance(path, None, None, path) for path in wavs]
        frames, _ = self.corpus.frames(comm, utterances, None)
        return self.recogniser.transcribe(frames, outputs, comm)

    # ----------------------------------------------------------------- state

    def state(self) -> dict[str, Any]:
        """Return what changes during a run, as copies: targets, what is counted from them, tuned.

        Features, the lexicon and all else come from the data and the settings again.
        """
        aligned = self.splits["dev"].aligned
        dev = np.empty(0, dtype=np.int64) if aligned is None else aligned.copy()
        targets = {"targets": self.train.labels.copy(), "dev_targets": dev}
        return targets | trained(self.recogniser)

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, on the same data.

        Raises `UserError` if something is missing, or of another length: the data are others.
        """
        one = typed(State, state, WHAT)
        require(
            one.targets.shape == self.train.labels.shape,
            f"{WHAT} targets has {one.targets.size} frames but the training data have "
            f"{self.train.count}: continue with the data that it began with",
        )
        dev = self.splits["dev"]
        require(
            one.dev_targets.size in (0, dev.frames.count),
            f"{WHAT} dev_targets has {one.dev_targets.size} frames but the dev data have "
            f"{dev.frames.count}: continue with the data that it began with",
        )
        set_trained(self.recogniser, one)
        if not np.array_equal(self.train.labels, one.targets):  # exact ones are equal, and shared
            self.train.labels = one.targets.copy()
        dev.aligned = one.dev_targets.copy() if one.dev_targets.size else None

    def saved(self) -> dict:
        """Return, as plain data and arrays, all that evaluating and decoding need."""
        return plain(self.corpus, self.recogniser)

    @classmethod
    def restore(cls, saved: dict) -> AcousticTask:
        """Return the task that `saved` this, without any data: `load` some, or transcribe."""
        return cls(*restored(saved))

    def load_own(self, comm: Communicator, data: str | None, say: Say) -> list[str]:
        """Add dev and test of the corpus that a run was trained on.  Collective."""
        cache = default_cache()
        directory = Path(data) if data else builtin_corpus(comm, cache, say)
        for name in ("dev", "test"):
            self.load(comm, name, directory / name, cache)
        return ["dev", "test"]

    @staticmethod
    def folders(directory: str | Path) -> list[str]:
        """Return the data directories at `directory`: itself, or else those in it."""
        return data_directories(directory)

    def load(
        self, comm: Communicator, name: str, directory: str | Path, cache: Path | None
    ) -> None:
        """Add a data directory as split `name`: see `Corpus.load`.  Collective."""
        self.corpus.load(comm, name, directory, cache)
