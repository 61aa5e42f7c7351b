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
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from refimpl.support.errors import UserError, require


class Phone(NamedTuple):
    """A phone of an exact alignment; seconds from the utterance's start."""

    name: str
    start: float
    end: float


class Utterance(NamedTuple):
    """One line of every file of a data directory."""

    name: str
    speaker: str | None  # None: unknown, its features are normalised on their own
    words: tuple[str, ...] | None  # None: unknown, to be decoded
    wav: str  # path of the recording
    start: float = 0.0  # seconds in the recording
    end: float | None = None  # None: to its end
    phones: tuple[Phone, ...] | None = None  # exact alignment, if there is one


def read_data_directory(directory: str | Path) -> list[Utterance]:
    """Return the utterances of a data directory, sorted by name.

    Raises
    ------
    UserError
        If the directory, wav.scp, text or utt2spk is missing or empty, a line is malformed, a
        name occurs twice or in one file only, wav.scp has a pipe, or a wav does not exist.
    """
    folder = Path(directory)
    require(
        folder.is_dir(),
        f"no data directory {folder}: give a folder with wav.scp, text and utt2spk",
    )
    for name in ("wav.scp", "text", "utt2spk"):
        require(
            (folder / name).is_file(),
            f"data directory {folder} has no {name}: it needs wav.scp, text and utt2spk",
        )
    recordings = read_table(folder / "wav.scp", "a path")
    words = read_table(folder / "text", "words")
    speakers = read_table(folder / "utt2spk", "a speaker")
    same_names(words, folder / "text", speakers, folder / "utt2spk")

    for name, (line, path) in recordings.items():
        where = f"{folder / 'wav.scp'}:{line}: recording {name}"
        require(
            not path.endswith("|") and path != "-",
            f"{where} is a pipe, which is not run here: "
            "write its output to a wav file and name that",
        )
        require(
            (folder / path).is_file(),
            f"{where}: no file {folder / path}: paths are relative to wav.scp's folder",
        )

    segments_file, ctm_file = folder / "segments", folder / "ctm"
    if segments_file.is_file():
        segments = read_segments(segments_file, recordings, folder / "wav.scp")
        same_names(words, folder / "text", segments, segments_file)
    else:
        same_names(words, folder / "text", recordings, folder / "wav.scp")
        segments = {name: (name, 0.0, None) for name in words}
    phones = read_ctm(ctm_file) if ctm_file.is_file() else {}
    if phones:
        same_names(words, folder / "text", phones, ctm_file)

    utterances = []
    for name in sorted(words):
        recording, start, end = segments[name]
        utterances.append(
            Utterance(
                name=name,
                speaker=speakers[name][1],
                words=tuple(words[name][1].split()),
                wav=str(folder / recordings[recording][1]),
                start=start,
                end=end,
                phones=phones.get(name),
            )
        )
    return utterances


def read_lines(file: Path) -> list[tuple[int, str]]:
    """Return (line number, text) of every line that is not blank; one at least."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {file}: {error}") from None
    lines = [(i, line.strip()) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    require(bool(lines), f"{file} is empty: it needs one line per utterance")
    return lines


def read_table(file: Path, what: str) -> dict[str, tuple[int, str]]:
    """Return name -> (line number, rest of the line) of a file `name rest`."""
    table: dict[str, tuple[int, str]] = {}
    for line, text in read_lines(file):
        name, _, rest = text.partition(" ") if "\t" not in text else text.partition("\t")
        require(bool(rest.strip()), f"{file}:{line}: {name} stands alone: it needs {what}")
        require(
            name not in table,
            f"{file}:{line}: {name} is there twice, first in line {table.get(name, (0,))[0]}: "
            "names must differ",
        )
        table[name] = line, rest.strip()
    return table


def same_names(a: dict, a_file: Path, b: dict, b_file: Path) -> None:
    """Refuse two files that do not name the same utterances."""
    for some, some_file, others, other_file in ((a, a_file, b, b_file), (b, b_file, a, a_file)):
        missing = sorted(set(some) - set(others))
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise UserError(
                f"{missing[0]}{more} is in {some_file} but not in {other_file}: "
                "both must name the same utterances"
            )


def numbers(file: Path, line: int, *texts: str) -> list[float]:
    """Return texts as numbers, or refuse the line."""
    try:
        return [float(text) for text in texts]
    except ValueError:
        raise UserError(
            f"{file}:{line}: {' '.join(texts)} are not numbers: times are in seconds"
        ) from None


def read_segments(
    file: Path, recordings: dict, wav_scp: Path
) -> dict[str, tuple[str, float, float | None]]:
    """Return utterance -> (recording, start, end) of a segments file; end None: to the end."""
    segments: dict[str, tuple[str, float, float | None]] = {}
    for name, (line, rest) in read_table(file, "a recording, a start and an end").items():
        fields = rest.split()
        require(
            len(fields) == 3,
            f"{file}:{line}: {name} needs a recording, a start and an end, not {rest!r}",
        )
        recording = fields[0]
        start, end = numbers(file, line, *fields[1:])
        require(
            recording in recordings,
            f"{file}:{line}: utterance {name} is cut from {recording}, "
            f"a recording that is not in {wav_scp}",
        )
        require(
            start >= 0 and (end == -1 or end > start),
            f"{file}:{line}: utterance {name} goes from {start:g} to {end:g} s: "
            "it must start at 0 or later and end after that (or at -1, the recording's end)",
        )
        segments[name] = recording, start, None if end == -1 else end
    return segments


def read_ctm(file: Path) -> dict[str, tuple[Phone, ...]]:
    """Return utterance -> its phones in order of time."""
    phones: dict[str, list[Phone]] = {}
    for line, text in read_lines(file):
        fields = text.split()
        require(
            len(fields) in (5, 6),
            f"{file}:{line}: {text!r} is not `utterance channel start duration phone`",
        )
        start, duration = numbers(file, line, *fields[2:4])
        require(
            start >= 0 and duration >= 0,
            f"{file}:{line}: start {start:g} and duration {duration:g} must not be negative",
        )
        phones.setdefault(fields[0], []).append(Phone(fields[4], start, start + duration))
    return {name: tuple(sorted(those, key=lambda p: p.start)) for name, those in phones.items()}
