"""What is saved of the task with a run: all that evaluating and decoding need, as plain data.

`restored(plain(corpus, recogniser))` is the same corpus without its splits, and the same
recogniser, to the last bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from refimpl.support.errors import require, require_types, typed
from refimpl.tasks.acoustic.corpus import Corpus
from refimpl.tasks.acoustic.frontend import Moments
from refimpl.tasks.acoustic.hmm import Statistics
from refimpl.tasks.acoustic.lexicon import Lexicon
from refimpl.tasks.acoustic.recogniser import Recogniser
from refimpl.tasks.acoustic.settings import AcousticSettings

FORMAT = 1
WHAT = "acoustic value"


@dataclass(frozen=True)
class Trained:
    """What training changes of a recogniser."""

    priors: np.ndarray  # (classes,) float64, as in `Statistics`
    loops: np.ndarray
    word_penalty: float

    def __post_init__(self) -> None:
        require_types(self, WHAT)


@dataclass(frozen=True)
class Saved(Trained):
    """All that is saved; `Moments` of the bands, (bands,) float64."""

    format: int
    settings: dict[str, Any]
    pronunciations: dict[str, Any]
    speakers_frames: int
    speakers_mean: np.ndarray
    speakers_variance: np.ndarray
    inside_frames: int
    inside_mean: np.ndarray
    inside_variance: np.ndarray


@dataclass(frozen=True)
class State(Trained):
    """All that changes during a run."""

    targets: np.ndarray  # (frames,) int64


def plain(corpus: Corpus, recogniser: Recogniser) -> dict[str, Any]:
    """Return a dict of JSON's types and float64 arrays, none of which is changed later."""
    return {
        "format": FORMAT,
        "settings": asdict(corpus.settings),
        "pronunciations": {
            word: [list(phones) for phones in some]
            for word, some in corpus.lexicon.pronunciations.items()
        },
        "speakers_frames": corpus.speakers.frames,
        "speakers_mean": corpus.speakers.mean.copy(),
        "speakers_variance": corpus.speakers.variance.copy(),
        "inside_frames": corpus.inside.frames,
        "inside_mean": corpus.inside.mean.copy(),
        "inside_variance": corpus.inside.variance.copy(),
        **trained(recogniser),
    }


def restored(saved: dict[str, Any]) -> tuple[Corpus, Recogniser]:
    """Return what `plain` was given, without any data.

    Raises
    ------
    UserError
        If another version of refimpl wrote it, in another format, or a field of it is missing
        or not what it must be.
    """
    require(
        saved.get("format") == FORMAT,
        f"the run's acoustic state has format {saved.get('format')}, this refimpl reads "
        f"{FORMAT}: train again",
    )
    one = typed(Saved, saved, WHAT)
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in one.settings.items()
    }
    pronunciations = {
        word: tuple(tuple(phones) for phones in some) for word, some in one.pronunciations.items()
    }
    chosen = typed(AcousticSettings, settings, "acoustic setting")
    corpus = Corpus(chosen, Lexicon(pronunciations, chosen.silence))
    corpus.speakers = Moments(one.speakers_frames, one.speakers_mean, one.speakers_variance)
    corpus.inside = Moments(one.inside_frames, one.inside_mean, one.inside_variance)
    recogniser = Recogniser(corpus.settings, corpus.lexicon, corpus.states)
    set_trained(recogniser, one)
    return corpus, recogniser


def trained(recogniser: Recogniser) -> dict[str, Any]:
    """Return what training changes of a recogniser."""
    return {
        "priors": recogniser.statistics.priors.copy(),
        "loops": recogniser.statistics.loops.copy(),
        "word_penalty": recogniser.word_penalty,
    }


def set_trained(recogniser: Recogniser, one: Trained) -> None:
    """Set what `trained` returned."""
    recogniser.statistics = Statistics(one.priors, one.loops)
    recogniser.word_penalty = one.word_penalty
