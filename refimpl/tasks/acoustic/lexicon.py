"""The lexicon: each word's phones.

A file of lines `word phone phone ...`.  A word may stand on several lines, also as word(2),
word(3): these are its pronunciations, and aligning and decoding take whichever fits best.

    word 0.99 phone ...                    Kaldi's lexiconp.txt: a probability, passed over
    word 0.99 0.2 1.3 0.9 phone ...        MFA's, and lexiconp_silprob.txt: four of them
    # ...   ;;; ...   word phone # ...     comments
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from refimpl.support.errors import require
from refimpl.tasks.acoustic.text import fields, is_file, read_lines, shown
from refimpl.tasks.faults import Faults

COMMENTS = ("#", ";;;")
FRACTION = re.compile(r"[0-9]*\.[0-9]+([eE][-+]?[0-9]+)?")  # no phone is called so
NUMBER = re.compile(r"[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?")
ALTERNATIVE = re.compile(r"(.+)\([0-9]+\)")
PRONUNCIATIONS = 200  # of a word: the aligner numbers a node's predecessors in a byte
PHONES = 10_000  # of a lexicon: states are gathered as 16-bit integers


@dataclass(frozen=True)
class Lexicon:
    """Words and their pronunciations, and the phones of all of them.

    >>> lexicon = Lexicon({"no": (("n", "ow"),), "on": (("ao", "n"), ("aa", "n"))}, "sil")
    >>> lexicon.phones
    ('sil', 'aa', 'ao', 'n', 'ow')
    >>> lexicon.fewest_phones(("on", "no"))
    4
    """

    pronunciations: dict[str, tuple[tuple[str, ...], ...]]  # sorted by word
    silence: str  # the phone between words; no word may hold it

    @property
    def words(self) -> tuple[str, ...]:
        """All words, sorted."""
        return tuple(self.pronunciations)

    @property
    def phones(self) -> tuple[str, ...]:
        """Silence, then the words' phones, sorted."""
        return self.silence, *sorted(
            {phone for some in self.pronunciations.values() for one in some for phone in one}
        )

    def fewest_phones(self, words: tuple[str, ...]) -> int:
        """Return the length in phones of the shortest way to say the words."""
        return sum(min(map(len, self.pronunciations[word])) for word in words)


def read_lexicon(file: str | Path, silence: str) -> Lexicon:
    """Return the lexicon in a file.

    Raises `UserError` if it is missing or empty, a word has no phones, a line is there twice, a
    word is said with the silence phone, or what looks like a probability stands where none can.
    """
    file = Path(file)
    require(
        is_file(file), f"no lexicon {file}: it needs a line `word phone phone ...` for each word"
    )
    lines = [
        (line, fields(text.partition(" #")[0].partition("\t#")[0]))
        for line, text in read_lines(file)
        if not text.startswith(COMMENTS)
    ]
    require(bool(lines), f"{file} holds comments only: it needs a line for each word")
    words = {parts[0] for _, parts in lines}
    weighted = any(len(parts) > 1 and FRACTION.fullmatch(parts[1]) for _, parts in lines)
    found: dict[str, list[tuple[str, ...]]] = {}
    faults = Faults()
    for line, parts in lines:
        with faults.collected():
            where = f"{file}:{line}: word {shown(parts[0])}"
            word = base_form(parts[0], words, where)
            phones = without_weights(parts[1:], where) if weighted else tuple(parts[1:])
            require(bool(phones), f"{where} has no phones: write them behind it")
            require(
                silence not in phones,
                f"{where} is said with {silence}, the phone between words: give it another name",
            )
            said = found.setdefault(word, [])
            require(
                phones not in said, f"{where} is there twice with the same phones: remove one line"
            )
            require(
                len(said) < PRONUNCIATIONS,
                f"{where} has more than {PRONUNCIATIONS} pronunciations: remove the rarest",
            )
            said.append(phones)
    faults.refuse()
    lexicon = Lexicon({word: tuple(found[word]) for word in sorted(found)}, silence)
    require(
        len(lexicon.phones) <= PHONES,
        f"{file} has {len(lexicon.phones)} phones, at most {PHONES} are possible: are these "
        "letters or words?",
    )
    return lexicon


def base_form(word: str, words: set[str], where: str) -> str:
    """Return the word that this is an alternative form of, as read(2) of read, or itself."""
    match = ALTERNATIVE.fullmatch(word)
    if match is None:
        return word
    require(
        match[1] in words,
        f"{where} is an alternative form of {shown(match[1])}, which has no line itself: "
        "give it one, or this one its name",
    )
    return match[1]


def without_weights(parts: list[str], where: str) -> tuple[str, ...]:
    """Return the phones of a line without the numbers before them.

    One number is a probability of this pronunciation, four are that and three of silence around
    it.  None of them is used: all pronunciations of a word count alike.
    """
    numbers = 0
    while numbers < len(parts) and NUMBER.fullmatch(parts[numbers]):
        numbers += 1
    require(
        numbers in (0, 1, 4),
        f"{where} has {numbers} numbers before its phones: one probability is understood, or "
        "four as in lexicons of MFA",
    )
    phones = tuple(parts[numbers:])
    for phone in phones:
        require(
            not FRACTION.fullmatch(phone),
            f"{where} has the number {phone} between its phones: probabilities stand before them",
        )
    return phones
