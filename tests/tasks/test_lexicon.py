"""Lexicons: every form that is understood, and the line of what is not."""

import time

import numpy as np
import pytest

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic.align import best_paths, utterance_graph
from refimpl.tasks.acoustic.hmm import States, Statistics
from refimpl.tasks.acoustic.lexicon import Lexicon, read_lexicon


def test_lexicon_keeps_every_pronunciation(tmp_path):
    (tmp_path / "lexicon.txt").write_text("the dh ah\nthe dh iy\na ah\n")
    lexicon = read_lexicon(tmp_path / "lexicon.txt", "sil")
    assert lexicon == Lexicon({"a": (("ah",),), "the": (("dh", "ah"), ("dh", "iy"))}, "sil")
    assert lexicon.words == ("a", "the")
    assert lexicon.phones == ("sil", "ah", "dh", "iy")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "is empty"),
        ("a ah\nb\n", "lexicon.txt:2: word b has no phones"),
        ("a ah\na ah\n", "lexicon.txt:2: word a is there twice"),
        ("a ah sil\n", "lexicon.txt:1: word a is said with sil"),
    ],
)
def test_what_is_wrong_in_a_lexicon_is_named(tmp_path, text, message):
    (tmp_path / "lexicon.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        read_lexicon(tmp_path / "lexicon.txt", "sil")


def lexicon_of(folder, text):
    (folder / "lexicon.txt").write_bytes(text.encode())
    return read_lexicon(folder / "lexicon.txt", "sil")


PLAIN = "the dh ah\nthe dh iy\na ah\n"


@pytest.mark.parametrize(
    "text",
    [
        "the 0.62 dh ah\nthe 0.38 dh iy\na 1.0 ah\n",  # lexiconp.txt
        "the\t0.62\tdh ah\nthe\t0.38\tdh iy\na\t1\tah\n",
        "the\t0.99\t0.7\t1.24\t0.95\tdh ah\nthe 1e-3 .7 1.2 1 dh iy\na 1.0 1.0 1 1 ah\n",  # MFA
        "the 0.62 dh ah\nthe dh iy\na ah\n",  # some lines only
        "the dh ah\nthe(2) dh iy\na ah\n",
        "the(2) dh iy\nA ah\nthe dh ah\na ah\n",
        ";;; words\n# more words here\nthe dh ah # not thee\nthe dh iy\t#thee\na ah\n#\n",
        "\ufeff" + PLAIN.replace("\n", "\r\n"),
        "\n\n" + PLAIN.replace(" ", "\t  "),
    ],
)
def test_probabilities_comments_and_alternative_forms_are_understood(tmp_path, text):
    lexicon = lexicon_of(tmp_path, text)
    assert lexicon.phones == ("sil", "ah", "dh", "iy")
    assert set(lexicon.pronunciations["the"]) == {("dh", "ah"), ("dh", "iy")}
    assert lexicon.pronunciations["a"] == (("ah",),)


def test_phones_may_be_whole_numbers_where_nothing_is_a_probability(tmp_path):
    lexicon = lexicon_of(tmp_path, "neuf n 9 f\noeuf 9 f\n")
    assert lexicon.pronunciations["oeuf"] == (("9", "f"),)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a 0.5\n", "lexicon.txt:1: word a has no phones"),
        ("b 0.5 b\na 0.5 0.3 ah\n", "lexicon.txt:2: word a has 2 numbers before its phones"),
        ("b 0.5 b\na ah 0.99 b\n", "lexicon.txt:2: word a has the number 0.99 between"),
        ("a(2) ah\n", r"lexicon.txt:1: word a\(2\) is an alternative form of a, which has no"),
        ("a ah\na(2) ah\n", r"lexicon.txt:2: word a\(2\) is there twice with the same"),
        ("a 0.5 ah\na 0.4 ah\n", "lexicon.txt:2: word a is there twice with the same"),
        ("# nothing\n;;;\n", "holds comments only"),
        ("a ah\nb\nc\nd ah sil\n", r"\(1\) .*:2: word b .* \(2\) .*:3: word c .*:4: word d"),
        ("".join(f"a p{i}\n" for i in range(300)), ":201: word a has more than 200 pronunc"),
        ("".join(f"w{i} p{i}\n" for i in range(10_000)), "has 10001 phones, at most 10000"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        lexicon_of(tmp_path, text)


def test_a_separator_of_unicode_does_not_make_two_words_of_a_line(tmp_path):
    lexicon = lexicon_of(tmp_path, "zed z eh d\u2028oh ow\noh ow\n")
    assert lexicon.words == ("oh", "zed")
    assert lexicon.pronunciations["zed"] == (("z", "eh", "d\u2028oh", "ow"),)


def test_twenty_thousand_words_are_read_in_a_moment(tmp_path):
    text = "".join(
        f"w{i:05d} 0.5 {' '.join(f'p{i * k % 50}' for k in range(8))}\n" for i in range(20_000)
    )
    since = time.process_time()
    lexicon = lexicon_of(tmp_path, text)
    states = States(lexicon.phones)
    for some in lexicon.pronunciations.values():
        states.of(some[0])
    assert time.process_time() - since < 10
    assert len(lexicon.words) == 20_000


def test_a_word_of_as_many_pronunciations_as_may_be_is_aligned(tmp_path):
    lexicon = lexicon_of(tmp_path, "".join(f"a p{i}\n" for i in range(200)))
    states = States(lexicon.phones)
    graph = utterance_graph(("a", "a"), lexicon, states)
    even = np.full(states.count, 0.5)
    likelihood = np.random.default_rng(0).normal(size=(8, states.count))
    ((score, path),) = best_paths([likelihood], [graph], Statistics(even, even))
    assert np.isfinite(score) and len(path) == 8


def test_a_missing_lexicon_is_named(tmp_path):
    with pytest.raises(UserError, match="no lexicon .*lexicon.txt"):
        read_lexicon(tmp_path / "lexicon.txt", "sil")
