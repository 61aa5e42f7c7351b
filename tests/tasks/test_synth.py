"""The synthesizer: the physics of its parts, and what its corpus promises."""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from alone import Alone
from scipy import signal
from scipy.io import wavfile

from refimpl.support.errors import UserError
from refimpl.support.files import partial_of
from refimpl.tasks.acoustic import builtin, features
from refimpl.tasks.acoustic.synth import (
    LEXICON,
    PHONES,
    corpus,
    corpus_plan,
    synthesize,
    write_corpus,
)
from refimpl.tasks.acoustic.synth.articulation import Span, timing, tracks
from refimpl.tasks.acoustic.synth.phones import SILENCE
from refimpl.tasks.acoustic.synth.resonator import antiresonate, bandpass, coefficients, resonate
from refimpl.tasks.acoustic.synth.scene import PEAK, record
from refimpl.tasks.acoustic.synth.speakers import speaker
from refimpl.tasks.acoustic.synth.voice import RATE, STEP, speak

SPEAKERS = {"train": 3, "dev": 2, "test": 2}
UTTERANCES = {"train": 5, "dev": 2, "test": 3}
PLAN = corpus_plan(7, SPEAKERS, UTTERANCES)


def rng():
    return np.random.default_rng(5)


def wandering(n):
    """Return coefficients of a resonator that moves all the time."""
    t = np.arange(n) / n
    return coefficients(900 + 600 * np.sin(9 * t), 80 + 40 * np.cos(5 * t), RATE)


def response(filtered_impulse):
    return np.abs(np.fft.rfft(filtered_impulse)), np.fft.rfftfreq(len(filtered_impulse), 1 / RATE)


# resonators


@pytest.mark.parametrize("width", [60, 150, 300])
@pytest.mark.parametrize("frequency", [800, 1500, 2500, 5800])
def test_resonator_peaks_at_its_frequency_with_its_bandwidth(frequency, width):
    impulse = np.zeros(RATE)
    impulse[0] = 1
    b, c = coefficients(np.full(RATE, frequency), np.full(RATE, width), RATE)
    for gain, hertz in (response(resonate(impulse, b, c)), response(bandpass(impulse, b, c))):
        assert abs(hertz[gain.argmax()] - frequency) < 0.2 * width
        half_power = hertz[gain > gain.max() / np.sqrt(2)]
        assert half_power[-1] - half_power[0] == pytest.approx(width, rel=0.1, abs=3)


def test_resonator_has_unit_gain_at_0_hertz_and_bandpass_has_none():
    b, c = coefficients(np.full(4000, 700.0), np.full(4000, 90.0), RATE)
    assert resonate(np.ones(4000), b, c)[-1] == pytest.approx(1)
    assert bandpass(np.ones(4000), b, c)[-1] == pytest.approx(0, abs=1e-12)


def test_moving_resonator_is_the_recursion():
    x, (b, c) = rng().standard_normal(300), wandering(300)
    want = np.zeros(302)
    for n in range(300):
        want[n + 2] = (1 - b[n] - c[n]) * x[n] + b[n] * want[n + 1] + c[n] * want[n]
    np.testing.assert_allclose(resonate(x, b, c), want[2:], rtol=1e-12, atol=1e-12)


def test_antiresonator_undoes_the_resonator():
    x, (b, c) = rng().standard_normal(2000), wandering(2000)
    np.testing.assert_allclose(antiresonate(resonate(x, b, c), b, c), x, atol=1e-9)


# phones


def test_every_phone_of_the_lexicon_has_a_recipe_and_no_recipe_is_unused():
    assert {p for phones in LEXICON.values() for p in phones} | {SILENCE} == set(PHONES)


@pytest.mark.parametrize("name", PHONES)
def test_stages_of_a_phone_fill_it_and_hiss_has_a_band(name):
    stages = PHONES[name].stages
    assert sum(stage.share for stage in stages) == pytest.approx(1)
    assert (PHONES[name].hiss is not None) == any(stage.hiss for stage in stages)


