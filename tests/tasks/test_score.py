"""Word errors are the fewest edits, and their kinds are the documented ones."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.tasks.acoustic.score import WordErrors, word_errors

words = st.lists(st.sampled_from("ab"), max_size=6)


def fewest(said, heard):
    """Every way to edit, tried."""

    @cache
    def edits(i, j):
        if i == len(said) or j == len(heard):
            return len(said) - i + len(heard) - j
        swap = edits(i + 1, j + 1) + (said[i] != heard[j])
        return min(swap, 1 + edits(i + 1, j), 1 + edits(i, j + 1))

    return edits(0, 0)


@given(words, words)
def test_errors_are_as_few_as_can_be(said, heard):
    assert word_errors(said, heard).errors == fewest(tuple(said), tuple(heard))


@given(words, words)
def test_deletions_and_insertions_make_up_the_difference_in_length(said, heard):
    errors = word_errors(said, heard)
    assert len(said) - errors.deletions + errors.insertions == len(heard)
    assert errors.words == len(said)


@given(words, words)
def test_hearing_and_saying_change_places(said, heard):
    assert word_errors(said, heard).errors == word_errors(heard, said).errors


@pytest.mark.parametrize(
    "said, heard, counts",
    [
        ("one two", "one two", (0, 0, 0, 2)),
        ("one two", "", (0, 2, 0, 2)),
        ("", "one two", (0, 0, 2, 0)),
        ("one two three", "one too three four", (1, 0, 1, 3)),
        ("a b", "b c", (2, 0, 0, 2)),  # ties with deleting a and inserting c
        ("a b c", "b", (0, 2, 0, 3)),
    ],
)
def test_kinds_of_errors_by_hand(said, heard, counts):
    assert tuple(word_errors(said.split(), heard.split())) == counts


def test_counts_add_up():
    total = WordErrors.total([WordErrors(1, 2, 3, 10), WordErrors(0, 1, 0, 10)])
    assert total == WordErrors(1, 3, 3, 20)
    assert total.wer == 7 / 20
    assert total.as_dict() == {
        "wer": 0.35,
        "substitutions": 1,
        "deletions": 3,
        "insertions": 3,
        "words": 20,
    }
    assert WordErrors.total([]) == WordErrors()
