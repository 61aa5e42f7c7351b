"""The decoder finds the best of all word sequences."""

import itertools
import tracemalloc

import numpy as np
import pytest
from two_words import LEXICON, STATES, random_case

from refimpl.tasks.acoustic.align import best_paths, utterance_graph
from refimpl.tasks.acoustic.decode import WordLoop
from refimpl.tasks.acoustic.hmm import equal_division
from refimpl.tasks.acoustic.lexicon import Lexicon


def best_of_all(likelihood, statistics, penalty, scale):
    """Every word sequence that fits, scored by its best alignment."""
    best, winner = -np.inf, None
    for length in range(1, len(likelihood) // 3 + 1):
        for words in itertools.product(LEXICON.words, repeat=length):
            graph = utterance_graph(words, LEXICON, STATES)
            ((score, _),) = best_paths([likelihood * scale], [graph], statistics)
            if score + penalty * length > best:
                best, winner = score + penalty * length, words
    return winner


@pytest.mark.parametrize("frames", [3, 6, 9, 13])
@pytest.mark.parametrize("penalty, scale", [(0.0, 1.0), (-4.0, 1.0), (-1.0, 0.3), (9.0, 1.0)])
def test_words_are_the_best_of_all_sequences(frames, penalty, scale):
    for seed in range(8):
        likelihood, statistics = random_case(seed, frames)
        likelihood[:, STATES.silence] -= 100  # leaves silence out of what is compared
        loop = WordLoop(LEXICON, STATES, statistics)
        (got,) = loop.decode([likelihood], penalty, scale)
        assert got == best_of_all(likelihood, statistics, penalty, scale)


def spoken(*phones, frames=5):
    """Likelihoods of somebody who clearly says these phones."""
    states = STATES.of(phones)
    path = equal_division(states, frames * len(states))
    likelihood = np.full((len(path), STATES.count), -8.0)
    likelihood[np.arange(len(path)), path] = 0
    return likelihood


@pytest.mark.parametrize(
    "phones, words",
    [
        (("sil",), ()),
        (("ah",), ("a",)),
        (("ey",), ("a",)),
        (("sil", "n", "ow", "sil"), ("no",)),
        (("n", "ow", "n", "ow"), ("no", "no")),
        (("n", "ow", "sil", "ah", "ey", "sil"), ("no", "a", "a")),
    ],
)
def test_clear_speech_is_understood(phones, words):
    statistics = random_case(0, 1)[1]
    loop = WordLoop(LEXICON, STATES, statistics)
    assert loop.decode([spoken(*phones)], -2.0, 0.5) == [words]


def test_a_lower_penalty_gives_no_more_words():
    likelihood, statistics = random_case(7, 60)
    loop = WordLoop(LEXICON, STATES, statistics)
    counts = [len(loop.decode([likelihood], p, 1.0)[0]) for p in (5.0, 0.0, -5.0, -50.0)]
    assert counts == sorted(counts, reverse=True) and counts[0] > counts[-1]


def test_an_utterance_is_decoded_the_same_in_any_company():
    cases = [random_case(seed, frames)[0] for seed, frames in enumerate((2, 3, 40, 7, 100, 41))]
    loop = WordLoop(LEXICON, STATES, random_case(0, 1)[1])
    alone = [loop.best_words([one], -1.0, 1.0)[0] for one in cases]
    assert loop.best_words(cases, -1.0, 1.0) == alone
    assert loop.decode(cases, -1.0, 1.0) == alone
    assert alone[0] == ()  # nothing fits into two frames


def test_memory_does_not_grow_with_frames_times_nodes():
    many = {f"no{i}": (("n", "ow"),) for i in range(2000)}
    loop = WordLoop(Lexicon(LEXICON.pronunciations | many, "sil"), STATES, random_case(0, 1)[1])
    peaks = []
    for frames in (20, 120):
        likelihood = random_case(0, frames)[0]
        tracemalloc.start()
        loop.decode([likelihood], -1.0, 1.0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 50 * len(loop.state)
