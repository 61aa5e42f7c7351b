"""What is saved of the task with a run: all that evaluating and decoding need, as plain data.

`restored(plain(corpus, recogniser))` is the same corpus without its splits, and the same
recogniser, to the last bit.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from refimpl.support.errors import require
from refimpl.tasks.acoustic.corpus import Corpus
from refimpl.tasks.acoustic.frontend import Moments
from refimpl.tasks.acoustic.hmm import Statistics
from refimpl.tasks.acoustic.lexicon import Lexicon
from refimpl.tasks.acoustic.recogniser import Recogniser
from refimpl.tasks.acoustic.settings import AcousticSettings

FORMAT = 1


def plain(corpus: Corpus, recogniser: Recogniser) -> dict:
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


def restored(state: dict) -> tuple[Corpus, Recogniser]:
    """Return what `plain` was given, without any data.

    Raises
    ------
    UserError
        If another version of refimpl wrote it, in another format.
    """
    require(
        state.get("format") == FORMAT,
        f"the run's acoustic state has format {state.get('format')}, this refimpl reads "
        f"{FORMAT}: train again",
    )
    settings = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in state["settings"].items()
    }
    pronunciations = {
        word: tuple(tuple(phones) for phones in some)
        for word, some in state["pronunciations"].items()
    }
    corpus = Corpus(AcousticSettings(**settings), Lexicon(pronunciations, settings["silence"]))
    corpus.speakers = _moments(state, "speakers")
    corpus.inside = _moments(state, "inside")
    recogniser = Recogniser(corpus.settings, corpus.lexicon, corpus.states)
    set_trained(recogniser, state)
    return corpus, recogniser


def trained(recogniser: Recogniser) -> dict:
    """Return what training changes of a recogniser."""
    return {
        "priors": recogniser.statistics.priors.copy(),
        "loops": recogniser.statistics.loops.copy(),
        "word_penalty": recogniser.word_penalty,
    }


def set_trained(recogniser: Recogniser, state: dict) -> None:
    """Set what `trained` returned."""
    recogniser.statistics = Statistics(
        np.asarray(state["priors"], dtype=np.float64),
        np.asarray(state["loops"], dtype=np.float64),
    )
    recogniser.word_penalty = float(state["word_penalty"])


def _moments(state: dict, name: str) -> Moments:
    """Return the moments saved under this name."""
    mean = np.asarray(state[f"{name}_mean"], dtype=np.float64)
    variance = np.asarray(state[f"{name}_variance"], dtype=np.float64)
    return Moments(int(state[f"{name}_frames"]), mean, variance)
