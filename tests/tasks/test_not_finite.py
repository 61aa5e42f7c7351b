"""A network that has blown up is scored as such: a loss that is no number, not an error."""

import math

import numpy as np
import pytest
from alone import Alone
from beeps import beeps

from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.task import AcousticTask
from refimpl.tasks.images import toy
from refimpl.tasks.images.task import ImageExamples, ImageTask

FLAT = AcousticSettings(alignment="flat", flat_passes=0)


def blown_up(classes, value):
    """A network whose outputs hold this value, in all rows or in some."""

    def outputs(examples, index):
        logits = np.random.default_rng(0).normal(size=(len(index), classes)).astype(np.float32)
        logits[index % 2 == 0] = value
        logits[index % 2 == 1, 0] = value
        return logits

    return outputs


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beeps") / "corpus"
    beeps(folder)
    return folder


@pytest.mark.parametrize("settings", [FLAT, AcousticSettings()], ids=["flat", "exact"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_speech(corpus, settings, value):
    task = AcousticTask.read(Alone(), corpus, settings, None)
    outputs = blown_up(task.classes, value)
    with np.errstate(all="ignore"):
        for words in (True, False):
            score = task.evaluate("dev", outputs, Alone(), words)
            assert not math.isfinite(score["loss"]) and 0 <= score["frame_error_rate"] <= 1
        task.tune(outputs, Alone())
        task.realign(outputs, Alone())
    assert (task.train.labels >= 0).all() and (task.train.labels < task.classes).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images(value):
    task = ImageTask(784, {"dev": ImageExamples(*toy.images("dev", 0, 300))})
    with np.errstate(all="ignore"):
        score = task.evaluate("dev", blown_up(10, value), Alone())
    assert not math.isfinite(score["loss"]) and 0 <= score["frame_error_rate"] <= 1
