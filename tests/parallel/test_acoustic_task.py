"""The acoustic task is the same to the last bit on any number of ranks."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from beeps import RATE, SIZES, beeps, linear, outputs_of, phone_agreement
from mpi4py import MPI
from scipy.io import wavfile

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic.features import log_mel_features, sent
from refimpl.tasks.acoustic.kaldi import read_data_directory
from refimpl.tasks.acoustic.posteriors import log_softmax
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.task import AcousticTask


def features(world, utterances, cache):
    found = log_mel_features(world, utterances, FLAT, cache)
    return sent(world, found, FLAT.bands).features


@pytest.fixture(scope="module")
def corpus():
    """The folder of the corpus, written once for all tests; to be read only."""
    path = Path(MPI.COMM_WORLD.bcast(tempfile.mkdtemp() if MPI.COMM_WORLD.rank == 0 else None))
    if MPI.COMM_WORLD.rank == 0:
        beeps(path)
    MPI.COMM_WORLD.barrier()
    yield path
    MPI.COMM_WORLD.barrier()
    if MPI.COMM_WORLD.rank == 0:
        shutil.rmtree(path)


def changed(world, corpus, folder, change):
    """Return a copy of the corpus after change(copy)."""
    copy = folder / "corpus"
    if world.rank == 0:
        shutil.copytree(corpus, copy)
        change(copy)
    world.barrier()
    return copy


def alone(world):
    """This rank as a world of its own."""
    return world.split(world.rank)


FLAT = AcousticSettings(alignment="flat", flat_passes=1, word_penalties=(-3.0, 0.0))


def everything(task, comm):
    """Whatever a run computes with the task."""
    outputs = linear(task)
    scores = [task.evaluate(split, outputs, comm) for split in ("dev", "test")]
    moved = task.realign(outputs, comm)
    labels = task.train.labels.copy()
    table = task.tune(outputs, comm)
    scores += [task.evaluate("test", outputs, comm, words=False)]
    wavs = [one.wav for one in task.splits["test"].utterances]
    return scores, moved, labels, table, task.transcribe(wavs, outputs, comm)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(FLAT, id="flat"),
        pytest.param(AcousticSettings(), id="exact", marks=pytest.mark.once),
    ],
)
def test_every_world_size_finds_the_same_bits(world, corpus, settings):
    single = alone(world)
    many = AcousticTask.read(world, corpus, settings, None)
    one = AcousticTask.read(single, corpus, settings, None)
    assert many.train.features.tobytes() == one.train.features.tobytes()
    assert many.train.labels.tobytes() == one.train.labels.tobytes()
    got, want = everything(many, world), everything(one, single)
    np.testing.assert_array_equal(got[2], want[2])
    assert got[:2] + got[3:] == want[:2] + want[3:]
    for a, b in zip(many.saved().values(), one.saved().values(), strict=True):
        np.testing.assert_array_equal(a, b)
    single.free()


def test_outputs_is_called_equally_often_on_all_ranks(world, corpus):
    task = AcousticTask.read(world, corpus, FLAT, None)
    inner, calls = linear(task), []

    def outputs(frames, index):
        calls.append(len(index))
        world.barrier()  # as a network spread over ranks would
        return inner(frames, index)

    task.evaluate("train", outputs, world)
    task.realign(outputs, world)
    assert len(set(world.allgather_object(len(calls)))) == 1
    called = sum(sum(some) for some in world.allgather_object(calls))
    assert called == 2 * task.train.count + task.splits["dev"].frames.count


@pytest.mark.once
def test_cached_features_are_the_computed_ones(world, corpus, folder):
    cache = folder / "cache"
    computed = AcousticTask.read(world, corpus, FLAT, cache).train.features
    world.barrier()
    (*files,) = cache.iterdir()
    assert len(files) == len(SIZES)
    assert not [file for file in files if file.suffix != ".npz"]
    found = AcousticTask.read(world, corpus, FLAT, cache).train.features
    assert found.tobytes() == computed.tobytes()


@pytest.mark.once
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_cache_file_is_found_out_and_replaced(world, corpus, folder, damage):
    directory, cache = corpus / "dev", folder / "cache"
    utterances = read_data_directory(directory)
    want = features(world, utterances, cache)
    if world.rank == 0:
        (file,) = cache.iterdir()
        text = bytearray(sound := file.read_bytes())
        text[len(text) // 2] ^= 1
        changed = {"cut": sound[:-100], "flip": bytes(text), "empty": b"", "other": b"hello"}
        file.write_bytes(changed[damage])
    world.barrier()
    got = features(world, utterances, cache)
    assert got.tobytes() == want.tobytes()
    if world.rank == 0:
        assert file.read_bytes() == sound


@pytest.mark.once
def test_a_recording_that_changes_is_not_taken_from_the_cache(world, corpus, folder):
    directory = changed(world, corpus, folder, lambda copy: None) / "dev"
    cache = folder / "cache"
    utterances = read_data_directory(directory)
    before = features(world, utterances, cache)
    if world.rank == 0:
        rate, samples = wavfile.read(utterances[0].wav)
        wavfile.write(utterances[0].wav, rate, samples // 2)
    world.barrier()
    after = features(world, utterances, cache)
    assert before.shape == after.shape and before.tobytes() != after.tobytes()


@pytest.mark.once
def test_a_cache_that_cannot_be_written_is_done_without(world, corpus, folder):
    if world.rank == 0:
        (folder / "cache").write_text("a file, not a folder")
    world.barrier()
    AcousticTask.read(world, corpus, FLAT, folder / "cache")


@pytest.mark.once
def test_inputs_have_mean_zero_and_variance_one_in_training(world, corpus):
    features = AcousticTask.read(world, corpus, FLAT, None).train.features
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=0), 1, rtol=1e-3)


@pytest.mark.once
def test_realignment_finds_the_boundaries_that_a_flat_start_misses(world, folder):
    """Train a linear classifier, re-align, and again: nearly all frames end in their phone."""
    if world.rank == 0:
        beeps(folder / "larger", {"train": 30, "dev": 1, "test": 10})
    world.barrier()
    settings = AcousticSettings(alignment="flat", context=1, flat_passes=0)
    task = AcousticTask.read(world, folder / "larger", settings, None)
    frames = task.train
    x = np.empty((frames.count, task.inputs), dtype=np.float32)
    frames.take(np.arange(frames.count), x)
    weight = np.zeros((task.inputs, task.classes), dtype=np.float32)
    agreement = [phone_agreement(task, folder / "larger")]
    for _ in range(3):
        for _ in range(30):
            error = np.exp(log_softmax(x @ weight * np.float32(0.1)))
            error[np.arange(frames.count), frames.labels] -= 1
            weight -= x.T @ error.astype(np.float32) * np.float32(0.05 / frames.count)
        task.realign(outputs_of(task, weight), world)
        agreement.append(phone_agreement(task, folder / "larger"))
    assert agreement[0] < 0.8 and agreement[-1] > 0.9, agreement
    score = task.evaluate("test", outputs_of(task, weight), world)["word_error_rate"]
    assert score["wer"] < 0.2, score


@pytest.mark.once
def test_the_linear_discriminant_improves_on_a_flat_start(world, corpus):
    agreement = []
    for passes in (0, 4):
        settings = AcousticSettings(alignment="flat", flat_passes=passes)
        task = AcousticTask.read(world, corpus, settings, None)
        agreement.append(phone_agreement(task, corpus))
    assert agreement[0] < 0.8 and agreement[1] > 0.9, agreement


@pytest.mark.once
def test_a_restored_task_scores_and_transcribes_alike(world, corpus):
    task = AcousticTask.read(world, corpus, FLAT, None)
    outputs = linear(task)
    task.realign(outputs, world)
    task.tune(outputs, world)
    again = AcousticTask.restore(task.saved())
    again.load(world, "other", corpus / "test", None)
    assert (again.inputs, again.classes) == (task.inputs, task.classes)
    assert again.evaluate("other", outputs, world) == task.evaluate("test", outputs, world)
    wavs = [one.wav for one in again.splits["other"].utterances]
    words = again.transcribe(wavs, outputs, world)
    assert words == task.transcribe(wavs, outputs, world) and len(words) == len(wavs)


def test_folders_are_the_data_directories(world, corpus, folder):
    assert AcousticTask.folders(corpus) == [str(corpus / s) for s in ("dev", "test", "train")]
    assert AcousticTask.folders(corpus / "dev") == [str(corpus / "dev")]
    with pytest.raises(UserError, match="no data directory in"):
        AcousticTask.folders(folder)


# ------------------------------------------------------------------------------- mistakes


def rewrite(file, old, new):
    file.write_text(file.read_text().replace(old, new, 1))


def rewrite_wav(file, change, rate=RATE):
    wavfile.write(file, rate, change(wavfile.read(file)[1]))


def not_a_number(samples):
    samples = samples.astype(np.float32) / 32768
    samples[1000] = np.nan
    return samples


def every_third_cut(copy):
    for u in (0, 3, 6, 9):
        rewrite_wav(copy / "train" / f"utt0{u}.wav", lambda x: x[:150])


MISTAKES = {
    "several": (
        every_third_cut,
        r"\(1\) utterance utt00 is .* \(2\) utterance utt03 .* \(3\) .* utt06 .*; and 1 more",
    ),
    "no corpus": (lambda c: shutil.rmtree(c), "no corpus folder"),
    "no dev": (lambda c: shutil.rmtree(c / "dev"), "no data directory .*dev"),
    "no lexicon": (lambda c: (c / "lexicon.txt").unlink(), "no lexicon"),
    "unknown word": (
        lambda c: rewrite(c / "train" / "text", "utt01", "utt01 nose"),
        "train/text:2: word nose of utterance utt01 is not in the lexicon",
    ),
    "other rate": (
        lambda c: rewrite_wav(c / "train" / "utt07.wav", lambda x: x, rate=16000),
        "utt07.wav is sampled at 16000 hertz but 8000 is needed",
    ),
    "other rate in dev": (
        lambda c: [rewrite_wav(wav, lambda x: x, 16000) for wav in (c / "dev").glob("*.wav")],
        "dev/utt00.wav is sampled at 16000 hertz but 8000 is needed",
    ),
    "truncated": (
        lambda c: (c / "train" / "utt08.wav").write_bytes(
            (c / "train" / "utt08.wav").read_bytes()[:-99]
        ),
        "utt08.wav is truncated",
    ),
    "not a number": (
        lambda c: rewrite_wav(c / "dev" / "utt03.wav", not_a_number),
        "utterance utt03 has a feature that is not a number",
    ),
    "shorter than a frame": (
        lambda c: rewrite_wav(c / "dev" / "utt03.wav", lambda x: x[:150]),
        "utterance utt03 is 150 samples long, shorter than one frame",
    ),
    "shorter than its states": (
        lambda c: rewrite_wav(c / "dev" / "utt03.wav", lambda x: x[:500]),
        "utterance utt03 has 4 frames but its words .* have .* states",
    ),
    "segment outside": (
        lambda c: (c / "dev" / "segments").write_text(
            "".join(f"utt0{u} utt0{u} 0 0.3\n" for u in range(4)) + "utt04 utt04 0.1 99\n"
        ),
        "utterance utt04 is the segment from 0.1 to 99 s of .*utt04.wav, which is",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_on_every_rank(world, corpus, folder, mistake):
    spoil, message = MISTAKES[mistake]
    spoiled = changed(world, corpus, folder, spoil)
    with pytest.raises(UserError, match=message) as error:
        AcousticTask.read(world, spoiled, FLAT, None)
    assert len(set(world.allgather_object(str(error.value)))) == 1
    assert "\n" not in str(error.value)


@pytest.mark.once
def test_exact_alignment_without_one_is_refused(world, corpus, folder):
    copy = changed(world, corpus, folder, lambda c: (c / "train" / "ctm").unlink())
    with pytest.raises(UserError, match="has no ctm: exact alignment needs one"):
        AcousticTask.read(world, copy, AcousticSettings(alignment="exact"), None)


@pytest.mark.parametrize(
    "name, value", [("bands", "40"), ("cmvn", None), ("context", 2.5), ("realign_epochs", ("a",))]
)
def test_a_setting_of_another_type_is_refused(name, value):
    with pytest.raises(UserError, match=f"acoustic setting {name} is .*: its type must be "):
        AcousticSettings(**{name: value})


@pytest.mark.once
def test_recordings_to_transcribe_must_have_the_rate_of_training(world, corpus, folder):
    task = AcousticTask.read(world, corpus, AcousticSettings(), None)
    wav = folder / "a.wav"
    if world.rank == 0:
        wavfile.write(wav, 16000, np.zeros(16000, dtype=np.int16))
    world.barrier()
    with pytest.raises(UserError, match="a.wav is sampled at 16000 hertz but 8000 is needed"):
        task.transcribe([str(wav)], linear(task), world)
