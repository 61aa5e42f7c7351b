"""Phones as hidden Markov models: which states there are, and targets for the network.

Every phone, silence too, is a left-to-right model of three states, its beginning, middle and
end; each takes one frame or more:

         loop    loop    loop
         |  |    |  |    |  |
    ---> [ 0 ] -> [ 1 ] -> [ 2 ] --->        phone number f has states 3f, 3f + 1, 3f + 2

The network's classes are these states.  Before it can be trained each frame needs one: from an
exact alignment where there is one, else from a flat start, which the network, once it has
learned something, corrects (`align.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from refimpl.tasks.acoustic.kaldi import Phones

STATES_PER_PHONE = 3


@dataclass(frozen=True)
class States:
    """The numbering of the states.

    >>> states = States(("sil", "ah", "n"))
    >>> states.count, states.of(("n", "ah")).tolist()
    (9, [6, 7, 8, 3, 4, 5])
    """

    phones: tuple[str, ...]  # silence first

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {phone: number for number, phone in enumerate(self.phones)}

    @property
    def count(self) -> int:
        """The number of classes of the network."""
        return STATES_PER_PHONE * len(self.phones)

    @property
    def silence(self) -> NDArray[np.int64]:
        """The states of silence."""
        return np.arange(STATES_PER_PHONE)

    def first(self, phone: str) -> int:
        """Return the first of a phone's states."""
        return STATES_PER_PHONE * self._numbers[phone]

    def of(self, phones: tuple[str, ...]) -> NDArray[np.int64]:
        """Return the states that a row of phones passes through."""
        numbers = np.array([self._numbers[phone] for phone in phones], dtype=np.int64)
        within = np.arange(STATES_PER_PHONE)
        return (STATES_PER_PHONE * numbers[:, None] + within).ravel()


def exact_targets(
    phones: Phones, states: States, frames: int, shift: float, length: float
) -> NDArray[np.int64]:
    """Return each frame's state according to an exact phone alignment.

    Frame t belongs to what sounds in its middle, at t * shift + length / 2 seconds.  Each
    phone's time is cut into three equal parts, one per state; what no phone covers is silence
    (its middle state).

    >>> states = States(("sil", "ah"))
    >>> alignment = Phones(("ah", "sil"), np.array([0.0, 0.06]), np.array([0.06, 0.09]))
    >>> exact_targets(alignment, states, 9, shift=0.01, length=0.01).tolist()
    [3, 3, 4, 4, 5, 5, 0, 1, 2]
    """
    middle = np.arange(frames) * shift + length / 2
    start, end = phones.starts, phones.ends
    first = np.array([states.first(name) for name in phones.names])
    # Phone k is the last that has begun.  The nanosecond keeps decimal times, which binary
    # numbers miss by a rounding, from moving a boundary that falls on a frame's middle.
    k = np.searchsorted(start, middle + 1e-9, side="right") - 1
    into = (middle + 1e-9 - start[k]) / np.maximum(end[k] - start[k], 1e-9)
    part = np.clip(np.floor(STATES_PER_PHONE * into), 0, STATES_PER_PHONE - 1).astype(np.int64)
    covered = (k >= 0) & (middle < end[k])
    return np.where(covered, first[k] + part, states.silence[1])


def equal_division(states: NDArray[np.int64], frames: int) -> NDArray[np.int64]:
    """Return `states` stretched over so many frames, each to equal length up to one frame.

    >>> equal_division(np.array([7, 8, 9]), 7).tolist()
    [7, 7, 7, 8, 8, 9, 9]
    """
    return states[np.arange(frames) * len(states) // frames]


def flat_start(
    said: NDArray[np.int64], states: States, features: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Return first targets: silence where it is quiet at both ends, equal division between.

    Where speech begins and ends is read off the frames' loudness, the mean over their bands:
    it begins at the first frame above the quietest's plus a third of the range from there to
    the loudest, and likewise ends.  A quiet end shorter than silence's three states counts as
    speech, as does any that speech needs to hold its own states.

    ``said`` (n,): the states of the words, without silence.  n <= frames.  ``features`` (frames,
    bands): normalised log-mel energies.
    """
    frames, quiet = len(features), len(states.silence)
    loudness = features.mean(axis=1)
    threshold = loudness.min() + (loudness.max() - loudness.min()) / 3
    loud = np.flatnonzero(loudness >= threshold)
    begin = loud[0] if loud[0] >= quiet else 0
    end = loud[-1] + 1 if frames - (loud[-1] + 1) >= quiet else frames
    if end - begin < len(said):
        begin, end = 0, frames
    return np.concatenate(
        [
            equal_division(states.silence, begin),
            equal_division(said, end - begin),
            equal_division(states.silence, frames - end),
        ]
    )


@dataclass(frozen=True)
class Statistics:
    """What the training alignment says of the states: how frequent they are, how long they last.

    priors : (classes,) float64
        p(s) = (frames in s + 1) / (frames + classes): one frame is added to each, so that a
        state nobody was in has a probability too.
    loops : (classes,) float64
        Probability to stay, (frames - visits + 1) / (frames + 2): with d frames per visit it
        tends to 1 - 1/d, the geometric distribution of that mean, and it is never 0 or 1.
    """

    priors: NDArray[np.float64]
    loops: NDArray[np.float64]

    @property
    def log_stay(self) -> NDArray[np.float64]:
        """log p(stay)."""
        return np.log(self.loops)

    @property
    def log_move(self) -> NDArray[np.float64]:
        """log p(move on)."""
        return np.log1p(-self.loops)


def statistics(labels: NDArray[np.int64], offsets: NDArray[np.int64], classes: int) -> Statistics:
    """Count states over the frames of all utterances.

    >>> s = statistics(np.array([0, 0, 0, 1, 0]), np.array([0, 4, 5]), 2)
    >>> s.priors.tolist(), s.loops.tolist()
    ([0.7142857142857143, 0.2857142857142857], [0.5, 0.3333333333333333])
    """
    begins = np.ones(len(labels), dtype=bool)
    begins[1:] = labels[1:] != labels[:-1]
    begins[offsets[:-1]] = True
    frames = np.bincount(labels, minlength=classes)
    visits = np.bincount(labels[begins], minlength=classes)
    return Statistics(
        priors=(frames + 1.0) / (len(labels) + classes),
        loops=(frames - visits + 1.0) / (frames + 2.0),
    )
