"""One recording: a RIFF wav file, mono, as the front end wants it.

Samples come back as float32 on the scale of 16-bit integers, as Kaldi has them, so that a
16-bit file and the same sound as 32-bit floating point (full scale = 1) give equal features.
"""

from __future__ import annotations

import struct
import warnings

import numpy as np

from refimpl.support.errors import UserError, require

FULL_SCALE = 32768


def read_wav(path: str) -> tuple[int, np.ndarray]:
    """Return (sample rate in hertz, (n,) float32 samples) of a mono wav file.

    Raises
    ------
    UserError
        If the file is missing, is not RIFF wav, ends early, has more than one channel or
        samples that are neither 16-bit integers nor 32-bit floating point.
    """
    from scipy.io import wavfile  # here: 20 MB that a rank without wavs to read does without

    try:
        with warnings.catch_warnings():
            # SciPy reads past chunks it does not know, rightly, but also past a missing end.
            warnings.simplefilter("ignore", wavfile.WavFileWarning)
            warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
            rate, samples = wavfile.read(path)
    except FileNotFoundError:
        raise UserError(
            f"no file {path}: give a path that exists on every node; paths in wav.scp are "
            "relative to its folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror or error}): a RIFF wav file is needed"
        ) from None
    except (ValueError, struct.error, wavfile.WavFileWarning, EOFError) as error:
        raise UserError(
            f"{path} is truncated or not a RIFF wav file ({first_sentence(error)}): "
            "copy it again or convert it, for instance with sox FILE -b 16 -c 1 NEW.wav"
        ) from None

    channels = 1 if samples.ndim == 1 else samples.shape[1]
    require(
        channels == 1,
        f"{path} has {channels} channels, mono is needed: take one with sox FILE NEW.wav remix 1",
    )
    require(
        samples.dtype in (np.int16, np.float32),
        f"{path} holds {samples.dtype} samples, 16-bit integers or 32-bit floating point are "
        "needed: convert it with sox FILE -b 16 NEW.wav",
    )
    if samples.dtype == np.float32:
        return rate, samples * np.float32(FULL_SCALE)
    return rate, samples.astype(np.float32)


def first_sentence(error: Exception) -> str:
    """Return an error's text without its full stop and what follows it."""
    return str(error).split(". ")[0].rstrip(".")
