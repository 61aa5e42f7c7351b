"""The source-filter synthesizer: tracks in, sound out.

    speech = R F3 F2 F1 [nose] F4 F5 F6 (voice + breath)  +  R hiss band(noise)

glottal pulses and breath pass through all the formants in cascade, frication noise through
the band of its own short cavity in parallel, and the lips radiate the rate of change (R,
already in the glottal pulses as they are generated here).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from refimpl.tasks.acoustic.synth.articulation import TICK, Tracks
from refimpl.tasks.acoustic.synth.resonator import antiresonate, bandpass, coefficients, resonate
from refimpl.tasks.acoustic.synth.speakers import Speaker

RATE = 16000  # hertz; other rates are made from this one
STEP = round(TICK * RATE)  # samples per tick
NOSE, NOSE_WIDTH = 270.0, 100.0  # the nasal pole, hertz; it cancels the zero when the nose is shut
UPPER_WIDTHS = (250.0, 300.0, 400.0)  # bandwidths of F4, F5, F6, hertz

Signal = NDArray[np.float64]


def speak(tracks: Tracks, who: Speaker, rng: np.random.Generator) -> Signal:
    """Return the (T * STEP,) samples of clean speech at `RATE`, of arbitrary level."""
    n = (len(tracks.pitch) - 1) * STEP
    pulses, opening = glottis(_spread(tracks.pitch), who.open_quotient)
    pulses = signal.lfilter([1 - who.tilt], [1, -who.tilt], pulses * _spread(tracks.voice))
    puffs = rng.standard_normal(n) * (0.3 + 0.7 * opening) * _spread(tracks.breath)
    sound = pulses + puffs

    for f, w in zip(who.upper, UPPER_WIDTHS, strict=True):
        b, c = coefficients(f, w, RATE)
        sound = signal.lfilter([1 - b - c], [1, -b, -c], sound)
    zero = NOSE + tracks.nasal * 230.0
    sound = antiresonate(sound, *_filter(zero, np.full_like(zero, NOSE_WIDTH)))
    b, c = coefficients(NOSE, NOSE_WIDTH, RATE)
    sound = signal.lfilter([1 - b - c], [1, -b, -c], sound)
    for k in (2, 1, 0):
        sound = resonate(sound, *_filter(tracks.formants[:, k], tracks.widths[:, k]))

    hiss = rng.standard_normal(n) * _spread(tracks.hiss)
    b, c = _filter(tracks.hiss_band[:, 0], tracks.hiss_band[:, 1])
    hiss = bandpass(bandpass(hiss, b, c), b, c)  # twice, for steep skirts
    return sound + np.diff(hiss, prepend=0.0)


def glottis(pitch: Signal, open_quotient: float) -> tuple[Signal, Signal]:
    """Return the radiated glottal pulses and the glottal flow, both (n,).

    The flow in a period is 27/4 u^2 (1 - u), u = phase / open quotient, and 0 once u > 1: it
    rises slowly and shuts abruptly (Rosenberg's polynomial pulse [1]_).  Its difference from
    sample to sample is the derivative averaged over a sample, so the corner at the closure,
    which would alias if it were sampled, is smoothed.

    .. [1] A. E. Rosenberg, "Effect of glottal pulse shape on the quality of natural vowels",
       Journal of the Acoustical Society of America 49(2), 583-590, 1971.
    """
    phase = np.cumsum(pitch) / RATE
    u = np.minimum((phase - np.floor(phase)) / open_quotient, 1.0)
    flow = 6.75 * u * u * (1 - u)
    return np.diff(flow, prepend=0.0) * (RATE / pitch / 30), flow


def _filter(frequency: Signal, width: Signal) -> tuple[Signal, Signal]:
    """Return a resonator's coefficients at every sample, from its track."""
    b, c = coefficients(frequency, width, RATE)
    return _spread(b), _spread(c)


def _spread(track: Signal) -> Signal:
    """Interpolate a track (T + 1,) linearly to samples (T * STEP,)."""
    ramp = np.arange(STEP) / STEP
    return (track[:-1, None] + np.diff(track)[:, None] * ramp).reshape(-1)
