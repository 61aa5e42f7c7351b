"""The tasks that a recipe can name, and how a run's data become one."""

from __future__ import annotations

from typing import Any

from refimpl.support.errors import UserError, listed, typed
from refimpl.tasks.acoustic.task import AcousticTask
from refimpl.tasks.images.task import ImageTask
from refimpl.tasks.protocol import Say, Task
from refimpl.world.communicator import Communicator

TASKS: dict[str, type[Task]] = {"acoustic": AcousticTask, "images": ImageTask}


def kind(name: str) -> type[Task]:
    """Return the task class of this name, or raise a `UserError` that lists the names."""
    if name not in TASKS:
        raise UserError(f"no task {name!r}: a recipe names one of {listed(TASKS)}")
    return TASKS[name]


def prepare(
    comm: Communicator, name: str, chosen: dict[str, Any], data: str | None, say: Say
) -> Task:
    """Return the task of this name with the settings chosen, its data read.  Collective."""
    task = kind(name)
    made = task.prepare(comm, typed(task.Settings, chosen, f"{name} setting"), data, say)
    for note in made.notes:
        say(f"note: {note}")
    return made
