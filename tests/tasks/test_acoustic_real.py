"""Real speech: spoken digits as Kaldi data directories, where they are at hand.

They are looked for in the folder `fsdd` of $REFIMPL_TEST_DATA, else of shared/data beside the
checkout.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from alone import Alone

from refimpl.tasks.acoustic.discriminant import linear_discriminant
from refimpl.tasks.acoustic.kaldi import read_data_directory
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.task import AcousticTask

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
FSDD = Path(os.environ.get("REFIMPL_TEST_DATA", BESIDE)) / "fsdd"

pytestmark = pytest.mark.skipif(not FSDD.is_dir(), reason=f"no real recordings in {FSDD}")


def test_every_directory_is_read_whole():
    counts = {
        path.parent.name: len(read_data_directory(path.parent)) for path in FSDD.glob("*/text")
    }
    assert counts == {"train": 1200, "dev": 150, "test": 150, "test_new_speaker": 500}


def test_a_linear_model_of_150_recordings_understands_most_digits(tmp_path):
    """Flat start, linear discriminant, decoder: everything but the network."""
    for name, real in {"train": "dev", "dev": "test", "test": "test"}.items():
        (tmp_path / name).symlink_to(FSDD / real)
    (tmp_path / "lexicon.txt").symlink_to(FSDD / "lexicon.txt")
    task = AcousticTask.read(Alone(), tmp_path, AcousticSettings(), None)
    assert (task.settings.sample_rate, task.inputs, task.classes) == (8000, 440, 60)
    assert np.isfinite(task.train.features).all() and (task.train.labels >= 0).all()

    outputs = linear_discriminant(Alone(), task.train, task.statistics.priors)
    score = task.evaluate("test", outputs, Alone())
    assert score["frame_error_rate"] < 0.6
    assert score["word_error_rate"]["words"] == 150
    assert score["word_error_rate"]["wer"] < 0.15
