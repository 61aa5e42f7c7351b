"""A task's state is all that changes: another task that loads it goes on to the last bit."""

import numpy as np
import pytest
from alone import Alone
from beeps import beeps, linear

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic.settings import AcousticSettings
from refimpl.tasks.acoustic.task import AcousticTask
from refimpl.tasks.images.task import ImageTask

FLAT = AcousticSettings(alignment="flat", flat_passes=1, word_penalties=(-3.0, 0.0, 3.0))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beeps") / "corpus"
    beeps(folder)
    return folder


def rest(task, comm):
    """What a run does from here to its end: all that it computes."""
    results = [task.evaluate("dev", linear(task, 2), comm)]
    results.append(task.realign(linear(task, 3), comm))
    results.append(task.train.labels.tobytes())
    results.append(task.tune(linear(task, 4), comm))
    results.append(task.evaluate("test", linear(task, 4), comm))
    saved = task.saved()
    return results, {name: np.asarray(value).tolist() for name, value in saved.items()}


def test_a_fresh_task_that_loads_the_state_goes_on_to_the_last_bit(corpus):
    comm = Alone()
    first = AcousticTask.read(comm, corpus, FLAT, None)
    first.realign(linear(first, 1), comm)
    first.tune(linear(first, 1), comm)
    state = first.state()
    kept = {name: np.array(value) for name, value in state.items()}
    again = AcousticTask.read(comm, corpus, FLAT, None)
    assert again.train.labels.tobytes() != first.train.labels.tobytes()
    want = rest(first, comm)
    for name, value in kept.items():
        np.testing.assert_array_equal(state[name], value)  # it was a copy
    again.load_state(state)
    assert {name: np.asarray(v).tobytes() for name, v in again.state().items()} == {
        name: v.tobytes() for name, v in kept.items()
    }
    assert rest(again, comm) == want


def test_the_state_of_other_data_is_refused(corpus, tmp_path):
    beeps(tmp_path / "other", {"train": 7, "dev": 2, "test": 2})
    comm = Alone()
    task = AcousticTask.read(comm, corpus, FLAT, None)
    other = AcousticTask.read(comm, tmp_path / "other", FLAT, None)
    before = task.state()
    with pytest.raises(UserError, match="targets has .* frames but the training data have"):
        task.load_state(other.state())
    with pytest.raises(UserError, match="acoustic value word_penalty is missing"):
        task.load_state({k: v for k, v in before.items() if k != "word_penalty"})
    after = task.state()
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_nothing_changes_of_an_image_task():
    task = ImageTask(4, {})
    assert task.state() == {}
    task.load_state({})
