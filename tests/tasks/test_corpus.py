"""From a folder to frames and targets: what is read, what is mended, what is refused."""

import shutil
import threading
import tracemalloc
import warnings
from dataclasses import replace

import numpy as np
import pytest
from alone import Alone
from beeps import SIZES, TONES, beeps, linear
from loopback import spawn
from scipy.io import wavfile

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic import features, fingerprint, settings
from refimpl.tasks.acoustic.corpus import Corpus
from refimpl.tasks.acoustic.kaldi import read_data_directory
from refimpl.tasks.acoustic.recogniser import Recogniser
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.task import AcousticTask

FLAT = AcousticSettings(alignment="flat", flat_passes=1)


def one_utterance(folder, rate, seconds=10.0, sound=0.05):
    """Write a corpus of one utterance in each split, whose ah and iy take turns."""
    phones = [("ah", "iy")[k % 2] for k in range(round(seconds / sound))]
    t = np.arange(round(sound * rate)) / rate
    samples = np.concatenate([3000 * np.sin(2 * np.pi * TONES[p] * t) for p in phones])
    starts = np.cumsum([0] + [len(t)] * len(phones)) / rate
    for split in ("train", "dev", "test"):
        (folder / split).mkdir(parents=True)
        wavfile.write(folder / split / "a.wav", rate, samples.astype(np.int16))
        (folder / split / "wav.scp").write_text("a a.wav\n")
        (folder / split / "text").write_text("a" + " on" * (len(phones) // 2) + "\n")
        (folder / split / "utt2spk").write_text("a anna\n")
        (folder / split / "ctm").write_text(
            "".join(
                f"a 1 {start:.6f} {len(t) / rate:.6f} {phone}\n"
                for start, phone in zip(starts, phones, strict=False)
            )
        )
    (folder / "lexicon.txt").write_text("on ah iy\n")
    return starts, phones


def not_a_number(wav, value):
    """Make one sample of a recording this value."""
    rate, samples = wavfile.read(wav)
    samples = samples.astype(np.float32) / 32768
    samples[1000] = value
    wavfile.write(wav, rate, samples)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_samples_that_are_no_numbers_are_named_without_a_warning(tmp_path, value):
    one_utterance(tmp_path, 8000, seconds=1.0)
    not_a_number(tmp_path / "dev" / "a.wav", value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="utterance a has a feature that is not a number: .*a"):
            Corpus.read(Alone(), tmp_path, AcousticSettings(), None)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100])
