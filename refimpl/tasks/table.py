"""The tasks that a recipe can name, and how a run's data become one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from refimpl.support.errors import UserError, listed, typed
from refimpl.tasks.protocol import Say, Task, Words
from refimpl.world.communicator import Communicator


def _acoustic() -> type[Task]:
    from refimpl.tasks.acoustic.task import AcousticTask

    return AcousticTask


def _images() -> type[Task]:
    from refimpl.tasks.images.task import ImageTask

    return ImageTask


# Each is imported when it is asked for: many ranks start without what they do not need.
TASKS: dict[str, Callable[[], type[Task]]] = {"acoustic": _acoustic, "images": _images}


def kind(name: str) -> type[Task]:
    """Return the task class of this name, or raise a `UserError` that lists the names."""
    if name not in TASKS:
        raise UserError(f"no task {name!r}: a recipe names one of {listed(TASKS)}")
    return TASKS[name]()


def words(names: Iterable[str]) -> Words:
    """Return what the things of these tasks are called, in a line about all of them."""
    found = {kind(name).words for name in names}
    return found.pop() if len(found) == 1 else Words("examples", "error")


def prepare(
    comm: Communicator, name: str, chosen: dict[str, Any], data: str | None, say: Say
) -> Task:
    """Return the task of this name with the settings chosen, its data read.  Collective."""
    task = kind(name)
    made = task.prepare(comm, typed(task.Settings, chosen, f"{name} setting"), data, say)
    for note in made.notes:
        say(f"note: {note}")
    return made
