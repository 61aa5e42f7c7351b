"""Layers: the rules of `functional` with memory around them, and layers in a row.

A layer never owns its parameters.  Whoever does (a replica, a shard's gather buffer, a test)
calls `Layer.bind` with flat vectors, and the layer makes views.  A layer that has parameters is a
*unit*: what is gathered, reduced and freed together.

    plan(batch, inputs, dtype)     once: allocate workspaces for up to ``batch`` rows
    bind(parameters, gradients)    as often as one likes: views, no copies
    forward(x)                     B <= batch rows; the result is valid until the next forward
    train(x, batch)                the same in training, where some layers draw numbers
    backward(dy)                   after either; overwrites the gradients with sums over rows
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from refimpl.nn import functional
from refimpl.nn.init import Initial, fill
from refimpl.support.errors import brief, require


class Parameter(NamedTuple):
    """A parameter of a layer: its name within the layer, its shape, how it starts."""

    name: str
    shape: tuple[int, ...]
    initial: Initial

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class MicroBatch(NamedTuple):
    """What a micro-batch of training is called, on whatever rank it is computed.

    ``step``: how many steps the parameters have behind them.  ``number``: which of the step's
    micro-batches, over the whole world.
    """

    step: int
    number: int


class Layer:
    """What all layers have; see the module's text for the order of calls."""

    name: str
    inputs: int  # of a layer with parameters: the widths
    outputs: int
    parameters: tuple[Parameter, ...] = ()
    keeps_output = False  # does backward read what forward returned?
    draws = False  # does train draw numbers, by the layer's name?

    @property
    def size(self) -> int:
        """Number of all parameters' elements: the length of the vectors given to `bind`."""
        return sum(parameter.size for parameter in self.parameters)

    def plan(self, batch: int, inputs: int, dtype: DTypeLike, in_place: bool = False) -> int:
        """Allocate workspaces for up to ``batch`` rows of ``inputs`` numbers; return outputs.

        ``in_place`` allows forward to write over its argument, where the layer can.
        """
        raise NotImplementedError

    def bind(self, parameters: np.ndarray, gradients: np.ndarray | None = None) -> None:
        """Use these vectors (size,) for the parameters and their gradients from now on."""
        assert parameters.shape == (0,), f"{self.name} has no parameters"

    def initialise(self, parameters: np.ndarray) -> None:
        """Set ``parameters`` (size,) to the initial values: the same wherever this runs."""
        assert parameters.shape == (0,), f"{self.name} has no parameters"

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the outputs (B, outputs) for inputs (B, inputs), in the layer's workspace."""
        raise NotImplementedError

    def train(self, x: np.ndarray, batch: MicroBatch) -> np.ndarray:
        """Return what `forward` does, in training; what is drawn for it depends on these names."""
        return self.forward(x)

    def backward(self, dy: np.ndarray, input_gradient: bool = True) -> np.ndarray | None:
        """Return dL/dx (B, inputs), in the layer's workspace; None without ``input_gradient``.

        Overwrites the bound gradients with their sums over the rows of the last forward.
        """
        raise NotImplementedError


