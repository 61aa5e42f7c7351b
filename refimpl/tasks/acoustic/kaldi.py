"""Kaldi's data directory: which utterances there are, who speaks, what is said, where it is.

    wav.scp     recording  path               of a RIFF wav, relative to this folder; no pipes
    text        utterance  word word ...
    utt2spk     utterance  speaker
    segments    utterance  recording  start  end    optional, seconds; end -1: to the end.
                                                    Without it an utterance is a recording.
    ctm         utterance  1  start  duration  phone    optional: the exact phone alignment,
                                                    seconds from the utterance's start

Every file has one line per utterance (`ctm`: one or more; wav.scp: one per recording), in any
order, and all of them the same utterances.  Whatever is wrong is refused with the file and the
line, never skipped: an experiment on fewer utterances than one believes is worse than none.
Several mistakes are told at once, the first three of them and how many more there are.
"""

from __future__ import annotations

import math
import sys
from array import array
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from refimpl.support.errors import UserError, require
from refimpl.tasks.acoustic.text import fields, is_file, read_lines, read_table, shown
from refimpl.tasks.faults import Faults

LONGEST = 10**9  # seconds: their samples can be counted


class Phones(NamedTuple):
    """An exact alignment, in order of its starts; seconds from the utterance's start.

    Arrays, as a large corpus has many phones: an object for each would take ten times the memory.
    """

    names: tuple[str, ...]  # (phones,)
    starts: NDArray[np.float64]  # (phones,)
    ends: NDArray[np.float64]


class Utterance(NamedTuple):
    """One line of every file of a data directory."""

    name: str
    speaker: str | None  # None: unknown, its features are normalised on their own
    words: tuple[str, ...] | None  # None: unknown, to be decoded
    wav: str  # path of the recording
    start: float = 0.0  # seconds in the recording
    end: float | None = None  # None: to its end
    phones: Phones | None = None  # exact alignment, if there is one
    line: int = 0  # of `text`

    @property
    def said(self) -> tuple[str, ...]:
        """The words of an utterance that is trained on or scored: they are known."""
        assert self.words is not None
        return self.words


class Segment(NamedTuple):
    """A line of a segments file: which part of which recording; seconds, None: to its end."""

    line: int
    recording: str
    start: float = 0.0
    end: float | None = None


def read_data_directory(directory: str | Path) -> list[Utterance]:
    """Return the utterances of a data directory, sorted by name.

    Raises `UserError` if the directory, wav.scp, text or utt2spk is missing or empty, a line is
    malformed, a name occurs twice or in one file only, wav.scp has a pipe, or a wav does not
    exist.
    """
    folder = Path(directory)
    require(
        folder.is_dir(),
        f"no data directory {folder}: give a folder with wav.scp, text and utt2spk",
    )
    for name in ("wav.scp", "text", "utt2spk"):
        require(
            is_file(folder / name),
            f"data directory {folder} has no {name}: it needs wav.scp, text and utt2spk",
        )
    faults = Faults()
    text, wav_scp = folder / "text", folder / "wav.scp"
    recordings = words = speakers = segments = phones = None
    with faults.collected():
        recordings = read_table(wav_scp, "a path")
    with faults.collected():
        words = read_table(text, "words")
    with faults.collected():
        speakers = read_table(folder / "utt2spk", "a speaker")
    with faults.collected():
        segments = read_segments(folder / "segments") if is_file(folder / "segments") else None
    with faults.collected():
        phones = read_ctm(folder / "ctm") if is_file(folder / "ctm") else None
    faults.refuse()
    assert recordings is not None and words is not None and speakers is not None

    others = {"utt2spk": speakers, "segments": segments, "ctm": phones}
    if segments is None:
        others["wav.scp"] = recordings
    for name, table in others.items():
        if table is not None:
            with faults.collected():
                same_names(words, text, table, folder / name)
    for name, (line, path) in recordings.items():
        with faults.collected():
            check_recording(folder, path, f"{wav_scp}:{line}: recording {shown(name)}")
    for name, segment in (segments or {}).items():
        with faults.collected():
            require(
                segment.recording in recordings,
                f"{folder / 'segments'}:{segment.line}: utterance {shown(name)} is cut from "
                f"{shown(segment.recording)}, a recording that is not in {wav_scp}",
            )
    faults.refuse()

    utterances = []
    for name in sorted(words):
        cut = segments[name] if segments else Segment(0, name)
        line, said = words[name]
        utterances.append(
            Utterance(
                name=name,
                speaker=sys.intern(speakers[name][1]),  # in memory once, not once a line
                words=tuple(map(sys.intern, fields(said))),
                wav=str(folder / recordings[cut.recording][1]),
                start=cut.start,
                end=cut.end,
                phones=phones[name] if phones else None,
                line=line,
            )
        )
    return utterances


