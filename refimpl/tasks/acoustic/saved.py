"""What is saved of the task with a run: all that evaluating and decoding need, as plain data.

`restored(plain(corpus, recogniser))` is the same corpus without its splits, and the same
recogniser, to the last bit.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from refimpl.support.errors import brief, require, require_types, typed
from refimpl.tasks.acoustic.corpus import Corpus
from refimpl.tasks.acoustic.frontend import Moments
from refimpl.tasks.acoustic.hmm import Statistics
from refimpl.tasks.acoustic.lexicon import PRONUNCIATIONS, Lexicon
from refimpl.tasks.acoustic.recogniser import Recogniser
from refimpl.tasks.acoustic.settings import BOUNDS, AcousticSettings
from refimpl.tasks.acoustic.text import shown

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
        for name in ("priors", "loops"):
            inside = self._numbers(name)
            self._check(bool(((inside > 0) & (inside < 1)).all()), name, "lie between 0 and 1")
        self._check(abs(float(self.priors.sum()) - 1) < 1e-6, "priors", "add up to 1")
        low, high = BOUNDS["word_penalty"]
        self._check(low <= self.word_penalty <= high, "word_penalty", f"be {low:g} to {high:g}")

    def _numbers(self, name: str) -> np.ndarray:
        """Return the array of this name, or refuse it if it is not (n,) finite float64."""
        array = getattr(self, name)
        sound = array.dtype == np.float64 and array.ndim == 1 and bool(np.isfinite(array).all())
        self._check(sound, name, "be a row of finite 64-bit floating-point numbers")
        return array

    def _check(self, condition: bool, name: str, must: str) -> None:
        require(condition, f"{WHAT} {name} is {brief(getattr(self, name))}: it must {must}")


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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("speakers", "inside"):
            least = 0 if name == "speakers" else 1  # 0: cmvn none
            frames = getattr(self, f"{name}_frames")
            self._check(frames >= least, f"{name}_frames", f"be {least} or more")
            self._numbers(f"{name}_mean")
            variance = self._numbers(f"{name}_variance")
            self._check(bool((variance >= 0).all()), f"{name}_variance", "not be negative")
        for word, some in self.pronunciations.items():
            sound = isinstance(some, list) and all(
                isinstance(one, list) and one and all(isinstance(p, str) and p for p in one)
                for one in some
            )
            require(
                sound and 0 < len(some) <= PRONUNCIATIONS,
                f"{WHAT} pronunciations of {shown(word)} are {brief(some)}: rows of phones "
                "are needed",
            )


@dataclass(frozen=True)
class State(Trained):
    """All that changes during a run."""

    targets: np.ndarray  # (frames,) int64, each less than classes
    dev_targets: np.ndarray  # likewise, -1 where a word is unknown; (0,): none

    def __post_init__(self) -> None:
        super().__post_init__()
        most = len(self.priors) - 1
        for name, least in (("targets", 0), ("dev_targets", -1)):
            states = getattr(self, name)
            sound = states.dtype == np.int64 and states.ndim == 1
            sound = sound and bool(((states >= least) & (states <= most)).all())
            self._check(sound, name, f"be a row of 64-bit integers from {least} to {most}")


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

    Raises `UserError` if another version of refimpl wrote it, in another format, or a field of it
    is missing or not what it must be.
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
    for name in ("speakers_mean", "speakers_variance", "inside_mean", "inside_variance"):
        has = len(getattr(one, name))
        require(has == chosen.bands, f"{WHAT} {name} has {has} numbers, one per band is needed")
    require(
        chosen.sample_rate is not None and chosen.silence not in corpus.lexicon.phones[1:],
        f"{WHAT} settings lacks a sample rate, or a word is said with {chosen.silence}",
    )
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
    """Set what `trained` returned; `UserError` if it is for another number of states."""
    for name in ("priors", "loops"):
        has, needs = len(getattr(one, name)), recogniser.states.count
        require(has == needs, f"{WHAT} {name} has {has} numbers: {needs} states need one each")
    recogniser.statistics = Statistics(one.priors, one.loops)
    recogniser.word_penalty = one.word_penalty