def said(name, ticks=300):
    """Return a phone said in a monotone by a clear voice between silences: clean sound, pitch."""
    who = replace(speaker(0, "train", 0), jitter=0.0, lilt=0.0, breath=0.01, tilt=0.3)
    spans = [Span(SILENCE, 0, 100), Span(name, 100, ticks), Span(SILENCE, 100 + ticks, 100)]
    track = tracks(spans, who, rng())
    return speak(track, who, rng()), track


@pytest.mark.parametrize("name", sorted(set(PHONES) - {SILENCE}))
def test_voiced_phones_have_harmonics_of_the_pitch_and_unvoiced_have_none(name):
    sound, track = said(name)
    middle = sound[150 * STEP : 350 * STEP]
    power, hertz = response(middle * np.hanning(len(middle)))
    cycles = hertz / track.pitch[200]
    low = (cycles > 0.5) & (cycles < 6.5)
    on = np.mean(power[low & (np.abs(cycles - np.rint(cycles)) < 0.1)] ** 2)
    off = np.mean(power[low & (np.abs(cycles - np.rint(cycles)) > 0.4)] ** 2)
    if PHONES[name].stages[0].voice:
        assert on > 100 * off
    else:
        assert on < 10 * off


@pytest.mark.parametrize("name", ["iy", "ih", "eh", "ah", "r"])
def test_formants_stand_where_the_tracks_say(name):
    sound, track = said(name)
    middle = sound[200 * STEP : 300 * STEP]
    power, hertz = response(middle * np.hanning(len(middle)))
    envelope = signal.fftconvolve(power**2, np.hanning(60), mode="same")  # blur the harmonics
    f1, f2, _ = track.formants[250]
    at = np.interp([f1, (f1 + f2) / 2, f2], hertz, envelope)
    assert at[0] > 2 * at[1] and at[2] > 2 * at[1]


@pytest.mark.parametrize("name, low", [("s", False), ("z", False), ("t", False), ("iy", True)])
def test_hiss_is_high_and_vowels_are_low(name, low):
    sound, _ = said(name)
    power, hertz = response(sound[100 * STEP : 400 * STEP])
    above = np.sum(power[hertz > 3000] ** 2)
    below = np.sum(power[(hertz > 300) & (hertz < 3000)] ** 2)
    assert (below > above) == low


def test_nothing_is_heard_in_silence():
    sound, _ = said("ah")
    silence = np.concatenate([sound[: 90 * STEP], sound[430 * STEP :]])
    assert np.abs(silence).max() < 0.01 * np.abs(sound).max()


# utterances


@pytest.mark.parametrize("rate", [8000, 16000])
def test_alignment_tiles_the_samples_exactly_and_spells_the_words(rate):
    for utterance in PLAN[:4]:
        samples, alignment = synthesize(utterance, rate)
        assert samples.dtype == np.int16
        ends = [0] + [round((start + duration) * rate, 6) for start, duration, _ in alignment]
        starts = [round(start * rate, 6) for start, _, _ in alignment] + [len(samples)]
        assert ends == starts
        spoken = [phone for _, _, phone in alignment if phone != SILENCE]
        assert spoken == [phone for word in utterance.words for phone in LEXICON[word]]
        assert alignment[0][2] == alignment[-1][2] == SILENCE


def test_no_phone_is_too_short_for_three_states():
    for number in range(40):
        for span in timing(tuple(LEXICON), speaker(0, "train", number), rng()):
            assert span.ticks * 2 >= 30  # milliseconds


def test_samples_are_a_function_of_seed_split_and_number():
    first, again = synthesize(PLAN[3])[0], synthesize(PLAN[3])[0]
    np.testing.assert_array_equal(first, again)
    others = [PLAN[3]._replace(**change) for change in ({"seed": 8}, {"number": 77})]
    for other in others:
        assert not np.array_equal(first[:4000], synthesize(other)[0][:4000])


def test_8000_hertz_is_the_same_sound():
    wide, narrow = (synthesize(PLAN[0], rate)[0].astype(float) for rate in (16000, 8000))
    assert np.corrcoef(signal.resample_poly(wide, 1, 2), narrow)[0, 1] > 0.99