def test_targets_are_what_sounds_in_the_middle_of_the_frame_at_any_rate(tmp_path, rate):
    """Counted in samples: frame t is samples t shift .. t shift + length - 1."""
    starts, phones = one_utterance(tmp_path, rate)
    corpus = Corpus.read(Alone(), tmp_path, AcousticSettings(), None)
    length, shift = int(0.025 * rate), int(0.010 * rate)
    labels = corpus.splits["train"].frames.labels
    middle = np.arange(len(labels)) * shift + length / 2
    want = [phones[k] for k in np.searchsorted(starts * rate, middle, side="right") - 1]
    got = [corpus.states.phones[state // 3] for state in labels]
    wrong = np.count_nonzero(np.array(got) != np.array(want))
    assert wrong <= 2, f"{wrong} of {len(labels)}"  # a boundary may fall on a frame's middle


def test_a_wrong_setting_of_many_numbers_is_told_once(monkeypatch):
    told = []
    monkeypatch.setattr(settings, "brief", lambda value: told.append(value) or "many")
    with pytest.raises(UserError, match="word_penalties is many: give 1 to 100"):
        AcousticSettings(word_penalties=(0.0,) * 1000)
    assert len(told) == 1  # each takes the time of writing all of them


# --------------------------------------------------------------------------- other machines


@pytest.mark.parametrize(
    "name", ["lexicon.txt", "train/text", "train/wav.scp", "train/ctm", "train/utt00.wav"]
)
def test_a_file_that_is_another_on_one_rank_is_refused_on_all(sound, monkeypatch, name):
    """Each machine has its own disk, here by the rank: the same path leads to another file."""
    ranks, real = {}, fingerprint.digest

    def digest(file):
        other = file == sound / name and ranks[threading.get_ident()] == 1
        return "another" if other else real(file)

    monkeypatch.setattr(fingerprint, "digest", digest)

    def body(comm):
        ranks[threading.get_ident()] = comm.rank
        with pytest.raises(UserError) as error:
            Corpus.read(comm, sound, FLAT, None)
        return str(error.value)

    (said,) = set(spawn((0, 0), body))
    assert said.startswith(f"ranks differ: {sound / name} is another file on rank 1 than on rank")


def test_files_are_compared_by_size_and_first_bytes(tmp_path):
    file = tmp_path / "text"
    assert fingerprint.digest(file) == ""
    seen = set()
    for content in (b"a b\n", b"a c\n", b"a b\n\n", b""):
        file.write_bytes(content)
        seen.add(fingerprint.digest(file))
    assert len(seen) == 4


# --------------------------------------------------------------------------- unknown words


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beeps") / "corpus"
    beeps(folder)
    return folder


@pytest.fixture
def corpus(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "corpus")


def rewrite(file, *changes):
    text = file.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    file.write_text(text)


@pytest.mark.parametrize("settings", [FLAT, AcousticSettings()], ids=["flat", "exact"])
def test_a_word_unknown_in_test_is_an_error_and_noted(sound, corpus, settings):
    want = AcousticTask.read(Alone(), sound, settings, None)
    rewrite(corpus / "test" / "text", ("utt01", "utt01 hundred"))
    task = AcousticTask.read(Alone(), corpus, settings, None)
    flat = settings is FLAT
    (note,) = task.notes
    assert "test/text: 1 words in 1 utterances are not in the lexicon (hundred)" in note
    assert note.endswith("frames of these utterances are not scored") == flat
    score, plain = (one.evaluate("test", linear(one), Alone()) for one in (task, want))
    unscored = np.diff(want.splits["test"].frames.offsets)[1] if flat else 0
    assert score["frames"] == plain["frames"] - unscored
    words, before = score["word_error_rate"], plain["word_error_rate"]
    assert words["words"] == before["words"] + 1
    edits = [
        sum(one[k] for k in ("substitutions", "deletions", "insertions"))
        for one in (words, before)
    ]
    assert edits[1] <= edits[0] <= edits[1] + 1


def test_frames_of_the_other_utterances_are_scored_as_ever(corpus):
    """The loss is that of the utterances whose words are known, to the bit."""
    whole = AcousticTask.read(Alone(), corpus, FLAT, None)
    outputs = linear(whole)
    rewrite(corpus / "test" / "text", ("utt01", "utt01 hundred"))
    whole.load(Alone(), "some", corpus / "test", None)
    for name in ("wav.scp", "text", "utt2spk", "ctm"):
        lines = (corpus / "test" / name).read_text().splitlines(keepends=True)
        kept = [line for line in lines if not line.startswith("utt01")]
        (corpus / "test" / name).write_text("".join(kept))
    whole.load(Alone(), "rest", corpus / "test", None)
    some, rest = (whole.evaluate(name, outputs, Alone(), words=False) for name in ("some", "rest"))
    assert some["frames"] == rest["frames"]
    assert some["loss"] == pytest.approx(rest["loss"], rel=0.05)  # speakers' means differ


def test_data_without_a_known_word_are_refused(corpus):
    for name in ("dev", "test"):
        lines = (corpus / name / "text").read_text().splitlines()
        (corpus / name / "text").write_text("".join(f"{one.split()[0]} x\n" for one in lines))
    with pytest.raises(UserError, match="dev/text: 5 words in 5 .* and there are no others"):
        AcousticTask.read(Alone(), corpus, FLAT, None)


def test_words_unknown_in_training_are_refused_together_with_their_lines(corpus):
    rewrite(corpus / "train" / "text", ("utt01", "utt01 nose"), ("utt03", "utt03 toe\u00a0s"))
    with pytest.raises(UserError) as error:
        AcousticTask.read(Alone(), corpus, FLAT, None)
    text = str(error.value)
    assert "train/text:2: word nose of utterance utt01 is not in the lexicon" in text
    assert "train/text:4: word 'toe\\xa0s' of utterance utt03" in text and "\n" not in text


# --------------------------------------------------------------------------- alignments


def retimed(file, start, duration):
    """Change the times of a ctm, by functions of the times."""
    rows = [line.split() for line in file.read_text().splitlines()]
    lines = [f"{a} {b} {start(float(c)):g} {duration(float(d)):g} {e}\n" for a, b, c, d, e in rows]
    file.write_text("".join(lines))


WRONG_TIMES = {
    "of the recording": (lambda t: t + 100, lambda t: t, r"utt00 in .*dev/ctm end at 10\d.* long"),
    "milliseconds": (lambda t: 1000 * t, lambda t: 1000 * t, r"utterance utt00 .* end at \d{3}"),
    "overlapping": (lambda t: t, lambda t: t + 0.026, r"of utterance utt00 .* before sil ends at"),
    "rounded": (lambda t: t, lambda t: t + 0.024, None),
}


@pytest.mark.parametrize("times", WRONG_TIMES)
def test_an_alignment_whose_times_are_not_those_of_its_utterances_is_refused(corpus, times):
    start, duration, message = WRONG_TIMES[times]
    retimed(corpus / "dev" / "ctm", start, duration)

    def body(comm):
        Corpus.read(comm, corpus, AcousticSettings(), None)

    if message:
        with pytest.raises(UserError, match=message):
            spawn((0, 0), body)
    else:
        spawn((0, 0), body)


@pytest.mark.parametrize("settings", [FLAT, AcousticSettings()], ids=["flat", "exact"])
def test_a_phone_that_the_lexicon_lacks_is_refused_where_targets_are_made_of_it(corpus, settings):
    for name in ("train", "dev"):
        rewrite(corpus / name / "ctm", ("sil", "zh"))
    if settings is FLAT:
        assert not Corpus.read(Alone(), corpus, settings, None).exact
    else:
        message = "phone zh of utterance utt00 in .*train/ctm is in no word of the lexicon"
        with pytest.raises(UserError, match=message):
            spawn((0, 0), lambda comm: Corpus.read(comm, corpus, settings, None))


# -------------------------------------------------------------------------------- segments


def segmented(folder, beyond):
    """Give every split segments whose ends lie so many seconds behind their recordings'."""
    for split, count in SIZES.items():
        lines = []
        for u in range(count):
            rate, samples = wavfile.read(folder / split / f"utt{u:02d}.wav")
            lines.append(f"utt{u:02d} utt{u:02d} 0.00 {samples.size / rate + beyond:.4f}\n")
        (folder / split / "segments").write_text("".join(lines))


@pytest.mark.parametrize("cached", [False, True])
def test_ends_within_a_frame_of_the_recordings_are_cut_with_one_note_each(
    sound, corpus, tmp_path, cached
):
    segmented(corpus, 0.005)
    cache = tmp_path / "cache" if cached else None
    want = AcousticTask.read(Alone(), sound, FLAT, None)
    for _ in range(2):
        task = AcousticTask.read(Alone(), corpus, FLAT, cache)
        assert [note.split("corpus/")[1] for note in task.notes] == [
            f"{split}/segments: {count} ends lie up to 5 ms behind their recordings', less than "
            "a frame: cut there"
            for split, count in SIZES.items()
        ]
        assert task.train.features.tobytes() == want.train.features.tobytes()


def test_ends_farther_behind_are_refused_together(corpus):
    segmented(corpus, 0.030)
    with pytest.raises(UserError) as error:
        AcousticTask.read(Alone(), corpus, FLAT, None)
    text = str(error.value)
    assert all(f"({i}) utterance utt0{i - 1} is the segment from 0 to" in text for i in (1, 2, 3))
    assert text.endswith("; and 7 more")


def test_a_recording_that_cannot_be_read_is_named_once_beside_others(corpus):
    for u in (2, 5):
        (corpus / "train" / f"utt0{u}.wav").write_bytes(b"nothing")
    recordings = ["utt00"] + 8 * ["utt02"] + ["utt05"]
    lines = [f"utt{u:02d} {recording} 0 0.3\n" for u, recording in enumerate(recordings)]
    (corpus / "train" / "segments").write_text("".join(lines))
    with pytest.raises(UserError) as error:
        AcousticTask.read(Alone(), corpus, FLAT, None)
    assert str(error.value).count("utt02.wav is truncated") == 1
    assert "utt05.wav is truncated" in str(error.value)


# -------------------------------------------------------------------------------- features


def test_rank_0_has_no_feature_more_than_twice_in_memory(sound, monkeypatch):
    def some(*args):
        return np.ones((500, 40), np.float32), 0

    monkeypatch.setattr(features, "features_of", some)
    utterances = 10 * read_data_directory(sound / "train")
    tracemalloc.start()
    found = features.compute(Alone(), utterances, FLAT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.features == 1).all() and found.offsets[-1] == len(found.features) == 50_000
    assert peak < 2.1 * found.features.nbytes


def test_targets_that_are_no_exact_ones_are_once_on_a_node_too(sound):
    def body(comm):
        task = AcousticTask.read(comm, sound, replace(FLAT, flat_passes=0), None)
        flat, forced = task.train.labels, task.splits["dev"].aligned
        return [isinstance(one.base, np.memmap) for one in (flat, forced)]

    assert spawn((0, 0), body) == [[True, True]] * 2


# ------------------------------------------------------------------------------ dev's losses


def test_reading_aligns_dev_once_after_all_passes_over_the_training_data(sound, monkeypatch):
    seen, work = [], Recogniser.forced_alignment

    def counted(self, split, *args):
        seen.append(len(split.utterances))
        return work(self, split, *args)

    monkeypatch.setattr(Recogniser, "forced_alignment", counted)
    AcousticTask.read(Alone(), sound, replace(FLAT, flat_passes=2), None)
    assert seen == [SIZES["train"], SIZES["train"], SIZES["dev"]]


def cross_entropy(task, outputs, labels):
    """The mean of -log p over the frames that have a label."""
    frames = task.splits["dev"].frames
    logits = np.concatenate(
        [
            outputs(frames, np.arange(i, min(i + 256, frames.count)))
            for i in range(0, frames.count, 256)
        ]
    ).astype(float)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    known = labels >= 0
    return -log_p[known, labels[known]].mean()


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_losses_between_two_realignments_are_of_one_alignment(corpus, unknown, exact):
    """Else newbob would compare networks by targets that each of them chose."""
    (corpus / "dev" / "ctm").unlink()
    if unknown:
        rewrite(corpus / "dev" / "text", ("utt01", "utt01 hundred"))
    task = AcousticTask.read(Alone(), corpus, AcousticSettings() if exact else FLAT, None)
    held = []
    for seed in (1, 2):
        for network in (linear(task, seed), linear(task, seed + 10)):
            aligned = task.splits["dev"].aligned.copy()
            loss = task.evaluate("dev", network, Alone(), words=False)["loss"]
            assert loss == pytest.approx(cross_entropy(task, network, aligned), rel=1e-4)
            held.append(aligned)
        task.realign(linear(task, seed), Alone())
    assert (held[0] == held[1]).all() and (held[2] == held[3]).all()
    assert exact == bool((held[1] == held[2]).all()), "re-alignment is of dev, too"
    assert (held[0] < 0).any() == unknown
    task.tune(network, Alone())
    score = task.evaluate("dev", network, Alone())  # as test: by its own alignment
    own = task.recogniser.forced_alignment(task.splits["dev"], network, Alone())
    assert score["loss"] == pytest.approx(cross_entropy(task, network, own), rel=1e-4)
