"""The first targets: a state for each frame of transcribed utterances, before any network.

    which words does the lexicon lack?       unknown_words
    the alignment's phones are in it?        check_phones
    do they sound in their utterances?       check_times
    each state of the words gets a frame?    check_lengths
    where there is an exact alignment        exact_alignment: the states that truly sound
    where there is none                      flat_alignment: silence, equal division, silence

Whatever they are made by, rank 0 does it and `once_per_node` sends them.

Rows of all utterances stand one behind the other, utterance u in [offsets[u], offsets[u + 1]).
"""

from __future__ import annotations

from collections.abc import Callable, Container
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import UserError, listed, require
from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.acoustic.hmm import STATES_PER_PHONE, States, exact_targets, flat_start
from refimpl.tasks.acoustic.kaldi import Utterance
from refimpl.tasks.acoustic.lexicon import Lexicon
from refimpl.tasks.acoustic.text import shown
from refimpl.tasks.faults import SHOWN, Faults
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator
from refimpl.world.pernode import room, sent_once


def unknown_words(utterances: list[Utterance], lexicon: Lexicon) -> dict[int, list[str]]:
    """Return the words that the lexicon lacks, by the number of the utterance that has any."""
    unknown = {}
    for u, one in enumerate(utterances):
        lacks = [word for word in one.said if word not in lexicon.pronunciations]
        if lacks:
            unknown[u] = lacks
    return unknown


def refuse_words(
    utterances: list[Utterance], directory: Path, unknown: dict[int, list[str]]
) -> None:
    """Raise `UserError` if there are any `unknown_words`: none can be trained on."""
    faults = Faults()
    for u, words in unknown.items():
        one = utterances[u]
        for word in words:
            with faults.collected():
                raise UserError(
                    f"{directory / 'text'}:{one.line}: word {shown(word)} of utterance "
                    f"{shown(one.name)} is not in the lexicon: add a line with its phones to "
                    "lexicon.txt, and train again"
                )
    faults.refuse()


def note_on_words(directory: Path, unknown: dict[int, list[str]], exact: bool) -> str:
    """Return what to say of `unknown_words` in data that are only scored."""
    words = [word for some in unknown.values() for word in some]
    seen = list(dict.fromkeys(words))
    named = ", ".join(map(shown, seen[:SHOWN])) + (", ..." if len(seen) > SHOWN else "")
    note = (
        f"{directory / 'text'}: {len(words)} words in {len(unknown)} utterances are not in the "
        f"lexicon ({named}): each counts as an error"
    )
    return note if exact else f"{note}; frames of these utterances are not scored"


def check_phones(utterances: list[Utterance], directory: Path, lexicon: Lexicon) -> None:
    """Raise `UserError` if the lexicon lacks a phone of an exact alignment."""
    phones, faults = set(lexicon.phones), Faults()
    for one in utterances:
        for phone in one.phones.names if one.phones else ():
            if phone in phones:
                continue
            with faults.collected():
                raise UserError(
                    f"phone {shown(phone)} of utterance {shown(one.name)} in "
                    f"{directory / 'ctm'} is in no word of the lexicon: it knows "
                    f"{shown(listed(phones), 1000)}"
                )
    faults.refuse()


def check_times(
    utterances: list[Utterance],
    directory: Path,
    offsets: NDArray[np.int64],
    shift: float,
    length: float,
) -> None:
    """Raise `UserError` if exactly aligned phones end behind their utterance, or overlap.

    Less than a frame is none of both: times are rounded.

    shift, length: as in `exact_alignment`.
    """
    faults, ctm = Faults(), directory / "ctm"
    for one, frames in zip(utterances, np.diff(offsets).tolist(), strict=True):
        assert one.phones is not None
        names, starts, ends = one.phones
        end, last = frames * shift + length, ends.max()
        with faults.collected():
            require(
                last <= end + length,
                f"phones of utterance {shown(one.name)} in {ctm} end at {last:.10g} s but it is "
                f"{end:.2f} s long: give seconds from the utterance's start",
            )
            early = np.flatnonzero(starts[1:] < ends[:-1] - length)
            for k in early[:1].tolist():
                raise UserError(
                    f"phone {shown(names[k + 1])} of utterance {shown(one.name)} in {ctm} starts "
                    f"at {starts[k + 1]:.10g} s, before {shown(names[k])} ends at "
                    f"{ends[k]:.10g} s: one phone sounds at a time"
                )
    faults.refuse()


def check_lengths(
    utterances: list[Utterance],
    offsets: NDArray[np.int64],
    lexicon: Lexicon,
    but: Container[int] = (),
) -> None:
    """Raise `UserError` if an utterance has fewer frames than its words have states.

    but: numbers of utterances that are left out.
    """
    faults = Faults()
    for u, (one, frames) in enumerate(zip(utterances, np.diff(offsets).tolist(), strict=True)):
        if u in but:
            continue
        need = STATES_PER_PHONE * lexicon.fewest_phones(one.said)
        with faults.collected():
            require(
                frames >= need,
                f"utterance {shown(one.name)} has {frames} frames but its words "
                f"({shown(' '.join(one.said))}) have {need} states, each of one frame or more: "
                "remove it, or check its transcript",
            )
    faults.refuse()


def exact_alignment(
    utterances: list[Utterance],
    offsets: NDArray[np.int64],
    states: States,
    shift: float,
    length: float,
    out: NDArray[np.int64],
) -> None:
    """Set out (offsets[-1],) to all frames' states by the utterances' phones, which all have.

    shift, length: seconds from frame to frame and of a frame, as the front end truly has them.
    """
    for u, one in enumerate(utterances):
        assert one.phones is not None
        some = out[offsets[u] : offsets[u + 1]]
        some[:] = exact_targets(one.phones, states, len(some), shift, length)


def flat_alignment(
    utterances: list[Utterance],
    frames: Frames,
    lexicon: Lexicon,
    states: States,
    out: NDArray[np.int64],
) -> None:
    """Set out (frames.count,) to all frames' states by `flat_start`, after `check_lengths`.

    Of several pronunciations each word is given the first, or, in an utterance too short for
    these, its shortest.
    """
    for u, one in enumerate(utterances):
        spoken = [lexicon.pronunciations[word] for word in one.said]
        first = tuple(phone for some in spoken for phone in some[0])
        shortest = tuple(phone for some in spoken for phone in min(some, key=len))
        rows = slice(*frames.offsets[u : u + 2])
        fits = STATES_PER_PHONE * len(first) <= rows.stop - rows.start
        said = states.of(first if fits else shortest)
        out[rows] = flat_start(said, states, frames.features[rows])


def once_per_node(
    comm: Communicator, frames: int, fill: Callable[[NDArray[np.int64]], object]
) -> NDArray[np.int64]:
    """Return all frames' states, which `fill` sets on rank 0, once per node.  Collective."""
    states = None
    with together(comm):
        if comm.rank == 0:
            fill(states := room(comm, (frames,), np.int64))
    return sent_once(comm, states, (frames,), np.int64)
