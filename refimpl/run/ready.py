"""A run made ready on its ranks: what is trained, on what, and how."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.step import Replica
from refimpl.nn.flat import one_unit
from refimpl.run import alike
from refimpl.run.config import Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.report import announcement
from refimpl.state.live import Keeper
from refimpl.support.errors import UserError
from refimpl.tasks import table as tasks
from refimpl.tasks.batches import Batches
from refimpl.tasks.protocol import Examples, Say, Task
from refimpl.tasks.scoring import CHUNK
from refimpl.world.agree import same, together
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.topology import Nodes

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since Python 3.11


@dataclass
class Carried:
    """What a process still has of a run when its ranks become fewer: a moment of it, the data.

    ``begun``: what the task was before the first step.
    """

    keeper: Keeper = field(default_factory=Keeper)
    task: Task | None = None
    begun: dict[str, Any] = field(default_factory=dict)


class Ready:
    """Data, network and replica of a run on the ranks of ``comm``.

    Collective: every rank makes one and calls the same.  A context manager: `close` gives the
    groups back, after a `UserError` too.  ``multiple``: of so many frames an epoch is a multiple,
    for runs that are compared.  ``carried``: of ranks that go on without others.

    Attributes
    ----------
    replica : Replica
        This rank's part of the model; ``replica.step(ready.batch, rate)`` takes a step.
    step : int
        How many steps were taken: which batches are next.
    """

    def __init__(
        self,
        comm: Communicator,
        run: Run,
        model: ModelFile,
        say: Say = print,
        multiple: int = 1,
        carried: Carried | None = None,
    ) -> None:
        same(comm, alike.configuration(run) | alike.code(comm))
        run.check(comm.size)
        comm = comm.by_node() if run.map == "by-node" else comm
        self.comm, self.run, self.model, self.step = comm, run, model, 0
        self.carried = carried
        self.say: Say = say if comm.rank == 0 else lambda text: None
        self.recipe, self.grid = run.recipe, run.grid(comm.size)
        self.nodes, self.methods = Nodes(comm.nodes), run.chosen()
        on_paper = run.setting(self.nodes, one_unit(1, self.grid.partition))
        traffic.check(self.methods, on_paper)
        self.groups = Groups.split(comm, self.grid)
        with self._freed_by_error():
            self.say(announcement(run, self.methods, on_paper))
            self._prepare(multiple)

    def _prepare(self, multiple: int) -> None:
        comm, run, recipe = self.comm, self.run, self.recipe
        carried = self.carried
        if carried is not None and carried.task is not None:
            self.task = carried.task
            self.task.load_state(carried.begun)  # some may have changed it, others not yet
        else:
            self.task = tasks.prepare(comm, recipe.task, recipe.settings, run.data, self.say)
        if carried is not None and carried.task is None:
            carried.task, carried.begun = self.task, self.task.state()
        same(comm, alike.data(self.task))
        examples, micro = self.task.train.count, self.grid.micro_batches(recipe.microsteps)
        self.batches = Batches(examples, recipe.batch, micro, run.seed, multiple)
        rows, dtype = max(recipe.batch, CHUNK), np.dtype(run.dtype)
        inputs, classes = self.task.inputs, self.task.classes
        with together(comm):
            self.network = self.model.build(run.seed, inputs, classes, run.options)
            self.model.plan(self.network, rows, dtype, self.grid.partition)
        same(comm, alike.network(self.network, dtype))
        family, options = run.family(), run.step_options()
        chosen = family, run.optimizer(), self.methods, options
        self.replica = Replica(self.network, self.groups, *chosen)
        if isinstance(family, collectives.Auto):
            setting = run.setting(self.nodes, self.replica.context.layout)
            self.say("\n".join(traffic.choices(self.methods, setting)))
        self._x, self._y = np.zeros((rows, inputs), dtype), np.zeros(rows, np.int64)

    def close(self) -> None:
        """Give the communicators of the axes back; MPI has some thousand only.  Collective."""
        self.groups.free()

    @contextmanager
    def _freed_by_error(self) -> Iterator[None]:
        """Close after an error that all ranks raise; any other ends the whole job."""
        try:
            yield
        except UserError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or issubclass(kind, UserError):
            self.close()

    def batch(self, microstep: int) -> tuple[np.ndarray, np.ndarray]:
        """Return this rank's micro-batch of the current step."""
        number = self.grid.micro_batch(self.comm.rank, microstep, self.recipe.microsteps)
        index = self.batches.index(self.step, number)
        x, y = self._x[: index.size], self._y[: index.size]
        with self.comm.events.during("compute", "batch"):
            self.task.train.take(index, x, y)
        return x, y

    def outputs(self, examples: Examples, index: NDArray[np.int64]) -> np.ndarray:
        """Return the logits of examples, (B, classes); valid until the next call.  Collective."""
        x, y = self._x[: index.size], self._y[: index.size]
        examples.take(index, x, y)
        return self.replica.outputs(x)

    @property
    def frames(self) -> int:
        """Frames that all ranks together have trained on."""
        return self.step * self.frames_per_step

    @property
    def frames_per_step(self) -> int:
        """Frames of all ranks in one step."""
        return self.recipe.batch * self.batches.micro_batches
