"""Optimizers, clipping, learning rates, sums in fixed point."""

from __future__ import annotations

from typing import Any

from refimpl import optim
from refimpl.golden.operations.declared import Operation, Setting, given, out
from refimpl.optim import schedule

UPDATE = """
g = scale gradient + weight_decay w                  adamw: g = scale gradient
sgd       w = w - lr g
momentum  v = momentum v + g;  w = w - lr v
nesterov  v = momentum v + g;  w = w - lr (g + momentum v)
adam      m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g^2;  t = 1, 2, ... steps
          w = w - lr / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + eps)
adamw     w = w - lr weight_decay w, then as adam
states are 0 at first; 1 - beta^t in float64
"""


HYPER = {
    "weight_decay": "strength of the decay, as above",
    "momentum": "as above",
    "beta1": "as above",
    "beta2": "as above",
    "eps": "added to the square root, outside of it",
    "warmup": "epochs of the warm-up; 0: none",
    "decay": "what the rate is multiplied with",
    "every": "epochs from one fall of the rate to the next",
    "start": "halving begins when the loss improves by less",
    "stop": "training stops when it improves by less",
}


def hyper(names: set[str]) -> dict[str, Any]:
    """Return the JSON Schema of hyper-parameters of these names."""
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: {"type": "number", "description": meaning}
            for name, meaning in HYPER.items()
            if name in names
        },
    }


OPTIMIZER = hyper({name for one in optim.OPTIMIZERS for name in optim.hyper(one)})
SCHEDULE = hyper({name for one in schedule.SCHEDULES for name in schedule.hyper(one)})
NAME = Setting("name", {"enum": [*optim.OPTIMIZERS]}, "the optimizer")

OPERATIONS = (
    Operation(
        "optimizer",
        "Parameters and states after each step.",
        UPDATE,
        (
            given("w", "<f4", "element", "before the first step"),
            given("gradient", "<f4", "step element", "of each step, not yet scaled"),
            out("w_after", "<f4", "step element", "after the step"),
            out("momentum", "<f4", "step element", "v", "momentum and nesterov"),
            out("first", "<f4", "step element", "m", "adam and adamw"),
            out("second", "<f4", "step element", "v", "adam and adamw"),
        ),
        (
            NAME,
            Setting("lr", "number", "learning rate"),
            Setting("scale", "number", "what the gradient is multiplied with first"),
            Setting("hyper", OPTIMIZER, "hyper-parameters of this optimizer"),
        ),
    ),
    Operation(
        "clipping",
        "A gradient that is cut into shards, clipped by the norm of all of it.",
        """
norm = square root of the sum of squares over all shards
clipped = gradient min(1, max_norm / norm), unchanged for norm 0
""",
        (
            given("gradient", "<f4", "shard element", "the shards"),
            out("norm", "<f4", "", "one number"),
            out("clipped", "<f4", "shard element", "the shards, clipped"),
        ),
        (Setting("max_norm", "number", "the largest norm"),),
    ),
    Operation(
        "learning_rate",
        "The rate of each step, and newbob's decisions.",
        """
step = 0, 1, ...;  t = step / steps_per_epoch, not rounded;  u = warmup steps_per_epoch
rate = lr w f;  w = min(1, (step + 1) / u), 1 for u = 0
constant     f = 1
step         f = decay ^ floor(step / (every steps_per_epoch))
exponential  f = decay ^ t, falling with every step
newbob       f = 1 at first; after each epoch, L' its loss, L that of the last accepted epoch
             (infinite at first):
               accepted = L' < L;  improvement = (L - L') / L if accepted (1 at first), else 0
               if accepted: L = L'
               stopped = halving and improvement < stop; if stopped, nothing else is done
               halving = halving or improvement < start;  if halving: f = f decay
""",
        (
            given("loss", "<f8", "epoch", "of the development set, after each epoch", "newbob"),
            out("rate", "<f4", "step", "learning rate of the step"),
            out("accepted", "<i8", "epoch", "1 or 0", "newbob"),
            out("stopped", "<i8", "epoch", "1 or 0", "newbob"),
        ),
        (
            Setting("name", {"enum": [*schedule.SCHEDULES]}, "the schedule"),
            Setting("lr", "number", "the full rate"),
            Setting("hyper", SCHEDULE, "hyper-parameters of this schedule"),
            Setting("steps_per_epoch", "integer", "steps of an epoch"),
            Setting("steps", "integer", "how many rates are asked"),
        ),
    ),
    Operation(
        "fixed_point",
        "A sum that does not depend on the order of its terms.",
        """
encoded = round(x 2^bits), half to even, int64      x as float64
total = sum of encoded over terms
decoded = total / 2^bits, rounded to float32
""",
        (
            given("x", "<f4", "term element", "terms"),
            out("encoded", "<i8", "term element", "as integers"),
            out("total", "<i8", "element", "their sum"),
            out("decoded", "<f4", "element", "as float32 again"),
        ),
        (Setting("bits", "integer", "binary places"),),
    ),
)
