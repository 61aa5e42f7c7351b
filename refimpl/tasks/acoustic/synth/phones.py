"""The ten digit words, and a recipe for each of their phones.

Formants are those of a man of average size, near the averages of Peterson and Barney [1]_
for vowels and the tables of Klatt [2]_ for consonants; a speaker scales and bends them.

.. [1] G. E. Peterson, H. L. Barney, "Control methods used in a study of the vowels", Journal
   of the Acoustical Society of America 24(2), 175-184, 1952.
.. [2] D. H. Klatt, "Software for a cascade/parallel formant synthesizer", Journal of the
   Acoustical Society of America 67(3), 971-995, 1980.
"""

from __future__ import annotations

from typing import NamedTuple

SILENCE = "sil"

LEXICON: dict[str, tuple[str, ...]] = {
    "zero": ("z", "ih", "r", "ow"),
    "one": ("w", "ah", "n"),
    "two": ("t", "uw"),
    "three": ("th", "r", "iy"),
    "four": ("f", "ao", "r"),
    "five": ("f", "ay", "v"),
    "six": ("s", "ih", "k", "s"),
    "seven": ("s", "eh", "v", "ah", "n"),
    "eight": ("ey", "t"),
    "nine": ("n", "ay", "n"),
}


class Stage(NamedTuple):
    """A part of a phone in which the sources are steady."""

    share: float  # of the phone's duration
    voice: float  # amplitude of the glottal pulses; 1 in a vowel
    breath: float  # amplitude of noise at the glottis, which passes through the formants
    hiss: float  # amplitude of noise at the constriction, which passes through `Phone.hiss`


class Phone(NamedTuple):
    """How to say a phone.  Frequencies in hertz."""

    seconds: float  # average duration
    formants: tuple[float, float, float]  # where F1, F2, F3 are aimed at the phone's start
    glide: tuple[float, float, float] | None = None  # ... and at its end; None: the same
    stages: tuple[Stage, ...] = (Stage(1.0, 1.0, 0.0, 0.0),)
    hiss: tuple[float, float] | None = None  # centre and width of the noise's band
    widths: tuple[float, float, float] = (60.0, 90.0, 150.0)  # bandwidths of F1, F2, F3
    grip: float = 1.0  # how strongly it holds the formants against its neighbours
    reach: float = 0.025  # seconds over which its grip on the neighbours' time decays
    nasal: bool = False


Stages = tuple[Stage, ...]


def _noise(hiss: float, voice: float = 0.0) -> Stages:
    return (Stage(1.0, voice, 0.02, hiss),)


def _stop(hold: float, burst: float, open_: float, hiss: float, breath: float) -> Stages:
    """Closure, burst, aspiration; the shares are of the phone's duration."""
    return (
        Stage(hold, 0.0, 0.0, 0.0),
        Stage(burst, 0.0, 0.05, hiss),
        Stage(open_, 0.0, breath, hiss * 0.12),
    )


PHONES: dict[str, Phone] = {
    # vowels
    "iy": Phone(0.150, (340, 2150, 2850), (270, 2350, 3050)),
    "ih": Phone(0.085, (400, 1950, 2550)),
    "eh": Phone(0.095, (540, 1800, 2480)),
    "ah": Phone(0.110, (630, 1200, 2420)),
    "ao": Phone(0.140, (570, 850, 2400), grip=1.2),
    "uw": Phone(0.150, (330, 1450, 2250), (300, 850, 2250)),
    "ey": Phone(0.150, (500, 1900, 2530), (330, 2250, 2800), reach=0.02),
    "ay": Phone(0.180, (720, 1180, 2450), (400, 1950, 2550), reach=0.02),
    "ow": Phone(0.170, (560, 1050, 2400), (360, 760, 2300), reach=0.02),
    # glides
    "r": Phone(0.080, (370, 1200, 1600), stages=(Stage(1, 0.75, 0.02, 0),), reach=0.04),
    "w": Phone(0.075, (300, 650, 2200), stages=(Stage(1, 0.75, 0.02, 0),), reach=0.035, grip=1.5),
    # nasal
    "n": Phone(
        0.085,
        (480, 1400, 2500),
        stages=(Stage(1, 0.75, 0.01, 0),),
        widths=(60, 250, 250),
        nasal=True,
        reach=0.015,
        grip=1.3,
    ),
    # fricatives
    "z": Phone(0.090, (250, 1550, 2550), None, _noise(0.10, 0.32), (5800, 2200), grip=1.5),
    "s": Phone(0.120, (320, 1500, 2550), None, _noise(0.18), (5800, 2000), grip=1.5),
    "f": Phone(0.105, (330, 1050, 2250), None, _noise(0.035), (4200, 6000), grip=1.3),
    "v": Phone(0.070, (250, 1050, 2200), None, _noise(0.015, 0.35), (4200, 6000), grip=1.3),
    "th": Phone(0.100, (320, 1350, 2550), None, _noise(0.03), (6000, 3500), grip=1.3),
    # stops
    "t": Phone(
        0.095,
        (300, 1750, 2700),
        None,
        _stop(0.50, 0.14, 0.36, 0.2, 0.25),
        (4300, 2200),
        widths=(200, 130, 200),
        grip=1.3,
    ),
    "k": Phone(
        0.090,
        (300, 1950, 2400),
        None,
        _stop(0.55, 0.16, 0.29, 0.3, 0.18),
        (2000, 700),
        widths=(200, 130, 200),
        grip=1.3,
    ),
    # no one speaks; a weak pull to the neutral tract
    SILENCE: Phone(0.2, (500, 1500, 2500), stages=(Stage(1, 0, 0, 0),), grip=0.05),
}
