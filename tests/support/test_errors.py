"""A message is one line that a person can read, whatever went into it."""

import pytest

from refimpl.support.errors import LONGEST, UserError, told


def test_a_long_message_keeps_its_beginning_and_its_remedy():
    text = str(UserError("no file " + "x" * 10**6 + ": give another"))
    assert text.startswith("no file xxx") and text.endswith("xxx: give another")
    assert len(text) <= LONGEST + 5 and "x ... x" in text
    assert str(UserError("one\n  two \n")) == "one two"


class Silent(Exception):
    def __str__(self):
        raise KeyError("no words")


@pytest.mark.parametrize(
    "error, text",
    [
        (ValueError("mine"), "ValueError: mine"),
        (SystemExit(3), "SystemExit: 3"),
        (Silent(), "Silent"),
        (ValueError("x" * 10**6), "ValueError: " + "x" * 500),
    ],
)
def test_what_others_raise_is_told_by_kind_and_text(error, text):
    assert told(error) == text
