"""Draw docs/images/synthesizer.png: one synthesized utterance.  Needs matplotlib (and pillow)."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from refimpl.numerics.rng import stream
from refimpl.tasks.acoustic.synth import Utterance, synthesize
from refimpl.tasks.acoustic.synth.articulation import TICK, timing, tracks

utterance = Utterance(0, "train", 3, 0, ("three", "six", "nine", "two"))
rate = 16000
samples, alignment = synthesize(utterance, rate)
rng = stream(utterance.seed, "synth utterance", utterance.split, utterance.number)
track = tracks(timing(utterance.words, utterance.voice, rng), utterance.voice, rng)
time = np.arange(len(track.pitch)) * TICK

figure, (above, below) = plt.subplots(
    2, 1, figsize=(9, 4.6), sharex=True, height_ratios=(1, 3), layout="constrained"
)
above.plot(np.arange(len(samples)) / rate, samples, color="black", linewidth=0.3)
above.set_yticks([])
lifted = np.append(samples[0], samples[1:] - 0.95 * samples[:-1])
below.specgram(lifted, NFFT=96, noverlap=76, pad_to=512, Fs=rate, cmap="gray_r", vmin=-50, vmax=15)
voiced = track.voice > 0.05
for formant in track.formants.T:
    below.plot(time, np.where(voiced, formant, np.nan), color="tab:red", linewidth=1)
for start, duration, phone in alignment:
    below.axvline(start, color="tab:blue", linewidth=0.6)
    below.text(start + duration / 2, 8150, phone, ha="center", color="tab:blue")
below.set(xlabel="seconds", ylabel="hertz", ylim=(0, 8000), xlim=(0, len(samples) / rate))
path = Path(__file__).with_suffix(".png")
figure.savefig(path, dpi=80)
print(f"{path}: {path.stat().st_size} bytes")
