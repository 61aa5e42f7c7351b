"""Frames, mel filters, normalisation and splicing."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.acoustic.frontend import (
    LogMel,
    Moments,
    average,
    frame_count,
    grouped,
    mel,
    mel_filters,
    normalise,
    povey_window,
)
from refimpl.tasks.acoustic.settings import AcousticSettings

DEFAULT = AcousticSettings()


def plainly(samples, rate, settings=DEFAULT):
    """Log-mel energies by their definition, frame by frame, with a slow Fourier sum."""
    length, shift = int(rate * settings.frame_length), int(rate * settings.frame_shift)
    n = 1
    while n < length:
        n *= 2
    wave = np.exp(-2j * np.pi * np.outer(np.arange(n // 2 + 1), np.arange(length)) / n)
    filters = mel_filters(settings.bands, n, rate, settings.low, rate / 2)
    rows = []
    start = 0
    while start + length <= len(samples):
        x = [float(s) for s in samples[start : start + length]]
        mean = sum(x) / length
        x = [s - mean for s in x]
        x = [x[t] - settings.preemphasis * x[max(t - 1, 0)] for t in range(length)]
        power = np.abs(wave @ (np.array(x) * povey_window(length))) ** 2
        rows.append(np.log(np.maximum(filters @ power, settings.energy_floor)))
        start += shift
    return np.array(rows)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050])
def test_features_are_what_the_definition_says(rate):
    samples = np.random.default_rng(0).normal(size=rate // 10) * 1000
    got = LogMel(DEFAULT, rate)(samples.astype(np.float32))
    want = plainly(samples.astype(np.float32), rate)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-5)


@given(st.integers(0, 5000), st.integers(1, 500), st.integers(1, 200))
def test_frame_count_is_how_many_windows_fit(samples, length, shift):
    fit = sum(1 for start in range(0, samples + 1, shift) if start + length <= samples)
    assert frame_count(samples, length, shift) == fit


@pytest.mark.parametrize("rate", [8000, 16000])
def test_many_frames_are_the_frames_one_by_one(rate):
    logmel = LogMel(DEFAULT, rate)
    samples = np.random.default_rng(0).normal(size=3 * 8000).astype(np.float32) * 100
    whole = logmel(samples)
    assert len(whole) == logmel.frames(samples.size)
    for t in (0, 1, len(whole) - 1):
        start = t * logmel.shift
        one = logmel(samples[start : start + logmel.length])
        np.testing.assert_allclose(one[0], whole[t], rtol=1e-6)


def test_sound_shorter_than_a_frame_gives_none():
    assert LogMel(DEFAULT, 8000)(np.zeros(199, dtype=np.float32)).shape == (0, 40)


def test_silence_has_features_and_constant_sound_is_silence():
    logmel = LogMel(DEFAULT, 8000)
    np.testing.assert_array_equal(logmel(np.zeros(400, dtype=np.float32)), 0)
    np.testing.assert_array_equal(logmel(np.full(400, 1234, dtype=np.float32)), 0)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("hertz", [200, 440, 1000, 2000, 3500])
def test_a_sine_lights_up_its_band(rate, hertz):
    sine = 3000 * np.sin(2 * np.pi * hertz * np.arange(rate // 10) / rate)
    edges = np.linspace(mel(DEFAULT.low), mel(rate / 2), DEFAULT.bands + 2)
    band = LogMel(DEFAULT, rate)(sine.astype(np.float32)).argmax(axis=1)
    nearest = np.abs(edges[1:-1] - mel(hertz)).argmin()
    assert np.abs(band - nearest).max() <= 1


def test_mel_filters_are_triangles_that_add_up_to_one():
    filters = mel_filters(40, 512, 16000, 20, 8000)
    bins = mel(np.arange(257) * 16000 / 512)
    edges = np.linspace(mel(20), mel(8000), 42)
    inside = (bins >= edges[1]) & (bins <= edges[-2])
    np.testing.assert_allclose(filters[:, inside].sum(axis=0), 1)
    assert (filters >= 0).all() and (filters.sum(axis=1) > 0).all()
    for b in range(40):
        outside = (bins <= edges[b]) | (bins >= edges[b + 2])
        assert (filters[b, outside] == 0).all()
    assert filters[:, 0].sum() == 0  # nothing of the direct current


def test_more_bands_than_the_bins_can_tell_apart_are_refused():
    with pytest.raises(UserError, match="120 mel bands are too many for 8000 hertz"):
        mel_filters(120, 256, 8000, 20, 4000)


def test_bands_beyond_nyquist_are_refused():
    with pytest.raises(UserError, match="nothing above 4000"):
        LogMel(AcousticSettings(high=5000), 8000)
    with pytest.raises(UserError, match="low is 5000 hertz: it must be below high = 4000"):
        LogMel(AcousticSettings(low=5000), 8000)


@pytest.mark.parametrize(
    "wrong",
    [
        {"sample_rate": 4000},
        {"frame_shift": 0},
        {"frame_length": 0.001},
        {"preemphasis": 2},
        {"bands": 0},
        {"high": 10},
        {"cmvn": "always"},
        {"context": -1},
        {"alignment": "guess"},
        {"realign_epochs": (0,)},
        {"acoustic_scale": 0},
        {"bands": 10**9},
        {"context": 10**6},
        {"sample_rate": 10**9},
        {"frame_length": 3600.0},
        {"frame_shift": 1e-9},
        {"flat_passes": 10**9},
        {"cmvn_prior": float("inf")},
        {"cmvn_prior": float("nan")},
        {"energy_floor": float("inf")},
        {"prior_scale": float("nan")},
        {"word_penalty": float("nan")},
        {"word_penalties": (0.0, float("nan"))},
        {"word_penalties": [0.0, float("-inf")]},
        {"word_penalties": (0.0,) * 1000},
        {"silence": ""},
        {"silence": "s il"},
        {"low": -1.0},
        {"word_penalties": ()},
    ],
)
def test_a_setting_that_makes_no_sense_is_named(wrong):
    (name,) = wrong
    with pytest.raises(UserError, match=f"acoustic setting {name} is"):
        AcousticSettings(**wrong)


def speech(seed=0):
    rng = np.random.default_rng(seed)
    features = (rng.normal(size=(60, 3)) * [1, 5, 9] + [0, 20, -7]).astype(np.float32)
    return features, grouped(features, np.array([0, 10, 30, 60]), ["anna", "bert", "anna"])


def test_each_group_gets_mean_zero_and_variance_one():
    features, groups = speech()
    assert list(groups) == ["anna", "bert"]
    normalise(groups, average(groups), 0)
    for rows in (np.r_[0:10, 30:60], np.r_[10:30]):
        np.testing.assert_allclose(features[rows].mean(axis=0), 0, atol=1e-6)
        np.testing.assert_allclose(features[rows].std(axis=0), 1, rtol=1e-5)


def test_a_group_of_few_frames_is_drawn_to_the_average():
    prior = Moments(1000, np.array([10.0]), np.array([4.0]))
    few = Moments(100, np.array([20.0]), np.array([1.0]))
    drawn = few.drawn_to(prior, 100)
    assert drawn.mean.tolist() == [15] and drawn.variance.tolist() == [2.5]
    assert few.drawn_to(prior, 0).mean.tolist() == [20]
    np.testing.assert_allclose(few.drawn_to(prior, 1e9).mean, 10, rtol=1e-6)


def test_the_average_speaker_has_the_mean_of_all_and_the_variance_inside():
    features, groups = speech()
    got = average(groups)
    np.testing.assert_allclose(got.mean, features.mean(axis=0), rtol=1e-5)
    anna, bert = features[np.r_[0:10, 30:60]], features[10:30]
    np.testing.assert_allclose(got.variance, (2 * anna.var(0) + bert.var(0)) / 3, rtol=1e-5)


def test_a_band_that_never_moves_becomes_zero():
    features = np.full((5, 2), 3, dtype=np.float32)
    groups = grouped(features, np.array([0, 5]), ["anna"])
    normalise(groups, average(groups), 100)
    np.testing.assert_array_equal(features, 0)


# ------------------------------------------------------------------------------ splicing


def frames_of(lengths, bands=2, context=2):
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    features = np.arange(offsets[-1] * bands, dtype=np.float32).reshape(-1, bands)
    return Frames(features, offsets, context)


def test_neighbours_are_spliced_and_edges_repeated():
    frames = frames_of([3, 1], bands=1, context=1)  # a b c | d = 0 1 2 | 3
    x = np.empty((4, 3), dtype=np.float32)
    frames.take(np.arange(4), x)
    assert x.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2], [3, 3, 3]]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 4), st.data())
def test_splicing_never_leaves_the_utterance(lengths, context, data):
    frames = frames_of(lengths, context=context)
    index = np.array(data.draw(st.lists(st.integers(0, frames.count - 1), max_size=9)), int)
    x = np.full((len(index), frames.inputs), np.nan, dtype=np.float32)
    frames.take(index, x)
    for row, i in zip(x, index, strict=True):
        u = np.searchsorted(frames.offsets, i, side="right") - 1
        first, last = frames.offsets[u], frames.offsets[u + 1] - 1
        want = [
            frames.features[min(max(i + d, first), last)] for d in range(-context, context + 1)
        ]
        np.testing.assert_array_equal(row, np.concatenate(want))


def test_targets_follow_their_frames_and_float64_is_served_too():
    frames = frames_of([4, 5])
    frames.labels = np.arange(9) * 10
    index, y = np.array([8, 0, 3]), np.empty(3, dtype=np.int64)
    narrow, wide = np.empty((3, 10), dtype=np.float32), np.empty((3, 10))
    frames.take(index, narrow, y)
    assert y.tolist() == [80, 0, 30]
    frames.take(index, wide, y)
    np.testing.assert_array_equal(wide, narrow)


def test_taking_again_allocates_no_rows():
    frames = frames_of([50, 50], bands=40, context=5)
    x, y = np.empty((64, frames.inputs), dtype=np.float32), np.empty(64, dtype=np.int64)
    index = np.random.default_rng(0).permutation(100)[:64]
    frames.take(index, x, y)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    frames.take(index, x, y)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < 2000 + 3 * index.nbytes  # of each example its utterance, but no row
