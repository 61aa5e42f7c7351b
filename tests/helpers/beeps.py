"""A corpus of beeps: each phone is a tone, and the exact alignment is known.

A linear classifier learns it in no time.
"""

import numpy as np
from scipy.io import wavfile

from refimpl.numerics.rng import stream
from refimpl.tasks.acoustic.hmm import STATES_PER_PHONE
from refimpl.tasks.acoustic.kaldi import read_data_directory
from refimpl.tasks.acoustic.targets import exact_alignment

RATE = 8000
TONES = {"sil": None, "ah": 500, "iy": 1000, "n": 1800, "s": 2800}
WORDS = {"knee": ("n", "iy"), "saw": ("s", "ah"), "on": ("ah", "n")}
SIZES = {"train": 10, "dev": 5, "test": 3}


def beeps(folder, sizes=SIZES):
    """Write a corpus of beeped words, one to three in an utterance."""
    for split, count in sizes.items():
        (folder / split).mkdir(parents=True)
        lines = {name: [] for name in ("wav.scp", "text", "utt2spk", "ctm")}
        for u in range(count):
            name = f"utt{u:02d}"
            rng = stream(0, "beeps", split, u)
            words = [sorted(WORDS)[w] for w in rng.integers(len(WORDS), size=rng.integers(1, 4))]
            phones = ["sil", *(phone for word in words for phone in WORDS[word]), "sil"]
            samples, start = [], 0.0
            for phone in phones:
                seconds = 0.01 * int(rng.choice([5, 8, 12, 30]))
                t = np.arange(round(seconds * RATE)) / RATE
                tone = TONES[phone]
                sound = np.zeros(t.size) if tone is None else np.sin(2 * np.pi * tone * t)
                samples.append(3000 * sound + 30 * rng.normal(size=t.size))
                lines["ctm"].append(f"{name} 1 {start:.3f} {seconds:.3f} {phone}")
                start += seconds
            wavfile.write(
                folder / split / f"{name}.wav", RATE, np.concatenate(samples).astype(np.int16)
            )
            lines["wav.scp"].append(f"{name} {name}.wav")
            lines["text"].append(f"{name} {' '.join(words)}")
            lines["utt2spk"].append(f"{name} speaker{u % 2}")
        for name, text in lines.items():
            (folder / split / name).write_text("\n".join(text) + "\n")
    lexicon = [f"{word} {' '.join(phones)}\n" for word, phones in WORDS.items()]
    (folder / "lexicon.txt").write_text("".join(lexicon))


def linear(task, seed=0):
    """A network of one random layer."""
    weight = stream(seed, "linear").normal(size=(task.inputs, task.classes)) / 10
    return outputs_of(task, weight.astype(np.float32))


def outputs_of(task, weight):
    def outputs(frames, index):
        x = np.empty((len(index), task.inputs), dtype=np.float32)
        frames.take(index, x)
        return x @ weight

    return outputs


def phone_agreement(task, folder):
    """The share of training frames whose target lies in the phone that sounds by the ctm."""
    frames, exact = task.train, np.empty(task.train.count, np.int64)
    length, shift = (samples / RATE for samples in task.settings.frame(RATE))
    utterances = read_data_directory(folder / "train")
    exact_alignment(utterances, frames.offsets, task.corpus.states, shift, length, out=exact)
    same = frames.labels // STATES_PER_PHONE == exact // STATES_PER_PHONE
    return np.count_nonzero(same) / same.size
