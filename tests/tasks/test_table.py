"""The table of tasks: names, settings, and that each task is what the trainer asks for."""

from dataclasses import dataclass

import pytest

from refimpl.support.errors import UserError
from refimpl.tasks import protocol, table


def asked(kind):
    """The names that a protocol asks for."""
    return {name for one in kind.__mro__ for name in vars(one) if not name.startswith("_")}


@pytest.mark.parametrize("name", table.TASKS)
def test_every_task_has_what_the_trainer_asks_for(name):
    task = table.kind(name)
    missing = {one for one in asked(protocol.Task) if not hasattr(task, one)}
    assert not missing
    assert task.words.examples and task.words.error_rate
    task.Settings()  # every setting has a default


def test_an_unknown_task_is_refused_with_the_names():
    with pytest.raises(UserError, match="no task 'speech': a recipe names one of acoustic, image"):
        table.kind("speech")


@pytest.mark.parametrize(
    "name, known", [("images", "there are none"), ("acoustic", "there are acoustic_scale, align")]
)
def test_an_unknown_setting_is_refused_with_the_names(name, known):
    with pytest.raises(UserError, match=f"no {name} setting 'colour': {known}"):
        table.prepare(None, name, {"colour": 1}, None, print)


def test_a_new_task_is_a_class_and_a_line_in_the_table(monkeypatch):
    @dataclass(frozen=True)
    class Settings:
        colour: str = "red"

    class Toy:
        @classmethod
        def prepare(cls, comm, settings, data, say):
            made = cls()
            made.settings, made.data, made.notes = settings, data, ["it is toys"]
            return made

    Toy.Settings = Settings
    monkeypatch.setitem(table.TASKS, "toy", lambda: Toy)
    said = []
    made = table.prepare(None, "toy", {"colour": "blue"}, "here", said.append)
    assert (made.settings, made.data, said) == (Settings("blue"), "here", ["note: it is toys"])