def check_recording(folder: Path, path: str, where: str) -> None:
    """Refuse a line of wav.scp that names no file."""
    require(
        not path.endswith("|") and path != "-",
        f"{where} is a pipe, which is not run here: write its output to a wav file and name that",
    )
    there = shown(str(folder / path), 1000)
    require(
        is_file(folder / path),
        f"{where}: no file {there}: paths are relative to wav.scp's folder, and what they name "
        "must be a file, no folder and no named pipe",
    )


def same_names(a: dict, a_file: Path, b: dict, b_file: Path) -> None:
    """Refuse two files that do not name the same utterances."""
    for some, some_file, others, other_file in ((a, a_file, b, b_file), (b, b_file, a, a_file)):
        missing = sorted(set(some) - set(others))
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UserError(
                f"{shown(missing[0])}{more} is in {some_file} but not in {other_file}: "
                "both must name the same utterances"
            )


def numbers(file: Path, line: int, *texts: str) -> list[float]:
    """Return texts as numbers of less than `LONGEST`, or refuse the line."""
    try:
        found = [float(text) for text in texts]
    except ValueError:
        found = [math.nan]
    if not all(abs(number) < LONGEST for number in found):  # no NaN is
        raise UserError(
            f"{file}:{line}: {shown(' '.join(texts))} are not numbers below {LONGEST:,}: times "
            "are in seconds"
        )
    return found


def read_segments(file: Path) -> dict[str, Segment]:
    """Return utterance -> segment of a segments file."""
    segments: dict[str, Segment] = {}
    faults = Faults()
    for name, (line, rest) in read_table(file, "a recording, a start and an end").items():
        with faults.collected():
            parts = fields(rest)
            require(
                len(parts) == 3,
                f"{file}:{line}: {shown(name)} needs a recording, a start and an end, "
                f"not {shown(rest)}",
            )
            start, end = numbers(file, line, *parts[1:])
            require(
                start >= 0 and (end == -1 or end > start),
                f"{file}:{line}: utterance {shown(name)} goes from {start:g} to {end:g} s: "
                "it must start at 0 or later and end after that (or at -1, the recording's end)",
            )
            segments[name] = Segment(line, parts[0], start, None if end == -1 else end)
    faults.refuse()
    return segments


def read_ctm(file: Path) -> dict[str, Phones]:
    """Return utterance -> its phones in order of time."""
    spoken: dict[str, int] = {}  # utterance -> its number
    named: dict[str, int] = {}  # phone -> its number
    utterance, phone = array("q"), array("q")
    starts, durations = array("d"), array("d")
    faults = Faults()
    for line, text in read_lines(file):
        with faults.collected():
            parts = fields(text)
            if len(parts) not in (5, 6):  # a text has many lines: words only for the wrong ones
                raise UserError(
                    f"{file}:{line}: {shown(text)} is not `utterance channel start duration phone`"
                )
            start, duration = numbers(file, line, *parts[2:4])
            if start < 0 or duration < 0:
                raise UserError(
                    f"{file}:{line}: start {start:g} and duration {duration:g} must not be "
                    "negative"
                )
            utterance.append(spoken.setdefault(parts[0], len(spoken)))
            phone.append(named.setdefault(parts[4], len(named)))
            starts.append(start)
            durations.append(duration)
    faults.refuse()
    order = np.lexsort((starts, utterance))  # those that start together stay in order
    begin = np.array(starts)[order]
    end = begin + np.array(durations)[order]
    names, those = list(named), np.array(phone)[order]
    counts = np.bincount(utterance)
    last = np.cumsum(counts)
    return {
        name: Phones(tuple(names[n] for n in those[a:b]), begin[a:b], end[a:b])
        for name, a, b in zip(spoken, last - counts, last, strict=True)
    }
