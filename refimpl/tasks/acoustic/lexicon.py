"""The lexicon: each word's phones.

A file of lines `word phone phone ...`.  A word may stand on several lines: these are its
pronunciations, and aligning and decoding take whichever fits best.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from refimpl.support.errors import require
from refimpl.tasks.acoustic.text import read_lines


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

    Raises
    ------
    UserError
        If it is missing or empty, a word has no phones, a line is there twice, or a word is
        said with the silence phone.
    """
    file = Path(file)
    require(
        file.is_file(),
        f"no lexicon {file}: it needs a line `word phone phone ...` for each word",
    )
    found: dict[str, list[tuple[str, ...]]] = {}
    for line, text in read_lines(file):
        word, *phones = text.split()
        where = f"{file}:{line}: word {word}"
        require(bool(phones), f"{where} has no phones: write them behind it")
        require(
            silence not in phones,
            f"{where} is said with {silence}, the phone between words: give it another name",
        )
        require(
            tuple(phones) not in found.get(word, []),
            f"{where} is there twice with the same phones: remove one line",
        )
        found.setdefault(word, []).append(tuple(phones))
    return Lexicon({word: tuple(found[word]) for word in sorted(found)}, silence)
