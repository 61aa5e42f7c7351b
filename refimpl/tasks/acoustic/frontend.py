r"""The front end: samples to log-mel energies, and their normalisation.

One frame is 25 ms of sound, a new one starts every 10 ms, both truncated to whole samples; n
samples hold

    frames = 1 + (n - length) // shift        (none if n < length)

frames (nothing is padded; what is left at the end is dropped).  Each frame x goes through

    x = x - mean(x)                           no direct current
    x[t] = x[t] - 0.97 x[t-1]                 pre-emphasis; x[-1] is x[0]
    X = FFT(x * window, N)                    N: the next power of two, zeros behind the frame
    e[b] = sum_k M[b, k] |X[k]|^2             triangular mel filters
    y[b] = log(max(e[b], floor))

as Kaldi computes them (``feature-window.h``, ``mel-computations.h``, ``feature-fbank.h``), but
for the dither.  Kaldi adds noise of one least significant bit so that digital silence has a
logarithm; we floor the energies about there, which needs no random numbers.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import require
from refimpl.tasks.acoustic.settings import AcousticSettings

FRAMES_AT_ONCE = 1024  # bounds the work memory; bits depend on it no more than on the FFT


def mel(hertz: float | np.ndarray) -> np.ndarray:
    """Return the mel value of a frequency, 1127 ln(1 + f / 700).

    >>> round(float(mel(1000.0)))
    1000
    """
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


def frame_count(samples: int, length: int, shift: int) -> int:
    """Return how many whole frames fit.

    >>> [frame_count(n, 400, 160) for n in (399, 400, 559, 560)]
    [0, 1, 1, 2]
    """
    return 1 + (samples - length) // shift if samples >= length else 0


def povey_window(length: int) -> NDArray[np.float64]:
    """Return (0.5 - 0.5 cos(2 pi t / (length - 1)))^0.85: a Hann window that is a bit wider."""
    t = np.arange(length)
    return (0.5 - 0.5 * np.cos(2 * np.pi * t / (length - 1))) ** 0.85


def mel_filters(bands: int, fft: int, rate: int, low: float, high: float) -> NDArray[np.float64]:
    """Return the (bands, fft // 2 + 1) weights of triangular filters, equally wide in mel.

    Filter b rises from edge b to 1 at edge b + 1 and falls to 0 at edge b + 2 of bands + 2
    equally spaced edges from mel(low) to mel(high); the sides are straight lines in mel.  So
    neighbours add up to 1 everywhere between the first and the last centre.

    Raises `UserError` if a filter is narrower than the distance of two FFT bins and holds none.
    """
    edges = np.linspace(mel(low), mel(high), bands + 2)
    left, centre, right = (edges[i : i + bands, None] for i in range(3))
    bins = mel(np.arange(fft // 2 + 1) * (rate / fft))[None, :]
    rising = (bins - left) / (centre - left)
    falling = (right - bins) / (right - centre)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    empty = np.flatnonzero(weights.sum(axis=1) == 0)
    require(
        empty.size == 0,
        f"{bands} mel bands are too many for {rate} hertz: band {empty[:1].tolist()} lies between "
        f"two of {fft // 2 + 1} FFT bins; use fewer bands or longer frames",
    )
    return weights


class LogMel:
    """Log-mel energies for one sample rate: tables made once, then `features = logmel(samples)`.

    ``length``, ``shift``: of a frame, in samples.  ``fft``: points of the Fourier transform.
    """

    def __init__(self, settings: AcousticSettings, rate: int) -> None:
        self.settings, self.rate = settings, rate
        self.length, self.shift = settings.frame(rate)
        self.fft = 1 << (self.length - 1).bit_length()
        high = rate / 2 if settings.high is None else settings.high
        require(
            high <= rate / 2,
            f"acoustic setting high is {high:g} hertz: sound sampled at {rate} hertz holds "
            f"nothing above {rate / 2:g}",
        )
        require(
            settings.low < high,
            f"acoustic setting low is {settings.low:g} hertz: it must be below high = {high:g}",
        )
        self.window = povey_window(self.length)
        self.filters = mel_filters(settings.bands, self.fft, rate, settings.low, high).T.copy()

    def frames(self, samples: int) -> int:
        """Return how many frames so many samples give."""
        return frame_count(samples, self.length, self.shift)

    def __call__(self, samples: np.ndarray) -> NDArray[np.float32]:
        """Return the (frames, bands) log-mel energies of (n,) samples on the 16-bit scale."""
        frames = self.frames(samples.size)
        features = np.empty((frames, self.settings.bands), dtype=np.float32)
        if frames == 0:
            return features
        views = np.lib.stride_tricks.sliding_window_view(samples, self.length)[:: self.shift]
        for first in range(0, frames, FRAMES_AT_ONCE):
            some = slice(first, min(first + FRAMES_AT_ONCE, frames))
            x = views[some].astype(np.float64)
            x -= x.mean(axis=1, keepdims=True)
            x[:, 1:] -= self.settings.preemphasis * x[:, :-1]
            x[:, 0] *= 1 - self.settings.preemphasis
            x *= self.window
            spectrum = np.fft.rfft(x, self.fft, axis=1)
            power = spectrum.real**2 + spectrum.imag**2
            energies = power @ self.filters
            features[some] = np.log(np.maximum(energies, self.settings.energy_floor))
        return features


class Moments(NamedTuple):
    """Number of frames; mean and variance of each band, (bands,) float64."""

    frames: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    @property
    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation, 0.001 at least."""
        return np.maximum(np.sqrt(self.variance), 1e-3)

    def drawn_to(self, prior: Moments, weight: float) -> Moments:
        """Return the moments as if `weight` frames more had been seen, with those of `prior`.

        mean = (n m + w m0) / (n + w), and variance likewise: a few frames are not trusted to
        tell a speaker's mean, many are.
        """
        n = self.frames
        mean = (n * self.mean + weight * prior.mean) / (n + weight)
        variance = (n * self.variance + weight * prior.variance) / (n + weight)
        return Moments(n, mean, variance)


def moments(parts: list[np.ndarray]) -> Moments:
    """Return the moments of the rows of all parts together.

    Sums run down the rows, part after part, band beside band, so they are the same on every
    machine.
    """
    frames = sum(map(len, parts))
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / frames
    variance = sum(np.square(part - mean).sum(axis=0) for part in parts) / frames
    return Moments(frames, mean, variance)


Groups = dict[Hashable, list[NDArray[np.float32]]]
"""The features of each group of utterances (a speaker's), as views."""


def grouped(features: NDArray[np.float32], offsets: NDArray[np.int64], keys: list) -> Groups:
    """Return views of the utterances' features, those with equal keys together."""
    groups: Groups = {}
    for u, key in enumerate(keys):
        groups.setdefault(key, []).append(features[offsets[u] : offsets[u + 1]])
    return groups


def average(groups: Groups) -> Moments:
    """Return the mean over all frames, and the mean variance inside a group."""
    each = [moments(parts) for parts in groups.values()]
    frames, nothing = sum(one.frames for one in each), np.zeros_like(each[0].mean)
    mean = sum((one.frames * one.mean for one in each), nothing) / frames
    variance = sum((one.frames * one.variance for one in each), nothing) / frames
    return Moments(frames, mean, variance)


def normalise(groups: Groups, prior: Moments, weight: float) -> None:
    """Give each group mean 0 and variance 1 in every band, in place (CMVN).

    More exactly its mean and variance drawn to the prior's become 0 and 1.
    """
    for parts in groups.values():
        here = moments(parts).drawn_to(prior, weight)
        for part in parts:
            part[:] = (part - here.mean) / here.deviation