def test_nothing_clips_and_nothing_is_lost_in_the_last_bits():
    for utterance in corpus_plan(3, {"train": 20}, {"train": 20}):
        peak = np.abs(synthesize(utterance)[0].astype(int)).max()
        assert 300 < peak < 30000


def test_loud_voice_is_turned_down_to_the_peak():
    loud = replace(speaker(0, "train", 0), level=0.0)
    samples = record(said("ah")[0], loud, 8000, rng())
    assert np.abs(samples.astype(int)).max() == round(PEAK * 32767)


# the corpus


def test_speakers_of_the_splits_are_different_people():
    plan = corpus_plan()
    names = {s: {u.speaker_name for u in plan if u.split == s} for s in corpus.SPEAKERS}
    assert {s: len(n) for s, n in names.items()} == dict(corpus.SPEAKERS)
    tracts = [speaker(0, s, i).tract for s, count in corpus.SPEAKERS.items() for i in range(count)]
    assert len(set(tracts)) == sum(corpus.SPEAKERS.values())


def test_longer_corpus_begins_with_the_same_utterances():
    longer = corpus_plan(7, SPEAKERS, {split: n + 4 for split, n in UTTERANCES.items()})
    assert set(PLAN) < set(longer)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synth") / "corpus"
    write_corpus(folder, seed=7, speakers=SPEAKERS, utterances=UTTERANCES)
    return folder


def test_lists_agree_with_each_other_and_with_the_sound(written):
    for split, count in UTTERANCES.items():
        table = {
            name: [line.split() for line in (written / split / name).read_text().splitlines()]
            for name in ("wav.scp", "text", "utt2spk", "spk2gender", "ctm")
        }
        names = [row[0] for row in table["wav.scp"]]
        assert len(names) == count and names == sorted(names)
        assert names == [row[0] for row in table["text"]] == [row[0] for row in table["utt2spk"]]
        assert {row[1] for row in table["utt2spk"]} == {row[0] for row in table["spk2gender"]}
        for name, path in table["wav.scp"]:
            rate, samples = wavfile.read(written / split / path)
            assert rate == 16000 and samples.dtype == np.int16 and samples.ndim == 1
            rows = [row for row in table["ctm"] if row[0] == name]
            seconds = sum(float(row[3]) for row in rows)
            assert round(seconds * rate, 3) == len(samples)
            assert float(rows[-1][2]) + float(rows[-1][3]) == pytest.approx(seconds, abs=1e-9)


def test_settings_and_lexicon_are_written(written):
    assert json.loads((written / "corpus.json").read_text())["speakers"] == SPEAKERS
    lines = (written / "lexicon.txt").read_text().splitlines()
    assert {w: tuple(p) for w, *p in map(str.split, lines)} == LEXICON


