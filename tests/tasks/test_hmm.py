"""States, targets and statistics, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.tasks.acoustic.discriminant import RIDGE, discriminant
from refimpl.tasks.acoustic.hmm import (
    States,
    equal_division,
    exact_targets,
    flat_start,
    statistics,
)
from refimpl.tasks.acoustic.kaldi import Phones

STATES = States(("sil", "ah", "n", "w"))


def name(state):
    """A state's name, as ah.1."""
    return f"{STATES.phones[state // 3]}.{state % 3}"


def test_every_phone_has_three_states_silence_first():
    assert STATES.count == 12
    assert STATES.silence.tolist() == [0, 1, 2]
    assert STATES.of(("w", "ah", "n")).tolist() == [9, 10, 11, 3, 4, 5, 6, 7, 8]
    assert [name(s) for s in (0, 5, 11)] == ["sil.0", "ah.2", "w.2"]


def test_a_frame_belongs_to_what_sounds_in_its_middle():
    # Middles at 12.5, 22.5, 32.5 ... ms; ah from 0 to 60 ms in parts of 20, then n until 75 ms.
    alignment = Phones(("ah", "n"), np.array([0.0, 0.06]), np.array([0.06, 0.075]))
    got = exact_targets(alignment, STATES, 7, shift=0.010, length=0.025)
    assert [name(s) for s in got] == [
        "ah.0",  # 12.5
        "ah.1",  # 22.5
        "ah.1",  # 32.5
        "ah.2",  # 42.5
        "ah.2",  # 52.5
        "n.0",  # 62.5
        "n.2",  # 72.5
    ]


def test_what_no_phone_covers_is_silence():
    alignment = Phones(("ah", "n"), np.array([0.02, 0.04]), np.array([0.03, 0.05]))
    got = exact_targets(alignment, STATES, 6, shift=0.010, length=0.010)
    assert [name(s) for s in got] == ["sil.1", "sil.1", "ah.1", "sil.1", "n.1", "sil.1"]


@given(st.integers(1, 20), st.integers(0, 100))
def test_equal_division_is_in_order_and_even(states, more):
    frames = states + more
    got = equal_division(np.arange(states), frames)
    counts = np.bincount(got, minlength=states)
    assert len(got) == frames and (np.diff(got) >= 0).all()
    assert counts.max() - counts.min() <= 1


def test_flat_start_takes_quiet_ends_for_silence():
    said = STATES.of(("ah",))
    loudness = [0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 0, 0, 0]
    features = np.array(loudness, dtype=np.float32)[:, None] + np.zeros(4, dtype=np.float32)
    got = flat_start(said, STATES, features)
    assert got.tolist() == [0, 0, 1, 2, 3, 3, 4, 4, 5, 5, 0, 1, 2]


@pytest.mark.parametrize("third, begin", [(3.1, 4), (2.9, 8)])
def test_flat_start_begins_where_a_third_of_the_range_is_passed(third, begin):
    said = STATES.of(("ah",))
    loudness = [0, 0, 0, 0, third, third, third, third, 9, 9, 9, 0, 0, 0]
    got = flat_start(said, STATES, np.array(loudness, np.float32)[:, None])
    assert np.flatnonzero(got >= 3)[0] == begin


def test_flat_start_takes_ends_too_short_for_silence_for_speech():
    said = STATES.of(("ah",))
    features = np.array([0, 0, 9, 9, 9, 0], dtype=np.float32)[:, None]
    assert flat_start(said, STATES, features).tolist() == [3, 3, 4, 4, 5, 5]


def test_flat_start_leaves_speech_room_for_its_states():
    said = STATES.of(("ah", "n"))
    features = np.array([0, 0, 0, 9, 9, 9, 0, 0, 0], dtype=np.float32)[:, None]
    got = flat_start(said, STATES, features)
    assert set(got.tolist()) == {3, 4, 5, 6, 7, 8}


def test_statistics_count_frames_and_visits():
    # Utterances 0 0 0 1 1 and 1 0: state 0 has 4 frames in 2 visits, 1 has 3 in 2.
    got = statistics(np.array([0, 0, 0, 1, 1, 1, 0]), np.array([0, 5, 7]), classes=3)
    np.testing.assert_allclose(got.priors, [5 / 10, 4 / 10, 1 / 10])
    np.testing.assert_allclose(got.loops, [3 / 6, 2 / 5, 1 / 2])
    np.testing.assert_allclose(np.exp(got.log_stay) + np.exp(got.log_move), 1)


def test_the_discriminant_is_the_posterior_of_gaussians_with_one_covariance():
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=5000)
    shape = np.array([[2.0, 0.5], [0.0, 1.0]])
    x = (rng.normal(size=(5000, 2)) @ shape + 2.0 * labels[:, None]).astype(np.float32)
    priors = np.array([0.2, 0.5, 0.3])
    weight, bias = discriminant(x, labels, priors)

    means = np.array([x[labels == s].mean(axis=0) for s in range(3)], dtype=np.float64)
    within = np.cov((x - means[labels]).T, bias=True) + RIDGE * np.eye(2)
    away = x[:, None, :] - means
    log_p = -0.5 * np.einsum("nsi,ij,nsj->ns", away, np.linalg.inv(within), away) + np.log(priors)
    got = x @ weight + bias
    differ = (got - got[:, :1]) - (log_p - log_p[:, :1])  # equal up to a constant per frame
    np.testing.assert_allclose(differ, 0, atol=1e-3)
    assert (got.argmax(axis=1) == labels).mean() > 0.7


def test_a_state_without_frames_does_no_harm_to_the_discriminant():
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    weight, bias = discriminant(x, np.arange(50) % 2, np.full(3, 1 / 3))
    assert np.isfinite(weight).all() and np.isfinite(bias).all()
