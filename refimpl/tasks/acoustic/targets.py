"""The first targets: a state for each frame of transcribed utterances, before any network.

    the words' phones are in the lexicon?    check_words
    each state of the words gets a frame?    check_lengths
    where there is an exact alignment        exact_alignment: the states that truly sound
    where there is none                      flat_alignment: silence, equal division, silence

Rows of all utterances stand one behind the other, utterance u in [offsets[u], offsets[u + 1]).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import listed, require
from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.acoustic.hmm import STATES_PER_PHONE, States, exact_targets, flat_start
from refimpl.tasks.acoustic.kaldi import Utterance
from refimpl.tasks.acoustic.lexicon import Lexicon


def check_words(utterances: list[Utterance], directory: Path, lexicon: Lexicon) -> None:
    """Raise `UserError` if the lexicon lacks a word, or a phone of an exact alignment."""
    phones = lexicon.phones
    for one in utterances:
        assert one.words is not None
        for word in one.words:
            require(
                word in lexicon.pronunciations,
                f"word {word} of utterance {one.name} in {directory / 'text'} is not in "
                "the lexicon: add a line with its phones to lexicon.txt, and train again",
            )
        for phone in one.phones or ():
            require(
                phone.name in phones,
                f"phone {phone.name} of utterance {one.name} in {directory / 'ctm'} is in "
                f"no word of the lexicon: it knows {listed(phones)}",
            )


def check_lengths(
    utterances: list[Utterance], offsets: NDArray[np.int64], lexicon: Lexicon
) -> None:
    """Raise `UserError` if an utterance has fewer frames than its words have states."""
    for one, frames in zip(utterances, np.diff(offsets).tolist(), strict=True):
        assert one.words is not None
        need = STATES_PER_PHONE * lexicon.fewest_phones(one.words)
        require(
            frames >= need,
            f"utterance {one.name} has {frames} frames but its words "
            f"({' '.join(one.words)}) have {need} states, each of one frame or more: "
            "remove it, or check its transcript",
        )


def exact_alignment(
    utterances: list[Utterance],
    offsets: NDArray[np.int64],
    states: States,
    shift: float,
    length: float,
) -> NDArray[np.int64] | None:
    """Return all frames' states by the `ctm`, or None if any utterance is not in one.

    shift, length: seconds from frame to frame and of a frame, as the front end truly has them.
    """
    parts = []
    for one, frames in zip(utterances, np.diff(offsets).tolist(), strict=True):
        if one.phones is None:
            return None
        parts.append(exact_targets(one.phones, states, frames, shift, length))
    return np.concatenate(parts)


def flat_alignment(
    utterances: list[Utterance], frames: Frames, lexicon: Lexicon, states: States
) -> NDArray[np.int64]:
    """Return all frames' states by `flat_start`, after `check_lengths`.

    Of several pronunciations each word is given the first, or, in an utterance too short for
    these, its shortest.
    """
    parts = []
    for u, one in enumerate(utterances):
        assert one.words is not None
        spoken = [lexicon.pronunciations[word] for word in one.words]
        first = tuple(phone for some in spoken for phone in some[0])
        shortest = tuple(phone for some in spoken for phone in min(some, key=len))
        features = frames.features[frames.offsets[u] : frames.offsets[u + 1]]
        fits = STATES_PER_PHONE * len(first) <= len(features)
        parts.append(flat_start(states.of(first if fits else shortest), states, features))
    return np.concatenate(parts)
