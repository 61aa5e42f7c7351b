"""A corpus: data directories become frames, normalised alike, with targets to train on.

    DIR/train  DIR/dev  DIR/test    data directories (`kaldi.py`)
    DIR/lexicon.txt                 their words' phones (`lexicon.py`)

What frames are normalised by is measured once, on the training data, which therefore come
first; whatever is loaded later, dev, test or another corpus, is normalised by the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import require
from refimpl.tasks.acoustic import fingerprint
from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.acoustic.features import Clipped, Found, log_mel_features, sent
from refimpl.tasks.acoustic.frontend import Moments, average, grouped, moments, normalise
from refimpl.tasks.acoustic.hmm import States
from refimpl.tasks.acoustic.kaldi import Utterance, read_data_directory
from refimpl.tasks.acoustic.lexicon import Lexicon, read_lexicon
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.targets import (
    check_lengths,
    check_phones,
    check_times,
    exact_alignment,
    flat_alignment,
    note_on_words,
    once_per_node,
    refuse_words,
    unknown_words,
)
from refimpl.tasks.faults import Faults
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator


@dataclass
class Split:
    """A data directory, ready for the network."""

    utterances: list[Utterance]
    frames: Frames
    exact: NDArray[np.int64] | None  # states by the exact alignment, if there is one to be used
    unknown: frozenset[int] = frozenset()  # utterances with a word that the lexicon lacks
    aligned: NDArray[np.int64] | None = None  # what stands in for `exact` between re-alignments


class Corpus:
    """The splits, and what a further one needs to become frames of the same kind.

    Attributes
    ----------
    settings : AcousticSettings
        As given; its `sample_rate` is that of the data as soon as there are some.
    lexicon, states : Lexicon, States
        Of all splits.
    speakers, inside : Moments
        The training speakers' average, and moments of the training features after CMVN; of 0
        frames until they are measured.
    splits : dict of name -> Split
        "train", "dev", "test" after `read`; what `load` added.
    notes : list of str
        What there is to say of the data, one line each.
    """

    def __init__(self, settings: AcousticSettings, lexicon: Lexicon) -> None:
        self.settings, self.lexicon = settings, lexicon
        self.states = States(lexicon.phones)
        nothing = Moments(0, np.zeros(settings.bands), np.ones(settings.bands))
        self.speakers = nothing
        self.inside = nothing
        self.splits: dict[str, Split] = {}
        self.notes: list[str] = []

    @classmethod
    def read(
        cls,
        comm: Communicator,
        directory: str | Path,
        settings: AcousticSettings,
        cache: Path | None,
    ) -> Corpus:
        """Return the corpus of a folder: frames of all splits, first targets for training.

        Raises `UserError` if anything is wrong with the corpus; on every rank.  Collective.
        """
        folder, lexicon, faults = Path(directory), None, Faults()
        texts: dict[str, list[Utterance]] = {}  # on rank 0
        with together(comm):
            if comm.rank == 0:
                require(
                    folder.is_dir(),
                    f"no corpus folder {folder}: it needs folders train, dev and test and "
                    "lexicon.txt",
                )
                with faults.collected():
                    lexicon = read_lexicon(folder / "lexicon.txt", settings.silence)
                for name in ("train", "dev", "test"):  # all text first: it is read in no time
                    with faults.collected():
                        texts[name] = read_data_directory(folder / name)
                faults.refuse()
        fingerprint.refuse_others(comm, [folder / "lexicon.txt"])
        corpus = cls(settings, comm.bcast_object(lexicon, root=0))
        for name in ("train", "dev", "test"):
            corpus.load(comm, name, folder / name, cache, texts.pop(name, None))

        train = corpus.splits["train"]
        if corpus.exact:
            assert train.exact is not None
            train.frames.labels = train.exact
        else:
            how = train.utterances, train.frames, corpus.lexicon, corpus.states
            train.frames.labels = once_per_node(
                comm, train.frames.count, lambda out: flat_alignment(*how, out=out)
            )
        return corpus

    @property
    def exact(self) -> bool:
        """Whether training targets are exact, so that there is nothing to re-align."""
        return self.splits["train"].exact is not None

    def load(
        self,
        comm: Communicator,
        name: str,
        directory: str | Path,
        cache: Path | None,
        utterances: list[Utterance] | None = None,
    ) -> None:
        """Add a data directory as split `name`; "train" is to be trained on.

        `utterances`: the directory's, if rank 0 has read it already.

        Raises `UserError` as `read_data_directory` and `log_mel_features`; or if a word to train
        on is not in the lexicon, an utterance has fewer frames than its words have states, or an
        exact alignment has phones that the lexicon lacks or times that its utterance has not.
        Collective.
        """
        folder = Path(directory)
        with together(comm):
            if comm.rank == 0:
                utterances = utterances or read_data_directory(folder)
                if self.settings.alignment != "flat":
                    check_phones(utterances, folder, self.lexicon)
                if name == "train":
                    refuse_words(utterances, folder, unknown_words(utterances, self.lexicon))
        aligned = utterances or []  # on rank 0, which alone needs the phones: states say it all
        utterances = comm.bcast_object([one._replace(phones=None) for one in aligned], root=0)
        fingerprint.refuse_others(comm, fingerprint.of_directory(folder, utterances))
        unknown = unknown_words(utterances, self.lexicon)
        frames, clipped = self.frames(comm, utterances, cache)
        if clipped.segments:
            self.notes.append(
                f"{folder / 'segments'}: {clipped.segments} ends lie up to "
                f"{1000 * clipped.seconds:.3g} ms behind their recordings', less than a frame: "
                "cut there"
            )

        exact, alignment = None, self.settings.alignment
        if alignment != "flat":
            exact = self._exact(comm, folder, aligned, frames.offsets)
        require(
            exact is not None or name != "train" or alignment != "exact",
            f"data directory {directory} has no ctm: exact alignment needs one "
            "(or choose alignment auto or flat)",
        )
        if exact is None:
            check_lengths(utterances, frames.offsets, self.lexicon, but=unknown)
        if unknown:
            self.notes.append(note_on_words(folder, unknown, exact is not None))
            require(
                exact is not None or len(unknown) < len(utterances),
                f"{self.notes[-1]}, and there are no others: give data with words of the lexicon",
            )
        self.splits[name] = Split(utterances, frames, exact, frozenset(unknown))

    def _exact(
        self,
        comm: Communicator,
        folder: Path,
        aligned: list[Utterance],
        offsets: NDArray[np.int64],
    ) -> NDArray[np.int64] | None:
        """Return all frames' states by rank 0's phones, once per node; None if it lacks some."""
        if not comm.bcast_object(all(one.phones is not None for one in aligned)):
            return None
        rate = self.settings.sample_rate
        assert rate is not None  # `frames` has set it
        length, shift = (samples / rate for samples in self.settings.frame(rate))

        def fill(out: NDArray[np.int64]) -> None:
            check_times(aligned, folder, offsets, shift, length)
            exact_alignment(aligned, offsets, self.states, shift, length, out)

        return once_per_node(comm, int(offsets[-1]), fill)

    def frames(
        self, comm: Communicator, utterances: list[Utterance], cache: Path | None
    ) -> tuple[Frames, Clipped]:
        """Return the utterances' frames, log-mel energies y, normalised twice; what was clipped.

        Each speaker's become mean 0 and variance 1 (CMVN; docs/acoustic.md), then all are
        shifted and scaled as makes the training data's bands have mean 0 and variance 1.
        Someone whose name is not known speaks one utterance.  Collective.
        """
        found = log_mel_features(comm, utterances, self.settings, cache)
        if found is not None:  # on rank 0: the others wait asleep
            self._normalise(utterances, found)
        self.speakers, self.inside = comm.bcast_object((self.speakers, self.inside))
        rate, offsets, features, clipped = sent(comm, found, self.settings.bands)
        self.settings = replace(self.settings, sample_rate=rate)
        return Frames(features, offsets, self.settings.context), clipped

    def _normalise(self, utterances: list[Utterance], found: Found) -> None:
        """Normalise the utterances' features, in place, by what is measured first if need be."""
        features, offsets = found.features, found.offsets
        if self.settings.cmvn != "none":
            by_speaker = self.settings.cmvn == "speaker"
            keys = [
                one.speaker if by_speaker and one.speaker else u
                for u, one in enumerate(utterances)
            ]
            groups = grouped(features, offsets, keys)
            if not self.speakers.frames:  # these are the training data
                self.speakers = average(groups)
            normalise(groups, self.speakers, self.settings.cmvn_prior)
        if not self.inside.frames:
            self.inside = moments(np.split(features, offsets[1:-1]))
        features -= self.inside.mean.astype(np.float32)
        features /= self.inside.deviation.astype(np.float32)


def data_directories(directory: str | Path) -> list[str]:
    """Return the data directories at `directory`: itself, or else those in it."""
    folder = Path(directory)
    found = sorted(folder.glob("wav.scp")) or sorted(folder.glob("*/wav.scp"))
    require(
        bool(found),
        f"no data directory in {folder}: give a folder with wav.scp, text and utt2spk, or a "
        "folder of such folders",
    )
    return [str(file.parent) for file in found]
