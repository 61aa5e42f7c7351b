"""A task's state is all that changes: another task that loads it goes on to the last bit."""

import numpy as np
import pytest
from alone import Alone
from beeps import beeps, linear
from listeners import Heard

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
    with comm.events.listen(heard := Heard("progress")):
        first = AcousticTask.read(comm, corpus, FLAT, None)
        first.realign(linear(first, 1), comm)
        first.tune(linear(first, 1), comm)
    over = {event.name for event in heard.begun if event.value[0] == event.value[1]}
    assert over == {"features", "aligning", "choosing"}  # whoever waits is told how far it is
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


# ------------------------------------------------------------------------- damaged or edited


@pytest.fixture(scope="module")
def saved(corpus):
    return AcousticTask.read(Alone(), corpus, FLAT, None).saved()


def test_what_is_saved_comes_back(saved):
    again = AcousticTask.restore(saved).saved()
    assert all(np.array_equal(again[name], saved[name]) for name in saved)


def one_changed(array, value):
    array = array.copy()
    array[1] = value
    return array


DAMAGES = {
    "format": [None, 2, True, 1.0, "1"],
    "priors": [
        *(lambda x: one_changed(x, 0.0), lambda x: one_changed(x, -0.1)),
        *(lambda x: one_changed(x, np.nan), lambda x: one_changed(x, np.inf)),
        *(lambda x: x[:-1] / x[:-1].sum(), lambda x: x / 2, lambda x: x.astype(complex)),
        *(lambda x: x > 0, lambda x: x.astype(str), lambda x: x[None], lambda x: x.tolist()),
    ],
    "loops": [lambda x: one_changed(x, 2.0), lambda x: one_changed(x, 0.0), lambda x: x[:-1]],
    "word_penalty": [float("nan"), float("inf"), "-3", None],
    "speakers_frames": [-1, 2.5, "many"],
    "speakers_variance": [lambda x: one_changed(x, -1.0), lambda x: x[:-1]],
    "speakers_mean": [lambda x: one_changed(x, np.nan)],
    "inside_frames": [0],
    "inside_variance": [lambda x: one_changed(x, -1e-9)],
    "inside_mean": [lambda x: x.astype(np.int64), lambda x: np.append(x, 0.0)],
    "pronunciations": [[], {"a": "ah"}, {"a": [[]]}, {"a": [["ah", 1]]}, {"a": []}, {"a": 1}],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_saved_task_that_was_damaged_or_edited_is_refused_by_field(saved, name):
    for damage in DAMAGES[name]:
        value = damage(saved[name]) if callable(damage) else damage
        with pytest.raises(UserError, match=f"{name}") as error:
            AcousticTask.restore({**saved, name: value})
        assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_settings_of_a_saved_task_are_checked_like_a_recipes(saved):
    for change, message in (
        ({"bands": 10**9}, "acoustic setting bands is 1000000000"),
        ({"bands": 20}, "speakers_mean has 40 numbers"),
        ({"colour": 1}, "no acoustic setting 'colour'"),
        ({"sample_rate": None}, "lacks a sample rate"),
        ({"silence": "ah"}, "priors has|a word is said with ah"),
    ):
        settings = {**saved["settings"], **change}
        with pytest.raises(UserError, match=message):
            AcousticTask.restore({**saved, "settings": settings})
    with pytest.raises(UserError, match="acoustic value settings is .* its type must be"):
        AcousticTask.restore({**saved, "settings": [1]})


def test_targets_of_a_state_that_is_not_there_are_refused(corpus):
    task = AcousticTask.read(Alone(), corpus, FLAT, None)
    state = task.state()
    for value in (-1, task.classes):
        with pytest.raises(UserError, match="acoustic value targets is .* be a row of 64-bit"):
            task.load_state({**state, "targets": one_changed(state["targets"], value)})
