"""From a folder to frames and targets: what is read, what is mended, what is refused."""

import warnings

import numpy as np
import pytest
from alone import Alone
from beeps import TONES
from scipy.io import wavfile

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic.corpus import Corpus
from refimpl.tasks.acoustic.settings import AcousticSettings


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
