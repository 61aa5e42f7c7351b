"""From words to what the mouth does: durations, then tracks of formants, sources and pitch.

Coarticulation.  Phone p pulls formant k to its target T_pk(t) with a grip that is full in
its core and decays outside, and the formant is the average of what all phones want:

    F_k(t) = sum_p w_p(t) T_pk(t) / sum_p w_p(t),   w_p(t) = grip_p exp(-d_p(t) / reach_p)

where d_p(t) is the time from t to the core of p, the middle `CORE` of it.  Transitions are
smooth, a short phone between strong neighbours never reaches its target (undershoot), and a
fast or slurring speaker undershoots more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.tasks.acoustic.synth.phones import LEXICON, PHONES, SILENCE
from refimpl.tasks.acoustic.synth.speakers import Speaker

TICK = 0.002  # seconds between points of a track
CORE = 0.3  # part of a phone in which its grip is full
NOSE_SECONDS = 0.025  # the nose opens before a nasal and shuts after it with this decay
HIGHEST = 7200.0  # hertz; centres of noise bands stay below
NUMBER = {phone: i for i, phone in enumerate(PHONES)}


class Span(NamedTuple):
    """A phone in time, in ticks."""

    phone: str
    start: int
    ticks: int


class Tracks(NamedTuple):
    """What the synthesizer's parts do, at ticks 0 to T; each (T + 1,) unless said."""

    pitch: NDArray[np.float64]  # hertz
    voice: NDArray[np.float64]  # amplitudes, as in `Stage`
    breath: NDArray[np.float64]
    hiss: NDArray[np.float64]
    hiss_band: NDArray[np.float64]  # (T + 1, 2) centre and width, hertz
    formants: NDArray[np.float64]  # (T + 1, 3) hertz
    widths: NDArray[np.float64]  # (T + 1, 3) hertz
    nasal: NDArray[np.float64]  # 0: the nose is shut, 1: open


def timing(words: tuple[str, ...], who: Speaker, rng: np.random.Generator) -> list[Span]:
    """Return the phones of an utterance in time; they tile it from tick 0 without gaps.

    Silence stands at both ends and, sometimes, between words.  Words may be said faster or
    slower than the speaker's pace, and the last one is drawn out.
    """
    spans: list[Span] = []

    def put(phone: str, seconds: float) -> None:
        start = spans[-1].start + spans[-1].ticks if spans else 0
        spans.append(Span(phone, start, max(round(seconds / TICK), 15)))

    pace = who.pace * np.exp(0.06 * rng.standard_normal())
    put(SILENCE, rng.uniform(0.06, 0.15))
    for i, word in enumerate(words):
        if i and rng.random() < 0.2:
            put(SILENCE, rng.uniform(0.05, 0.15))
        drawl = pace * np.exp(0.08 * rng.standard_normal())
        drawl *= 1.15 if i == len(words) - 1 else 1.0
        for phone in LEXICON[word]:
            put(phone, PHONES[phone].seconds * drawl * np.exp(0.13 * rng.standard_normal()))
    put(SILENCE, rng.uniform(0.06, 0.15))
    return spans


