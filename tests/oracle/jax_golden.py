"""JAX against the golden values: reads bundles, writes its own arrays in their form.

    python jax_golden.py GOLDEN THEIRS float32
    refimpl golden check THEIRS --against GOLDEN --cases layers

Derivatives are those of `jax.vjp`; optimizers are those that JAX ships in its examples, which
know no weight decay.  In float64, inputs are doubled first, and answers rounded to float32 in the
end.  Needs jax and NumPy alone; nothing of refimpl is imported.
"""

import sys

import bundles
import jax
import numpy as np
from jax import numpy as jnp
from jax.example_libraries import optimizers

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_enable_x64", True)  # float64, and labels of int64 stay what they are
jax.config.update("jax_default_matmul_precision", "highest")

# -------------------------------------------------------------------------------------- layers


def affine(given, settings):
    y, pull = jax.vjp(lambda x, w, b: x @ w + b, given["x"], given["w"], given["b"])
    dx, dw, db = pull(given["dy"])
    return {"y": y, "dw": dw, "db": db, "dx": dx}


def curve(function):
    def operation(given, settings):
        y, pull = jax.vjp(function, given["x"])
        (dx,) = pull(given["dy"])
        return {"y": y, "dx": dx}

    return operation


def cross_entropy(logits, labels):
    """Return the sum over rows of -log softmax at the label."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).sum()


def softmax_cross_entropy(given, settings):
    loss, dlogits = jax.value_and_grad(cross_entropy)(given["logits"], given["labels"])
    return {"loss": loss, "dlogits": dlogits}


# ---------------------------------------------------------------------------------- optimizers

STATES = {
    "sgd": [],
    "momentum": ["momentum"],
    "nesterov": ["momentum"],
    "adam": ["first", "second"],
    "adamw": ["first", "second"],
}


class Optimizer:
    """An optimizer of JAX's examples, with weight decay: parameters are a list of arrays."""

    def __init__(self, settings, name, parameters):
        hyper = settings["hyper"]
        self.lr, self.decay = settings["lr"], hyper["weight_decay"]
        self.decoupled, self.step = name == "adamw", 0
        if name == "sgd":
            made = optimizers.sgd(self.lr)
        elif name in ("momentum", "nesterov"):
            made = getattr(optimizers, name)(self.lr, hyper["momentum"])
        else:
            made = optimizers.adam(self.lr, hyper["beta1"], hyper["beta2"], hyper["eps"])
        self.update, self.parameters_of = made.update_fn, made.params_fn
        self.state = made.init_fn(parameters)

    def take(self, gradients):
        """Take a step."""
        before = self.parameters()
        if not self.decoupled:
            gradients = [g + self.decay * w for g, w in zip(gradients, before, strict=True)]
        self.state = self.update(self.step, gradients, self.state)
        self.step += 1
        if self.decoupled:
            packed = [
                (w - self.lr * self.decay * old, *states)
                for (w, *states), old in zip(self.state.packed_state, before, strict=True)
            ]
            self.state = self.state._replace(packed_state=packed)

    def parameters(self):
        return self.parameters_of(self.state)

    def states(self):
        """Return each state of the first array of parameters."""
        return self.state.packed_state[0][1:]


def optimizer(given, settings):
    name = settings["name"]
    made = Optimizer(settings, name, [given["w"]])
    found = {key: [] for key in ["w_after", *STATES[name]]}
    for gradient in given["gradient"]:
        made.take([gradient * settings["scale"]])
        for rows, value in zip(found.values(), [*made.parameters(), *made.states()], strict=True):
            rows.append(value)
    return {key: jnp.stack(rows) for key, rows in found.items()}


def clipping(given, settings):
    shards = list(given["gradient"])
    clipped = jnp.stack(optimizers.clip_grads(shards, settings["max_norm"]))
    return {"norm": optimizers.l2_norm(shards), "clipped": clipped}


# ------------------------------------------------------------------------------------- network

ACTIVATIONS = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}


def network(given, settings):
    activation, depth = ACTIVATIONS[settings["activation"]], len(settings["widths"]) - 1

    def loss_of(parameters, x, labels):
        *hidden, (weight, bias) = zip(parameters[:depth], parameters[depth:], strict=True)
        for w, b in hidden:
            x = activation(x @ w + b)
        return cross_entropy(x @ weight + bias, labels)

    names = [f"weight{i}" for i in range(depth)] + [f"bias{i}" for i in range(depth)]
    made = Optimizer(settings, settings["optimizer"], [given[name] for name in names])
    found = {"loss": []}
    evaluate = jax.jit(jax.value_and_grad(loss_of))
    for x, labels in zip(given["x"], given["labels"], strict=True):
        frames = labels.size
        loss, gradients = evaluate(
            made.parameters(), x.reshape(frames, -1), labels.reshape(frames)
        )
        found["loss"].append(loss)
        for name, gradient in zip(names, gradients, strict=True):
            found.setdefault(f"{name[:-1]}_gradient{name[-1]}", gradient)
        made.take([gradient / frames for gradient in gradients])
    found["loss"] = jnp.stack(found["loss"])
    after = zip(names, made.parameters(), strict=True)
    return found | {f"{name}_after": value for name, value in after}


OPERATIONS = {
    "affine": affine,
    "relu": curve(jax.nn.relu),
    "sigmoid": curve(jax.nn.sigmoid),
    "tanh": curve(jnp.tanh),
    "softmax_cross_entropy": softmax_cross_entropy,
    "optimizer": optimizer,
    "clipping": clipping,
    "network": network,
}


def computed(operation, dtype):
    """Return the operation on NumPy arrays; in float64 it is rounded once, in the end."""

    def on_arrays(given, settings):
        arrays = {
            name: jnp.asarray(value, dtype if value.dtype == np.float32 else value.dtype)
            for name, value in given.items()
        }
        found = operation(arrays, settings)
        assert all(value.dtype == dtype for value in found.values()), found
        return {name: np.asarray(value, np.float32) for name, value in found.items()}

    return on_arrays


if __name__ == "__main__":
    golden, theirs, dtype = sys.argv[1:]
    operations = {name: computed(one, jnp.dtype(dtype)) for name, one in OPERATIONS.items()}
    bundles.write(theirs, bundles.answered(golden, operations))
