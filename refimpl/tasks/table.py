"""The tasks that a recipe can name, and how a run's data become one."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from refimpl.support.errors import UserError, listed
from refimpl.tasks.acoustic.task import AcousticTask
from refimpl.tasks.images.task import ImageTask
from refimpl.tasks.protocol import Say, Task

if TYPE_CHECKING:
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
    known = [field.name for field in fields(task.Settings)]
    for setting in chosen:
        if setting not in known:
            raise UserError(f"no {name} setting {setting!r}: there are {listed(known) or 'none'}")
    return task.prepare(comm, task.Settings(**chosen), data, say)
