"""A finished run, opened to score or decode other data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from refimpl.nn import Sequential
from refimpl.nn.flat import Layout
from refimpl.run import alike
from refimpl.run.config import Run
from refimpl.run.folder import CONFIG, RunFolder
from refimpl.run.modelfile import ModelFile
from refimpl.state.digest import parameters_digest
from refimpl.support.errors import UserError, require, told, typed
from refimpl.tasks import table as tasks
from refimpl.tasks.protocol import Examples, Say
from refimpl.tasks.scoring import CHUNK
from refimpl.world.agree import same, together

MODEL, TASK, MODEL_FILE = "model.npz", "task.npz", "model.py"

if TYPE_CHECKING:
    from refimpl.world.communicator import Communicator


@dataclass
class Finished:
    """A trained network on every rank, and what its task needs to use it."""

    comm: Communicator
    run: Run
    network: Sequential
    task: Any

    @classmethod
    def open(cls, comm: Communicator, path: Path) -> Finished:
        """Read a run's folder on every rank.  Collective."""
        with together(comm):
            folder = RunFolder.finished(path)
            config, state = folder.config(), folder.task_state()
            with reading(path / CONFIG):
                run = Run.from_dict(config)
                kind = tasks.kind(run.recipe.task)
                typed(kind.Settings, run.recipe.settings, f"{run.recipe.task} setting")
            with reading(path / TASK):
                task = kind.restore(state)
            parameters = folder.parameters()
            source = str(path / MODEL_FILE)
            model = ModelFile.parse(Path(run.model).stem, folder.model_text(), source)
            network = model.build(run.seed, task.inputs, task.classes, run.options)
            model.plan(network, CHUNK, run.dtype)
            _load(network, parameters, np.dtype(run.dtype), path)
        held = {
            MODEL: parameters_digest(parameters),
            TASK: alike.digest_of(state),
            MODEL_FILE: alike.digest_of({"text": model.text}),
        }
        held = {f"the digest of {path / name}": digest for name, digest in held.items()}
        same(comm, alike.configuration(run) | alike.code(comm) | held)
        return cls(comm, run, network, task)

    def outputs(self, examples: Examples, index: NDArray[np.int64]) -> np.ndarray:
        """Return the logits of examples, (B, classes); valid until the next call."""
        x = np.zeros((index.size, self.network.inputs), np.dtype(self.run.dtype))
        examples.take(index, x, np.zeros(index.size, np.int64))
        return self.network.forward(x)

    def evaluate(self, directory: str | None, say: Say = print) -> dict[str, dict[str, Any]]:
        """Return the scores of each data folder in ``directory``, by its path.  Collective.

        Without one: those of dev and test of what the run was trained on, by these names.
        """
        scores = {}
        if directory is None:
            names = self.task.load_own(self.comm, self.run.data, say)
            same(self.comm, alike.data(self.task))
            return {name: self.task.evaluate(name, self.outputs, self.comm) for name in names}
        with together(self.comm):
            folders = self.task.folders(directory)
        for folder in folders:
            self.task.load(self.comm, folder, folder, None)
            same(self.comm, alike.data(self.task))
            scores[folder] = self.task.evaluate(folder, self.outputs, self.comm)
        return scores

    def transcribe(self, wavs: list[str]) -> list[tuple[str, ...]]:
        """Return the words of recordings.  Collective."""
        if not hasattr(self.task, "transcribe"):
            raise UserError(f"model {self.run.model} does not decode speech: nothing to print")
        return self.task.transcribe(wavs, self.outputs, self.comm)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Name the file in which something is missing or not what this refimpl writes."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{file} does not hold what this refimpl writes ({told(error)}): train again"
        ) from error


def _load(network: Sequential, named: dict[str, np.ndarray], dtype: np.dtype, path: Path) -> None:
    """Bind the network to the parameters of a run, which are what it takes and finite."""
    layout = Layout(network.units)
    for name in named:
        require(name in layout.parameters, f"{path / MODEL}: no layer has a parameter {name!r}")
    for layer, unit in zip(network.units, layout.units, strict=True):
        memory = np.zeros(unit.size, dtype)
        for name, place, shape in unit.tensors:
            value = named.get(name, np.empty(0))
            for has, needs in ((value.shape, tuple(shape)), (value.dtype, dtype)):
                require(has == needs, f"{path / MODEL} has no {name} of {needs}: train again")
            require(
                bool(np.isfinite(value).all()),
                f"{path / MODEL}: {name} holds a number that is not finite: train again",
            )
            memory[place] = value.ravel()
        layer.bind(memory, None)
