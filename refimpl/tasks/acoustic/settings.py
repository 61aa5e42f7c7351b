"""What can be chosen in the acoustic task, and what is chosen if nobody says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from refimpl.support.errors import UserError, brief, require_types
from refimpl.tasks.acoustic.text import fields

RATES = (8000, 192000)  # hertz: the lowest and the highest sample rate

# What a number, or each of several, must lie between: room for any use, but not for a mistake
# that fills the memory or never ends.  (NaN lies between no two numbers.)
BOUNDS = {
    "sample_rate": RATES,
    "frame_length": (0.001, 0.2),
    "frame_shift": (0.001, 0.2),
    "preemphasis": (0, 1),
    "bands": (1, 512),
    "low": (0, RATES[1] / 2),
    "high": (0, RATES[1] / 2),
    "energy_floor": (1e-30, 1e30),
    "cmvn_prior": (0, 1e9),
    "context": (0, 100),
    "flat_passes": (0, 100),
    "realign_epochs": (1, 1e9),
    "prior_scale": (0, 100),
    "acoustic_scale": (1e-6, 1e6),
    "word_penalty": (-1e6, 1e6),
    "word_penalties": (-1e6, 1e6),
}
CHOICES = {"cmvn": ("speaker", "utterance", "none"), "alignment": ("auto", "exact", "flat")}


@dataclass(frozen=True)
class AcousticSettings:
    """All choices of front end, targets and decoder.  Checked when made.

    Front end (Kaldi's names and values, except where docs/acoustic.md says so):

    sample_rate     hertz; None: that of the first recording.  All must have it
    frame_length, frame_shift    seconds
    preemphasis     of each frame: x[t] - preemphasis * x[t - 1]
    bands, low, high    mel bands between these frequencies (hertz; high None: Nyquist)
    energy_floor    a band's energy counts as at least this; samples are on the 16-bit scale
    cmvn            mean and variance are made 0 and 1 per "speaker", "utterance" or not ("none")
    cmvn_prior      frames' worth of the training speakers' average mixed into a speaker's mean
                    and variance: a single word tells too little about a voice
    context         frames on each side that the network sees as well

    Targets:

    alignment       "auto": exact (`ctm`) if every training utterance has one, else "flat";
                    "exact": refuse to go without; "flat": equal division, then re-alignment
    silence         name of the phone between words
    flat_passes     so often a flat start is re-aligned with a linear discriminant
    realign_epochs  after these epochs (first = 1) the trainer has the targets re-aligned

    Decoder:

    prior_scale     log p(x|s) = log p(s|x) - prior_scale * log p(s) + constant
    acoustic_scale  weight of those against transitions and word penalty
    word_penalty    added to a path's score for each word; log scale, negative: fewer words
    word_penalties  the values among which `AcousticTask.tune` chooses
    """

    sample_rate: int | None = None
    frame_length: float = 0.025
    frame_shift: float = 0.010
    preemphasis: float = 0.97
    bands: int = 40
    low: float = 20.0
    high: float | None = None
    energy_floor: float = 1.0
    cmvn: str = "speaker"
    cmvn_prior: float = 100.0
    context: int = 5

    alignment: str = "auto"
    silence: str = "sil"
    flat_passes: int = 4
    realign_epochs: tuple[int, ...] = (1, 2, 4, 6)

    prior_scale: float = 1.0
    acoustic_scale: float = 0.3
    word_penalty: float = -3.0
    word_penalties: tuple[float, ...] = (-3.0, 0.0, -1.0, -2.0, -5.0, -8.0, -12.0, -20.0)

    def frame(self, rate: int) -> tuple[int, int]:
        """Return length and shift of a frame in samples, truncated to whole ones as in Kaldi.

        So 10 ms of a rate of 22050 hertz are 220 samples, and frame t begins at 220 t / 22050 s.
        (The millionth makes up for binary fractions: equal to Kaldi's for all multiples of
        half a millisecond up to 0.1 s and rates from 8000 to 192000 hertz.)

        >>> AcousticSettings().frame(22050), AcousticSettings().frame(11025)
        ((551, 220), (275, 110))
        """
        return int(rate * self.frame_length + 1e-6), int(rate * self.frame_shift + 1e-6)

    def __post_init__(self) -> None:
        require_types(self, "acoustic setting")
        self._check(0 < len(self.word_penalties) <= 100, "word_penalties", "give 1 to 100 of them")
        for name, (least, most) in BOUNDS.items():
            values = getattr(self, name)
            fit = [
                value is None or least <= value <= most
                for value in (values if isinstance(values, (tuple, list)) else (values,))
            ]
            self._check(all(fit), name, f"give {least:g} to {most:g}")
        self._check(
            self.frame_length >= self.frame_shift,
            "frame_length",
            f"it must be at least the frame shift, {self.frame_shift} s",
        )
        self._check(
            self.high is None or self.high > self.low,
            "high",
            f"it must be above low = {self.low:g} hertz",
        )
        for name, known in CHOICES.items():
            self._check(getattr(self, name) in known, name, f"give {' or '.join(known)}")
        self._check(
            fields(self.silence) == [self.silence], "silence", "it needs a name without blanks"
        )

    def _check(self, condition: bool, name: str, need: str) -> None:
        if not condition:  # a long value takes long to be told
            raise UserError(f"acoustic setting {name} is {brief(getattr(self, name))}: {need}")