class Affine(Layer):
    """y = x w + b, with w (inputs, outputs) and b (outputs,), in this order in the flat vector.

    Parameters
    ----------
    name : str
        Unique in its network: initial values and saved arrays go by it.
    inputs, outputs : int
        Widths.
    seed : int
        The run's seed, for `initialise`.
    gain : float
        w starts normal with standard deviation gain / sqrt(inputs), b at 0.  The default,
        sqrt(2), keeps the variance of what passes through rectified units; use 1 before tanh.
    """

    def __init__(
        self, name: str, inputs: int, outputs: int, seed: int, gain: float = math.sqrt(2)
    ) -> None:
        require(isinstance(name, str), f"a layer is named {brief(name)}: a text is needed")
        require(
            all(
                isinstance(width, (int, np.integer)) and width >= 1 for width in (inputs, outputs)
            ),
            f"layer {name!r} of {brief(inputs)} inputs and {brief(outputs)} outputs: both must be "
            "whole numbers, at least 1",
        )
        for what, number in (("seed", seed), ("gain", gain)):
            require(
                isinstance(number, (int, float, np.number)) and math.isfinite(number),
                f"layer {name!r} has the {what} {brief(number)}: a number is needed",
            )
        self.name, self.inputs, self.outputs, self.seed = name, inputs, outputs, seed
        self.parameters = (
            Parameter("weight", (inputs, outputs), Initial("normal", gain / math.sqrt(inputs))),
            Parameter("bias", (outputs,), Initial("zeros")),
        )
        self._dw: np.ndarray | None = None
        self._db: np.ndarray | None = None

    def plan(self, batch: int, inputs: int, dtype: DTypeLike, in_place: bool = False) -> int:
        require(
            inputs == self.inputs,
            f"layer {self.name!r} takes {self.inputs} inputs but is given {inputs}",
        )
        self._y = np.zeros((batch, self.outputs), dtype)
        self._dx = np.zeros((batch, self.inputs), dtype)
        return self.outputs

    def _views(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert flat.shape == (self.size,), f"{self.name}: {flat.shape} for {self.size} numbers"
        assert flat.flags.c_contiguous
        cut = self.inputs * self.outputs
        return flat[:cut].reshape(self.inputs, self.outputs), flat[cut:]

    def bind(self, parameters: np.ndarray, gradients: np.ndarray | None = None) -> None:
        self._w, self._b = self._views(parameters)
        self._dw, self._db = (None, None) if gradients is None else self._views(gradients)

    def initialise(self, parameters: np.ndarray) -> None:
        for view, p in zip(self._views(parameters), self.parameters, strict=True):
            fill(view, p.initial, self.seed, self.name, p.name)

    def forward(self, x: np.ndarray) -> np.ndarray:
        # A dtype or a stride that BLAS cannot take would be copied without a word.
        assert x.dtype == self._w.dtype == self._y.dtype and x.flags.c_contiguous
        self._x, y = x, self._y[: len(x)]
        functional.affine(x, self._w, self._b, out=y)
        return y

    def backward(self, dy: np.ndarray, input_gradient: bool = True) -> np.ndarray | None:
        assert self._dw is not None and self._db is not None, f"{self.name} has no gradients bound"
        dx = self._dx[: len(dy)] if input_gradient else None
        functional.affine_backward(self._x, self._w, dy, self._dw, self._db, dx)
        return dx


class Elementwise(Layer):
    """y = f(x), element by element; subclasses give f and its derivative in terms of y."""

    keeps_output = True
    _rule: staticmethod[[np.ndarray, np.ndarray], None]
    _rule_backward: staticmethod[[np.ndarray, np.ndarray, np.ndarray], None]

    def __init__(self, name: str = "") -> None:
        self.name = name or type(self).__name__.lower()

    def plan(self, batch: int, inputs: int, dtype: DTypeLike, in_place: bool = False) -> int:
        self._own = None if in_place else np.zeros((batch, inputs), dtype)
        self._dx = np.zeros((batch, inputs), dtype)
        return inputs

    def forward(self, x: np.ndarray) -> np.ndarray:
        self._y = x if self._own is None else self._own[: len(x)]
        self._rule(x, self._y)
        return self._y

    def backward(self, dy: np.ndarray, input_gradient: bool = True) -> np.ndarray | None:
        if not input_gradient:
            return None
        dx = self._dx[: len(dy)]
        self._rule_backward(self._y, dy, dx)
        return dx


class Relu(Elementwise):
    """y = max(x, 0)."""

    _rule = staticmethod(functional.relu)
    _rule_backward = staticmethod(functional.relu_backward)


class Sigmoid(Elementwise):
    """y = 1 / (1 + exp(-x))."""

    _rule = staticmethod(functional.sigmoid)
    _rule_backward = staticmethod(functional.sigmoid_backward)


class Tanh(Elementwise):
    """y = tanh(x)."""

    _rule = staticmethod(functional.tanh)
    _rule_backward = staticmethod(functional.tanh_backward)


class Sequential:
    """Layers in a row.

    ``layers``: all of them, in order.  ``units``: those with parameters.  ``inputs``, ``outputs``:
    widths of the whole.  ``size``: number of all parameters.
    """

    def __init__(self, *layers: Layer) -> None:
        for one in layers:
            require(isinstance(one, Layer), f"a network of {brief(one)}: layers are needed")
        self.layers = layers
        self.units = tuple(layer for layer in layers if layer.parameters)
        require(bool(self.units), "a network needs at least one layer with parameters")
        names: set[str] = set()
        tensors: set[str] = set()
        for layer in (one for one in layers if one.parameters or one.draws):
            for what in ("name", "inputs", "outputs")[: 3 if layer.parameters else 1]:
                given, kind = getattr(layer, what, "") != "", type(layer).__name__
                require(given, f"a layer of class {kind} has no {what}: give it one")
            name = layer.name
            require(name not in names, f"two layers are named {name!r}: names are unique")
            names.add(name)
            for parameter in layer.parameters:
                name = f"{layer.name}.{parameter.name}"
                require(
                    name not in tensors, f"two parameters are named {name!r}: names are unique"
                )
                tensors.add(name)
        self.inputs, self.outputs = self.units[0].inputs, self.units[-1].outputs
        for before, after in zip(self.units, self.units[1:], strict=False):
            require(
                before.outputs == after.inputs,
                f"layer {after.name!r} takes {after.inputs} inputs but {before.name!r} before it "
                f"gives {before.outputs}",
            )
        self.size = sum(unit.size for unit in self.units)

    def plan(self, batch: int, dtype: DTypeLike) -> None:
        """Allocate all workspaces, for up to ``batch`` rows; nothing is allocated afterwards."""
        width, free = self.inputs, False
        for layer in self.layers:
            width = layer.plan(batch, width, dtype, in_place=free)
            free = not layer.keeps_output  # then the layer above may write over it

    def forward(self, x: np.ndarray) -> np.ndarray:
        """Return the outputs (B, outputs) for x (B, inputs); x must stay so till backward."""
        assert x.ndim == 2 and x.shape[1] == self.inputs, f"{x.shape} for {self.inputs} inputs"
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def train(self, x: np.ndarray, batch: MicroBatch) -> np.ndarray:
        """Return what `forward` does, in training on the micro-batch of this name."""
        for layer in self.layers:
            x = layer.train(x, batch)
        return x

    def backward(self, dy: np.ndarray, input_gradient: bool = False) -> np.ndarray | None:
        """Set all gradients from dy (B, outputs), last layer first; return dx if asked for.

        Without ``input_gradient`` nothing below the first unit is computed, nor that unit's dx.
        """
        for layer in reversed(self.layers):
            below = layer.backward(dy, input_gradient or layer is not self.units[0])
            if below is None:
                return None
            dy = below
        return dy
