"""Forced alignment finds the best of all paths, whatever is aligned beside it."""

import itertools

import numpy as np
import pytest
from two_words import LEXICON, STATES, random_case

from refimpl.tasks.acoustic.align import align, batches, best_paths, utterance_graph
from refimpl.tasks.acoustic.hmm import Statistics, equal_division


def state_rows(words):
    """Every row of states that says the words: all pronunciations, with and without silence."""
    gaps = itertools.product([(), (LEXICON.silence,)], repeat=len(words) + 1)
    for gap in gaps:
        for said in itertools.product(*(LEXICON.pronunciations[word] for word in words)):
            phones = gap[0]
            for one, silence in zip(said, gap[1:], strict=True):
                phones += one + silence
            yield STATES.of(phones)


def stretched(row, frames):
    """Every way to spend the frames on the states of a row."""
    for cuts in itertools.combinations(range(1, frames), len(row) - 1):
        lengths = np.diff([0, *cuts, frames])
        yield np.repeat(row, lengths), lengths


def brute_force(words, likelihood, statistics):
    """The best of all paths, each scored by itself."""
    best = -np.inf, None
    for row in state_rows(words):
        for path, lengths in stretched(row, len(likelihood)):
            score = likelihood[np.arange(len(path)), path].sum()
            score += ((lengths - 1) * statistics.log_stay[row]).sum()
            score += statistics.log_move[row].sum()
            if score > best[0]:
                best = score, path
    return best


CASES = [(("a",), 3), (("a",), 9), (("no",), 10), (("a", "a"), 10), (("a", "no"), 12)]


@pytest.mark.parametrize("words, frames", CASES)
def test_best_path_is_the_best_of_all(words, frames):
    for seed in range(4):
        likelihood, statistics = random_case(seed, frames)
        graph = utterance_graph(words, LEXICON, STATES)
        ((score, path),) = best_paths([likelihood], [graph], statistics)
        want_score, want_path = brute_force(words, likelihood, statistics)
        assert score == pytest.approx(want_score)
        np.testing.assert_array_equal(path, want_path)


def test_an_utterance_is_aligned_the_same_in_any_company():
    cases = [(words, frames, seed) for words, frames in CASES for seed in range(3)]
    likelihoods = [random_case(seed, frames)[0] for _, frames, seed in cases]
    graphs = [utterance_graph(words, LEXICON, STATES) for words, _, _ in cases]
    statistics = random_case(0, 1)[1]
    together = best_paths(likelihoods, graphs, statistics)
    in_batches = align(likelihoods, graphs, statistics)
    for one, graph, a, b in zip(likelihoods, graphs, together, in_batches, strict=True):
        ((score, path),) = best_paths([one], [graph], statistics)
        assert a[0] == b[0] == score
        np.testing.assert_array_equal(a[1], path)
        np.testing.assert_array_equal(b[1], path)


def test_too_few_frames_have_no_path():
    likelihood, statistics = random_case(0, 5)
    graph = utterance_graph(("no",), LEXICON, STATES)
    ((score, path),) = best_paths([likelihood], [graph], statistics)
    assert score == -np.inf and len(path) == 5


def test_clear_evidence_is_followed():
    """Silence, n, ow without silence after: the likelihoods say so, the alignment too."""
    said = np.concatenate([STATES.silence, STATES.of(("n", "ow"))])
    want = equal_division(said, 30)
    likelihood = np.full((30, STATES.count), -10.0)
    likelihood[np.arange(30), want] = 0
    graph = utterance_graph(("no",), LEXICON, STATES)
    statistics = random_case(0, 1)[1]
    ((_, path),) = best_paths([likelihood], [graph], statistics)
    np.testing.assert_array_equal(path, want)


def test_ties_go_to_staying():
    likelihood = np.zeros((6, STATES.count))
    half = Statistics(np.full(STATES.count, 0.1), np.full(STATES.count, 0.5))
    graph = utterance_graph(("no",), LEXICON, STATES)
    ((_, path),) = best_paths([likelihood], [graph], half)
    np.testing.assert_array_equal(path, STATES.of(("n", "ow")))
    graph = utterance_graph(("a",), LEXICON, STATES)
    ((_, path),) = best_paths([likelihood[:4]], [graph], half)
    # Read backwards: it stays in the last state as long as it can.
    np.testing.assert_array_equal(path, STATES.of(("ah",))[[0, 1, 2, 2]])


def test_batches_hold_everybody_once_and_are_bounded():
    sizes = np.random.default_rng(0).integers(1, 50, 100).tolist()
    found = list(batches(sizes, limit=120))
    assert sorted(u for batch in found for u in batch) == list(range(100))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(sizes[u] for u in batch) <= 120
