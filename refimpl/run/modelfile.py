"""Model definition files: one Python file is one model.

A model file defines two functions::

    def build(seed, inputs=440, classes=60, hidden=512):  -> refimpl.nn.Sequential
    def recipe():                                        -> refimpl.run.config.Recipe

``inputs`` and ``classes`` come from the data; any further keyword of ``build`` is an option that
``--set hidden=1024`` can change.  A file is opened by path (``my/net.py``) or by the name of a
shipped one (``acoustic_mlp``); a user's own file works the same way as a shipped one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import resource
import sys
import weakref
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from refimpl.nn import Sequential
from refimpl.support.errors import UserError, brief, listed, require, told
from refimpl.support.files import read_text
from refimpl.support.text import size
from refimpl.world.agree import together

if TYPE_CHECKING:
    from refimpl.run.config import Recipe
    from refimpl.world.communicator import Communicator


# What an option of build() may be: more layers or units than a rank has time for.  A whole number
# is below 0 only where its default is not above.
MOST = 100_000

_OURS = Path(__file__).parents[1]  # the package


def shelf() -> Path:
    """Return the folder of the shipped models: installed, else that of the checkout."""
    found = importlib.util.find_spec("refimpl.models")
    if found is not None and found.submodule_search_locations:
        return Path(next(iter(found.submodule_search_locations)))
    return Path(__file__).resolve().parents[2] / "models"


def shipped() -> list[str]:
    """Return the names of the shipped models."""
    return sorted(path.stem for path in shelf().glob("[!_]*.py"))


def find(model: str) -> Path:
    """Return the file of a model given by path (``my/net.py``) or shipped name."""
    path = Path(model) if model.endswith(".py") else shelf() / f"{model}.py"
    if not path.is_file():
        raise UserError(
            f"no model {model!r}: give a path ending in .py, or one of {listed(shipped())}"
        )
    return path


@dataclass(frozen=True)
class ModelFile:
    """An opened model file; ``text`` is its source, kept beside a finished run."""

    name: str
    text: str
    module: ModuleType

    @classmethod
    def open(cls, model: str, comm: Communicator) -> ModelFile:
        """Open a model file on every rank; all ranks must have the same text.  Collective."""
        with together(comm):
            path = find(model)
            text = read_text(path)
        digest = hashlib.sha256(text.encode()).hexdigest()
        digests = comm.allgather_object(digest)
        odd = [rank for rank, other in enumerate(digests) if other != digests[0]]
        if odd:
            raise UserError(
                f"model file {path} on ranks {odd} differs from the one on rank 0: copy the same "
                "file to every node, or keep it in a shared folder"
            )
        with together(comm):
            return cls.parse(path.stem, text, str(path))

    @classmethod
    def parse(cls, name: str, text: str, where: str) -> ModelFile:
        """Run the source of a model file and check that it defines what a model needs.

        As long as the model is there, its module stands in `sys.modules`, where `dataclasses`
        looks for it, under a name of its own: ranks may be threads, and files have equal names.
        """
        spec = importlib.util.spec_from_loader(f"refimpl_model_{name}", loader=None, origin=where)
        assert spec is not None
        spec.name += f"_{id(spec):x}"
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        opened = cls(name, text, module)
        weakref.finalize(opened, sys.modules.pop, spec.name, None)
        try:
            exec(compile(text, where, "exec", dont_inherit=True), module.__dict__)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # the end of Python, too: only we say when a run is over
            raise UserError(
                f"model file {where}{_line_in(error, where)}: {told(error)}"
            ) from error
        for function in ("build", "recipe"):
            if not callable(getattr(module, function, None)):
                raise UserError(
                    f"model file {where} defines no function {function}(): a model file needs "
                    "build(seed, inputs, classes) and recipe()"
                )
        return opened

    def recipe(self) -> Recipe:
        """Return the hyper-parameters that go with the model."""
        from refimpl.run.config import Recipe

        recipe = self._call("recipe")
        if not isinstance(recipe, Recipe):
            raise UserError(
                f"recipe() of model {self.name} returns {type(recipe).__name__}: it must return "
                "a refimpl.run.config.Recipe"
            )
        return recipe

    def options(self) -> dict[str, Any]:
        """Return the further options of ``build``, with their defaults."""
        parameters = self._signature("build", 0, inputs=1, classes=1).parameters.items()
        return {
            name: parameter.default
            for name, parameter in list(parameters)[1:]  # the seed is given by its place
            if name not in ("inputs", "classes")
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        }

    def build(self, seed: int, inputs: int, classes: int, options: dict[str, str]) -> Sequential:
        """Return the network for so many inputs and classes; options as text, by name."""
        chosen = {name: self._chosen(name, text) for name, text in options.items()}
        network = self._call("build", seed, inputs=inputs, classes=classes, **chosen)
        if not isinstance(network, Sequential):
            raise UserError(
                f"build() of model {self.name} returns {type(network).__name__}: it must return "
                "a refimpl.nn.Sequential"
            )
        for what, has, needs in (
            ("inputs", network.inputs, inputs),
            ("outputs", network.outputs, classes),
        ):
            if has != needs:
                raise UserError(
                    f"model {self.name} has {has} {what} but the data needs {needs}: "
                    "build(seed, inputs, classes) must use the widths it is given"
                )
        return network

    def plan(self, network: Sequential, rows: int, dtype: DTypeLike, partition: int = 1) -> None:
        """Plan the network; refuse one for whose p-th part this machine has no room."""
        parameters = sum(layer.size for layer in network.units)
        widths = sum(layer.inputs + layer.outputs for layer in network.units)
        needed = np.dtype(dtype).itemsize * (2 * parameters // partition + rows * widths)
        if needed > room():
            raise UserError(
                f"model {self.name} has {parameters:,} parameters: with gradients and {rows:,} "
                f"rows a rank needs {size(needed)}, and there are {size(room())}: make it "
                "smaller, or use more ranks and --partition"
            )
        network.plan(rows, dtype)

    def _chosen(self, name: str, text: str) -> Any:
        """Return what a text says for an option of ``build``, of the type of its default."""
        known = self.options()
        if name not in known:
            raise UserError(
                f"model {self.name} has no option {name!r}: it has {listed(known) or 'none'}"
            )
        kind, option = type(known[name]), f"option {name}={text} of model {self.name}"
        require(
            issubclass(kind, (int, float, str)),
            f"{option} has the default {brief(known[name])}: --set changes what is a number, a "
            "text, True or False; change this one in the model file",
        )
        try:
            value = {"True": True, "False": False}[text] if kind is bool else kind(text)
        except (KeyError, ValueError, TypeError):
            raise UserError(
                f"{option} is not of type {kind.__name__} (its default is {known[name]!r})"
            ) from None
        if isinstance(value, (int, float)):
            least = 0 if kind is int and known[name] > 0 else -MOST
            require(least <= value <= MOST, f"{option}: give a number from {least:,} to {MOST:,}")
        return value

    def _signature(self, name: str, *args: Any, **given: Any) -> inspect.Signature:
        """Return the signature of a function of the model file, which takes these arguments."""
        try:
            signature = inspect.signature(getattr(self.module, name))
            signature.bind(*args, **given)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{name}() of model {self.name} cannot be called: {error}; a model file needs "
                "build(seed, inputs, classes) and recipe(), further arguments with defaults"
            ) from error
        return signature

    def _call(self, name: str, *args: Any, **given: Any) -> Any:
        """Call a function of the model file; a mistake in the file is a `UserError` with its line.

        So is the end of Python, of its stack or of the memory, wherever it comes up.  What else
        is raised below a function of refimpl that the file calls stays what it is.
        """
        self._signature(name, *args, **given)
        function, spec = getattr(self.module, name), self.module.__spec__
        assert spec is not None and spec.origin is not None
        where = spec.origin
        called = f"{name}() of model {self.name}"
        try:
            return function(*args, **given)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            line = _line_in(error, where)
            if isinstance(error, UserError):
                raise UserError(f"{called}{line}: {error}") from error
            ends = isinstance(error, (RecursionError, MemoryError))
            if isinstance(error, Exception) and not ends and _below_ours(error, where):
                raise
            raise UserError(f"{called}{line}: {told(error)}") from error


def room() -> int:
    """Return the bytes of memory that a process may have here, those of the machine at most."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    return machine if allowed == resource.RLIM_INFINITY else min(machine, allowed)


def _below_ours(error: BaseException, where: str) -> bool:
    """Tell whether an error came up below a function of refimpl that the model file called."""
    files, trace = [], error.__traceback__
    while trace is not None:
        files.append(trace.tb_frame.f_code.co_filename)
        trace = trace.tb_next
    called = files[len(files) - files[::-1].index(where) :] if where in files else []
    return any(_OURS in Path(file).parents for file in called)


def _line_in(error: BaseException, where: str) -> str:
    """Return ``, line N`` for the line of the model file where an error came up."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = []
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == where:
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f", line {lines[-1]}" if lines else ""
