"""Speakers: what one voice, one room and one microphone keep through all their utterances."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refimpl.numerics.rng import stream
from refimpl.tasks.acoustic.synth.phones import PHONES

KINDS = {"man": (118.0, 1.00), "woman": (205.0, 1.16), "child": (270.0, 1.28)}  # pitch, tract


@dataclass(frozen=True)
class Speaker:
    """One speaker with a room and a microphone.  Frequencies in hertz, levels in decibels."""

    kind: str  # man, woman or child
    pitch: float  # average fundamental frequency
    lilt: float  # size of the pitch movements, semitones
    tract: float  # factor on all formants: a short vocal tract has high ones
    space: NDArray[np.float64]  # (phones, 3) factors on F1, F2, F3 of each phone: the accent
    upper: NDArray[np.float64]  # (3,) F4, F5, F6, which do not move
    pace: float  # factor on durations
    slur: float  # factor on the reach of coarticulation
    open_quotient: float  # part of a glottal period in which the glottis is open
    tilt: float  # pole of the low-pass on the glottal pulses; high: soft voice
    breath: float  # noise in the voice
    jitter: float  # relative irregularity of the pitch
    hiss: float  # factor on frication noise
    level: float  # of the speech, re full scale
    snr: float  # level of the speech over the noise
    colour: float  # pole of the low-pass on the noise; high: rumbling
    bursts: float  # how likely the noise bursts out in a fifth of a second
    babble: float  # depth of the noise's slow modulation, 0 to 1
    decay: float  # seconds in which the room's echo falls by 60 dB
    echo: float  # level of the echo, re the direct sound
    channel: float  # coefficient of the microphone's first-order tilt


def speaker(seed: int, split: str, number: int) -> Speaker:
    """Return speaker ``number`` of a split: the same for equal arguments, else another person."""
    rng = stream(seed, "synth speaker", split, number)
    kind = ("man", "woman", "man", "woman", "child")[number % 5]
    pitch, tract = KINDS[kind]
    phones = len(PHONES)
    tract = tract * np.exp(0.06 * rng.standard_normal())
    upper = np.array([3450.0, 4500.0, 5500.0]) * tract
    space = np.exp(0.04 * rng.standard_normal(3) + 0.03 * rng.standard_normal((phones, 3)))
    return Speaker(
        kind=kind,
        pitch=pitch * np.exp(0.13 * rng.standard_normal()),
        lilt=rng.uniform(0.5, 2.0),
        tract=tract,
        space=space,
        upper=np.minimum(upper * np.exp(0.03 * rng.standard_normal(3)), 7400.0),
        pace=0.85 * np.exp(0.13 * rng.standard_normal()),
        slur=rng.uniform(0.7, 1.5),
        open_quotient=rng.uniform(0.5, 0.8),
        tilt=rng.uniform(0.0, 0.75),
        breath=rng.uniform(0.005, 0.06),
        jitter=rng.uniform(0.003, 0.02),
        hiss=np.exp(0.35 * rng.standard_normal()),
        level=rng.uniform(-32.0, -20.0),
        snr=rng.uniform(14.0, 30.0),
        colour=rng.uniform(0.3, 0.97),
        bursts=rng.uniform(0.0, 0.25),
        babble=rng.uniform(0.0, 0.8),
        decay=rng.uniform(0.1, 0.4),
        echo=rng.uniform(-26.0, -12.0),
        channel=rng.uniform(-0.3, 0.6),
    )
