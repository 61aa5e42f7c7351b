"""A corpus of digit strings: the plan, and the folders written from it.

DIR/{train,dev,test}/   wav.scp, text, utt2spk, spk2gender, ctm, wav/*.wav
DIR/lexicon.txt         word phone phone ...
DIR/corpus.json         the settings it was made with

The lists are those of Kaldi, sorted by utterance; wav.scp's paths are relative to the folder
it is in.  ``ctm`` has a line ``utterance 1 start duration phone`` for each phone, silence
included, in seconds: exact, since the sound was made from it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

from refimpl.numerics.rng import stream
from refimpl.support.errors import listed, refused, require
from refimpl.support.files import partial_of
from refimpl.tasks.acoustic.synth.articulation import TICK, timing, tracks
from refimpl.tasks.acoustic.synth.phones import LEXICON
from refimpl.tasks.acoustic.synth.scene import record
from refimpl.tasks.acoustic.synth.speakers import Speaker, speaker
from refimpl.tasks.acoustic.synth.voice import RATE, speak
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator

RATES = (8000, RATE)
SPEAKERS = {"train": 90, "dev": 10, "test": 10}
UTTERANCES = {"train": 720, "dev": 60, "test": 60}
LONGEST = 7  # words

Alignment = list[tuple[float, float, str]]  # start, duration (seconds), phone


class Utterance(NamedTuple):
    """What is to be said, and by whom; all that `synthesize` needs."""

    seed: int
    split: str
    number: int
    speaker: int
    words: tuple[str, ...]

    @property
    def voice(self) -> Speaker:
        return speaker(self.seed, self.split, self.speaker)

    @property
    def speaker_name(self) -> str:
        return f"{self.split}-{self.speaker:03d}"

    @property
    def name(self) -> str:
        return f"{self.speaker_name}-{self.number:05d}"


def corpus_plan(
    seed: int = 0,
    speakers: Mapping[str, int] = SPEAKERS,
    utterances: Mapping[str, int] = UTTERANCES,
) -> list[Utterance]:
    """Return the utterances of a corpus, sorted by name within each split.

    Speakers take turns.  Utterance u of a split is a function of (seed, split, u) and of the
    split's number of speakers alone: a longer corpus begins with the same utterances.
    """
    digits = tuple(LEXICON)
    plan = []
    for split, count in utterances.items():
        for u in range(count):
            rng = stream(seed, "synth words", split, u)
            words = rng.integers(len(digits), size=rng.integers(1, LONGEST + 1))
            who = u % speakers[split]
            plan.append(Utterance(seed, split, u, who, tuple(digits[w] for w in words)))
    return sorted(plan, key=lambda utterance: (utterance.split, utterance.name))


def synthesize(utterance: Utterance, rate: int = RATE) -> tuple[NDArray[np.int16], Alignment]:
    """Return the samples and the alignment [(start, duration, phone), ...] in seconds.

    The phones tile the samples: the first starts at 0, each starts where the one before it
    ends, and the last ends with the samples.  At 8000 Hz it is the same sound, band-limited.
    """
    who = utterance.voice
    rng = stream(utterance.seed, "synth utterance", utterance.split, utterance.number)
    spans = timing(utterance.words, who, rng)
    samples = record(speak(tracks(spans, who, rng), who, rng), who, rate, rng)
    return samples, [(s.start * TICK, s.ticks * TICK, s.phone) for s in spans]


def write_corpus(
    directory: str | os.PathLike,
    *,
    seed: int = 0,
    rate: int = RATE,
    speakers: Mapping[str, int] = SPEAKERS,
    utterances: Mapping[str, int] = UTTERANCES,
    comm: Communicator | None = None,
    others: bool = False,
) -> None:
    """Write a corpus of synthesized digit strings to ``directory``, whole or not at all.

    It is written beside ``directory`` under a temporary name and renamed when complete.
    The files are the same bytes for every number of ranks.  ``comm``: collective; each rank
    synthesizes every size-th utterance, and all of them see one file system.  ``others``: other
    jobs may write the same corpus there at this time; the first to be complete stands.

    Raises `UserError` if the rate or a count is not possible, or ``directory`` is there and not
    empty. On every rank.
    """
    _check(rate, speakers, utterances)
    rank, size = (comm.rank, comm.size) if comm else (0, 1)
    target = Path(directory).absolute()
    partial = comm.bcast_object(partial_of(target)) if comm else partial_of(target)
    plan = corpus_plan(seed, speakers, utterances)
    try:
        with _together(comm, target):
            if rank == 0:
                _prepare(target, partial, utterances, others)
        with _together(comm, target):
            spans = write_wavs(partial, plan[rank::size], rate, comm)
        everyones = comm.allgather_object(spans) if comm else [spans]
        with _together(comm, target):
            if rank == 0:
                alignments = {name: span for part in everyones for name, span in part.items()}
                settings: dict[str, Any] = {"seed": seed, "rate": rate}
                settings |= {"speakers": dict(speakers), "utterances": dict(utterances)}
                write_lists(partial, plan, alignments, settings)
                _complete(partial, target, others)
    finally:
        if rank == 0:
            shutil.rmtree(partial, ignore_errors=True)


def write_wavs(
    folder: Path, share: Sequence[Utterance], rate: int, comm: Communicator | None = None
) -> dict[str, Alignment]:
    """Synthesize these utterances into ``folder``; return their alignments by name."""
    alignments = {}
    for number, utterance in enumerate(share):
        if comm is not None:
            comm.events.progress("synthesizing", number, len(share))
        samples, alignments[utterance.name] = synthesize(utterance, rate)
        wavfile.write(folder / utterance.split / "wav" / f"{utterance.name}.wav", rate, samples)
    return alignments


def write_lists(
    folder: Path, plan: list[Utterance], alignments: Mapping[str, Alignment], settings: Mapping
) -> None:
    """Write all that is not sound: the lists of each split, the lexicon and the settings."""
    for split in settings["utterances"]:
        part = [utterance for utterance in plan if utterance.split == split]
        gender = {u.speaker_name: "f" if u.voice.kind == "woman" else "m" for u in part}
        lists = {
            "wav.scp": (f"{u.name} wav/{u.name}.wav" for u in part),
            "text": (f"{u.name} {' '.join(u.words)}" for u in part),
            "utt2spk": (f"{u.name} {u.speaker_name}" for u in part),
            "spk2gender": (f"{who} {gender[who]}" for who in sorted(gender)),
            "ctm": (
                f"{u.name} 1 {start:.3f} {duration:.3f} {phone}"
                for u in part
                for start, duration, phone in alignments[u.name]
            ),
        }
        for name, lines in lists.items():
            _write_lines(folder / split / name, lines)
    _write_lines(folder / "lexicon.txt", (f"{w} {' '.join(LEXICON[w])}" for w in LEXICON))
    _write_lines(folder / "corpus.json", [json.dumps({"made by": "refimpl", **settings})])


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)


def _complete(partial: Path, target: Path, others: bool) -> None:
    """Give a corpus that is written its name, unless another job's has come to stand there."""
    try:
        os.replace(partial, target)
    except OSError:
        if not (others and is_complete(target)):
            raise