def tracks(spans: list[Span], who: Speaker, rng: np.random.Generator) -> Tracks:
    """Return the tracks of an utterance as this speaker moves, this time."""
    recipes = [PHONES[span.phone] for span in spans]
    number = np.array([NUMBER[span.phone] for span in spans])
    start = np.array([span.start for span in spans], float)[:, None]
    ticks = np.array([span.ticks for span in spans], float)[:, None]
    t = np.arange(spans[-1].start + spans[-1].ticks + 1, dtype=float)[None, :]

    margin = (1 - CORE) / 2 * ticks
    away = _outside(t, start + margin, start + ticks - margin)
    reach = np.array([r.reach for r in recipes])[:, None] * who.slur
    grip = np.array([r.grip for r in recipes])[:, None] * np.exp(-away / reach)
    share = grip / grip.sum(0)  # (phones, T + 1)

    once = np.exp(0.03 * rng.standard_normal((len(spans), 3)))  # nobody says it twice the same
    scale = who.tract * who.space[number] * once
    first = np.array([r.formants for r in recipes]) * scale
    last = np.array([r.glide or r.formants for r in recipes]) * scale
    along = np.clip((t - start) / ticks, 0, 1)
    formants = np.einsum("pt,pk->tk", share * (1 - along), first)
    formants += np.einsum("pt,pk->tk", share * along, last)
    widths = np.einsum("pt,pk->tk", share, np.array([r.widths for r in recipes]))

    noisy = np.array([r.hiss is not None for r in recipes])[:, None]
    band = np.array([r.hiss or (4000.0, 4000.0) for r in recipes])
    band *= 1 + 0.6 * (scale[:, 1:2] - 1)  # a front cavity differs less than a whole tract
    band *= np.exp(0.05 * rng.standard_normal((len(spans), 1)))
    hissing = share * noisy + 1e-12  # phones without hiss do not pull at its band
    hiss_band = np.einsum("pt,pk->tk", hissing / hissing.sum(0), band)
    hiss_band[:, 0] = np.minimum(hiss_band[:, 0], HIGHEST)

    nasal = np.array([r.nasal for r in recipes], float)[:, None]
    nasal = nasal * np.exp(-_outside(t, start, start + ticks) / NOSE_SECONDS)

    sources = _smooth(_sources(spans, rng), 7)
    vowel = np.array([r.stages[0].voice == 1 for r in recipes])[:, None]
    sources[:, 0] *= 1 - 0.5 * np.sum(share * vowel * (2 * along - 1) ** 2, axis=0)  # vowels swell
    return Tracks(
        pitch=_pitch(spans, t[0], who, rng),
        voice=sources[:, 0],
        breath=sources[:, 1] + who.breath * sources[:, 0],
        hiss=sources[:, 2] * who.hiss,
        hiss_band=hiss_band,
        formants=formants,
        widths=widths,
        nasal=nasal.max(0),
    )


def _outside(t: np.ndarray, start: np.ndarray, end: np.ndarray) -> NDArray[np.float64]:
    """Return the seconds from ticks t (1, T + 1) to the spans from start to end (phones, 1)."""
    return np.maximum(np.maximum(start - t, t - end), 0) * TICK


def _sources(spans: list[Span], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the (T + 1, 3) amplitudes of voice, breath and hiss, with steps at the stages."""
    levels, ticks = [], []
    for span in spans:
        stages = PHONES[span.phone].stages
        share = np.array([stage.share for stage in stages])
        share = share * np.exp(0.2 * rng.standard_normal(len(stages)))
        cuts = np.rint(np.cumsum(share) / share.sum() * span.ticks).astype(int)
        effort = np.exp(0.12 * rng.standard_normal(3))
        levels += [np.array(stage[1:]) * effort for stage in stages]
        ticks += list(np.diff(cuts, prepend=0))
    ticks[-1] += 1
    return np.repeat(np.array(levels), ticks, axis=0)


def _pitch(
    spans: list[Span], t: NDArray[np.float64], who: Speaker, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return the pitch in hertz: declination, an accent on each vowel, and jitter."""
    along = t / t[-1]
    semitones = who.lilt * (1.5 - 3.0 * along) + rng.normal(0, 1)
    for span in spans:
        recipe = PHONES[span.phone]
        if recipe.stages[0].voice == 1:
            peak, spread = span.start + rng.uniform(0.2, 0.7) * span.ticks, 0.07 / TICK
            size = who.lilt * rng.uniform(0.2, 1.6)
            semitones = semitones + size * np.exp(-0.5 * ((t - peak) / spread) ** 2)
    shake = who.jitter * _smooth(rng.standard_normal((len(t), 1)), 5)[:, 0] * 2
    return who.pitch * np.exp2(semitones / 12) * (1 + shake)


def _smooth(x: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Average (n, k) over a Hann window of this odd number of ticks; the ends are repeated."""
    window = np.hanning(points + 2)[1:-1]
    window /= window.sum()
    padded = np.pad(x, ((points // 2, points // 2), (0, 0)), mode="edge")
    return sum(weight * padded[i : i + len(x)] for i, weight in enumerate(window))