def test_shares_of_three_ranks_are_the_bytes_of_one(written, tmp_path):
    for split in UTTERANCES:
        (tmp_path / split / "wav").mkdir(parents=True)
    for rank in (2, 0, 1):
        corpus.write_wavs(tmp_path, PLAN[rank::3], 16000)
    serial = {p.relative_to(written): p.read_bytes() for p in written.rglob("*.wav")}
    assert serial == {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.wav")}
    assert len(serial) == sum(UTTERANCES.values())


def test_existing_corpus_is_not_overwritten(written):
    before = sorted(written.rglob("*"))
    with pytest.raises(UserError, match="name a new directory, or remove this one first"):
        write_corpus(written, speakers={"train": 1}, utterances={"train": 1})
    assert sorted(written.rglob("*")) == before
    assert list(written.parent.iterdir()) == [written]


def test_failure_half_way_leaves_nothing(tmp_path, monkeypatch):
    def full(path, rate, samples):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(corpus.wavfile, "write", full)
    with pytest.raises(UserError, match="No space left on device"):
        write_corpus(tmp_path / "corpus", speakers={"train": 1}, utterances={"train": 1})
    assert list(tmp_path.iterdir()) == []


ONE = {"speakers": {"dev": 1}, "utterances": {"dev": 1}, "rate": 8000}


@pytest.mark.parametrize("moment", ["_prepare", "write_lists"])
def test_corpus_that_another_job_has_completed_meanwhile_stands(tmp_path, monkeypatch, moment):
    folder, work = tmp_path / "corpus", getattr(corpus, moment)

    def others_work(*args):
        monkeypatch.setattr(corpus, moment, work)
        monkeypatch.setattr(corpus.os, "getpid", lambda: 1)
        write_corpus(folder, **ONE, others=True)
        monkeypatch.undo()
        work(*args)

    monkeypatch.setattr(corpus, moment, others_work)
    write_corpus(folder, **ONE, others=True)
    assert (folder / "corpus.json").is_file()
    assert list(tmp_path.iterdir()) == [folder]


def test_half_a_corpus_of_somebody_is_neither_taken_nor_overwritten(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "lexicon.txt").touch()
    with pytest.raises(UserError, match="is there already"):
        write_corpus(tmp_path / "corpus", **ONE, others=True)


def test_who_has_no_home_has_a_cache_among_temporary_files(monkeypatch, tmp_path):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(features.Path, "home", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert features.default_cache() == tmp_path / f"refimpl-{os.getuid()}"


@pytest.mark.parametrize("complete", [True, False])
def test_a_cache_that_cannot_be_written_to_is_enough_where_the_corpus_is_complete(
    monkeypatch, tmp_path, complete
):
    folder = tmp_path / f"synth-{builtin.edition()}"
    if complete:
        write_corpus(folder, **ONE)

    def refused(*args, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refused)
    if complete:
        assert builtin.builtin_corpus(Alone(), tmp_path, print) == folder
    else:
        with pytest.raises(UserError, match="cannot write to the cache .*: Read-only file system"):
            builtin.builtin_corpus(Alone(), tmp_path, print)


def test_names_of_what_is_being_written_hold_host_and_process(monkeypatch):
    name = partial_of(Path("a/b")).name
    assert name == f".b.{os.uname().nodename}.{os.getpid()}.partial"


def test_empty_directory_is_filled(tmp_path):
    write_corpus(tmp_path / "corpus", rate=8000, speakers={"dev": 1}, utterances={"dev": 1})
    (tmp_path / "other").mkdir()
    write_corpus(tmp_path / "other", rate=8000, speakers={"dev": 1}, utterances={"dev": 1})
    same = "dev/wav/dev-000-00000.wav"
    assert (tmp_path / "corpus" / same).read_bytes() == (tmp_path / "other" / same).read_bytes()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"rate": 44100}, "44100: the synthesizer writes 8000 or 16000"),
        ({"speakers": {"train": 9}, "utterances": {"train": 4}}, "one utterance for each"),
        ({"speakers": {"train": 0}, "utterances": {"train": 4}}, "at least one speaker"),
        ({"speakers": {"dev": 1}, "utterances": {"train": 4}}, "the same splits"),
    ],
)
def test_impossible_corpus_is_refused(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        write_corpus(tmp_path / "corpus", **settings)
    assert list(tmp_path.iterdir()) == []


# the chapter


def row(name, phone):
    """Return a phone's row of the table in docs/synthesizer.md."""

    def sources(stage):
        named = zip(("voice", "breath", "hiss"), stage[1:], strict=True)
        return ", ".join(f"{source} {level:.2g}" for source, level in named if level) or "none"

    formants = " → ".join(
        " ".join(map(str, place)) for place in (phone.formants, phone.glide) if place
    )
    stages = [sources(stage) for stage in phone.stages]
    if len(stages) > 1:
        shares = [f"{stage.share:.0%}" for stage in phone.stages]
        stages = [f"{share}: {stage}" for share, stage in zip(shares, stages, strict=True)]
    band = f"{phone.hiss[0]:g} ± {phone.hiss[1] / 2:g}" if phone.hiss else ""
    said = "; ".join(stages) + ", nose" * phone.nasal
    return f"| {name} | {1000 * phone.seconds:.0f} | {formants} | {said} | {band} |"


def test_table_of_phones_in_the_chapter_is_that_of_the_code():
    chapter = Path(__file__).parents[2] / "docs" / "synthesizer.md"
    text = chapter.read_text(encoding="utf-8")
    for name, phone in PHONES.items():
        assert row(name, phone) in text