def is_complete(directory: Path) -> bool:
    """Return whether a corpus is there; it comes in one piece, so one file tells of all."""
    return (directory / "corpus.json").is_file()


def _prepare(target: Path, partial: Path, splits: Iterable[str], others: bool) -> None:
    require(
        not target.exists()
        or (target.is_dir() and not any(target.iterdir()))
        or (others and is_complete(target)),
        f"{target} is there already: name a new directory, or remove this one first",
    )
    for split in splits:
        (partial / split / "wav").mkdir(parents=True)


@contextmanager
def _together(comm: Communicator | None, target: Path) -> Iterator[None]:
    """Make failures to write mistakes of the caller's, and raise one rank's on all of them."""
    with together(comm) if comm else nullcontext():
        try:
            yield
        except OSError as error:
            raise refused(error, f"cannot write the corpus {target}") from error


def _check(rate: int, speakers: Mapping[str, int], utterances: Mapping[str, int]) -> None:
    require(
        rate in RATES, f"sample rate {rate}: the synthesizer writes {' or '.join(map(str, RATES))}"
    )
    require(
        set(speakers) == set(utterances),
        f"speakers are given for {listed(speakers)} but utterances for {listed(utterances)}: "
        "give both for the same splits",
    )
    for split in utterances:
        require(
            1 <= speakers[split] <= utterances[split],
            f"{utterances[split]} utterances of {speakers[split]} speakers in {split}: "
            "there must be at least one speaker, and one utterance for each",
        )
