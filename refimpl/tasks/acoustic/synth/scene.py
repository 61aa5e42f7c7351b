"""Around the voice: room, noise, microphone, and 16-bit samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from refimpl.tasks.acoustic.synth.speakers import Speaker
from refimpl.tasks.acoustic.synth.voice import RATE

Signal = NDArray[np.float64]

SWELL, BURST = RATE // 8, RATE // 5  # samples between changes of the noise's loudness
PEAK = 0.9  # of full scale; louder recordings are turned down to this


def record(speech: Signal, who: Speaker, rate: int, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return clean speech (n,) as its speaker's microphone hears it: (n * rate / RATE,) int16."""
    speech = speech / (_level(speech) + 1e-12)
    heard = speech + _echo(speech, who, rng)
    snr = who.snr + rng.normal(0, 2.0)
    heard += _noise(len(speech), who, rng) * 10 ** (-snr / 20)
    heard[1:] -= who.channel * heard[:-1]
    if rate != RATE:
        heard = signal.resample_poly(heard, rate, RATE)
    heard *= 10 ** ((who.level + rng.normal(0, 1.5)) / 20) / _level(heard)
    heard *= min(1.0, PEAK / np.abs(heard).max())
    return np.rint(heard * 32767).astype(np.int16)


def _level(x: Signal) -> float:
    """Return the root mean square of the louder half of the frames of 320 samples."""
    frames = x[: len(x) // 320 * 320].reshape(-1, 320)
    power = np.sort(np.mean(frames * frames, axis=1))
    return float(np.sqrt(power[len(power) // 2 :].mean()))


def _echo(speech: Signal, who: Speaker, rng: np.random.Generator) -> Signal:
    """Return the diffuse echo: convolution with noise that falls by 60 dB in ``decay``."""
    n = round(who.decay * RATE)
    t = np.arange(n) / n
    tail = rng.standard_normal(n) * 10 ** (-3 * t)
    tail[: round(0.004 * RATE)] = 0  # the direct sound comes first
    tail *= 10 ** (who.echo / 20) / np.sqrt(np.sum(tail * tail))
    return signal.fftconvolve(speech, tail)[: len(speech)]


def _noise(n: int, who: Speaker, rng: np.random.Generator) -> Signal:
    """Return (n,) coloured noise of unit level that comes and goes like voices, and bursts.

    A burst is not counted in the level: it is 14 to 28 dB louder than the rest and covers a
    phone or two, as a door or a cough does.
    """
    noise = signal.lfilter([1.0], [1.0, -who.colour], rng.standard_normal(n))
    noise *= _wander(np.exp(who.babble * rng.standard_normal(n // SWELL + 2)), SWELL, n)
    noise /= np.sqrt(np.mean(noise * noise))
    burst = 10 ** (rng.uniform(14, 28) / 20)
    loudness = np.where(rng.random(n // BURST + 2) < who.bursts, burst, 1.0)
    return noise * _wander(loudness, BURST, n)


def _wander(knots: Signal, every: int, n: int) -> Signal:
    """Return (n,) values that pass through a knot every so many samples."""
    return np.interp(np.arange(n), np.arange(len(knots)) * every, knots)
