"""One step and ten of a strategy, and of a small network."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from refimpl import optim
from refimpl.golden.operations.declared import Operation, Setting, detail, given, out
from refimpl.golden.operations.optimizers import OPTIMIZER, UPDATE
from refimpl.methods.protocol import Method
from refimpl.methods.strategies import STRATEGIES, methods

SHAPE = "step rank element"
JSON_TYPES: dict[type, str] = {int: "integer", float: "number", str: "string", bool: "boolean"}

TRAIN = """
rank = (block g + member) p + shard in a grid (b, g, p); a worker is p ranks with a shard each
a micro-batch is a row c of targets: its gradient at the parameters w is w - c
for each step:
  gradient    the worker's sum over all micro-batches of its p ranks and their micro-steps, this
              rank's shard of it, not divided by anything
  combined    the sum of the gradients of the block's g workers, or what the gradient method
              makes of it (gtc_exchange, onebit_allreduce, topk_exchange); not divided either
              gtc with `local_clip` X takes gradient min(1, X / sqrt(g) / norm), norm that of the
              worker's gradient, of all its shards, over its rows; then with `correction` M
              velocity = M velocity + gradient, set to 0 where anything was sent, and at a sync
              gtc, onebit: of the shard with its padding; topk: chunks are cut in each unit's piece
              on its own, without padding
              of the first `warmup` steps it is the sum, and no residual changes; onebit's `mask`:
              where that was 0 in each of these, it is 0 ever after, as residual and owned are
              onebit's `by_columns`: onebit_columns, where each unit is one parameter, a vector
              gtc, after a step with messages: if `clip_every` divides the number of such steps,
              residuals are held within +-`clip_at` times this step's tau; with `target` the next
              step's tau is gtc_adapt's, for the entries of all p g ranks and n: g times all values
  residuals   of gtc at a sync, before anything else: `at_sync` keep; zero: 0; fold: their sum over
              the g workers is combined of one more step, unless it is 0 on all p shards, then 0
  optimizer   takes combined / frames, on the rank's shard
  warm start  of the first `warm` steps each is taken as in the grid (1, b g, p), with the sum as
              combined and b frames for frames; then W is the parameters, D and u are 0
  sync        if it was the last step of a block of `steps` steps (after those): what the block
              method makes of the mean of the b blocks' parameters (bmuf, outer_sgd); bmuf sets
              the optimizer's states, and t, to 0 unless keep_momentum, or if it is null unless
              the optimizer is adam or adamw; with by_frames parameters are first multiplied by
              b f / F, rounded to float32, where f are the frames that the block's steps since
              the last sync had, and F those of all blocks
  secondary   with nodes: what the rank keeps of the parameters that the last forward pass of the
              step had, for the backward pass: of every unit, filled up to a multiple of p, chunk c
              of k (as in allgather), end to end; c is its place among the k ranks of its worker
              that are on its node
  then        parameters, states, residuals, W, D, u are taken: after the sync, if there was one
after the last step a block that is not full is closed by a sync; the arrays of the last step are
taken before it, model after it; model is W, or the parameters where there is no block axis
shard: every unit is filled up with zeros to a multiple of p and cut into p pieces; rank s of the
worker has piece s of every unit, end to end
"""


def _method(method: type[Method]) -> Setting:
    """Return the setting of a method's options: those of its declaration."""
    properties = {}
    for one in method.options().values():
        kind: dict[str, Any] = {"type": JSON_TYPES[one.kind]}
        if one.default is None:
            kind = {"type": [kind["type"], "null"]}
        elif one.kind is str:
            kind = {"enum": [*one.choices.values()]}
        properties[one.field] = {**kind, "description": one.meaning, "default": one.default}
    assert {one.name for one in fields(method)} == set(properties), method
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return Setting(method.name, schema, f"options of {method.title}", {})


def _methods() -> tuple[Setting, ...]:
    """Return the settings of all gradient and block methods but the exact sum.

    (Its name is taken: ``exact`` tells how numbers were drawn.)
    """
    used = [{row.gradient, row.block} for row in STRATEGIES.values()]
    chosen = [one for one in methods() if any(one in some for some in used)]
    return tuple(
        _method(one)
        for one in chosen
        if issubclass(one, Method) and one.name != "exact" and one.options()
    )


FRAMES = """
as train, but:
a micro-batch of f frames has f times the row c: its gradient is f (w - c), 0 for f = 0
rank r of worker a = floor(r / p), shard s = r mod p, takes in micro-step m of microsteps:
  micro_batch[r, m] = a p microsteps + m p + s
frames of a step: those of all micro-batches of the block's ranks together; the optimizer takes
  combined / frames min(1, clip / norm), norm that of combined / frames: over all p shards of a
  worker, once; null: not clipped; a step that is made of folded residuals is divided by the
  largest of the frames, microsteps, p and g, multiplied
lr of a step: learning_rate's, by the schedule; messages: of steps after the warm-up only
gtc's `units` mean: tau times p, microsteps and the largest of all frames
every_microstep: combined is the sum of what the sums over workers are in every micro-step
"""

OPTIMIZERS = (
    Setting("optimizer", {"enum": [*optim.OPTIMIZERS]}, "as in the operation optimizer"),
    Setting("hyper", OPTIMIZER, "its hyper-parameters"),
    Setting("lr", "number", "learning rate"),
)

OUT = (
    out("combined", "<f4", SHAPE, "the block's, or the method's, sum"),
    out("residual", "<f4", SHAPE, "what was not sent", "with gtc, onebit, topk"),
    out("owned", "<f4", SHAPE, "the chunk owner's residual", "with onebit"),
    out("global_model", "<f4", SHAPE, "W", "a block axis of more than one block"),
    out("block_update", "<f4", SHAPE, "D", "with bmuf"),
    out("outer_momentum", "<f4", SHAPE, "u", "with diloco, local-sgd"),
    out("momentum", "<f4", SHAPE, "v", "the optimizers momentum and nesterov"),
    out("first", "<f4", SHAPE, "m", "adam, adamw"),
    out("second", "<f4", SHAPE, "v", "adam, adamw"),
    out("parameters", "<f4", SHAPE, "the rank's shard of what the next step starts from"),
    out("model", "<f4", "element", "what is evaluated in the end, whole, no padding"),
)

GRID = (
    Setting("strategy", {"enum": [*STRATEGIES]}, "a row of the table in README.md"),
    Setting("grid", {"type": "array", "items": {"type": "integer"}}, "b, g, p"),
    Setting("stage", "integer", "ZeRO stage of the partition axis; 0: no shards"),
    Setting("gradient", "string", "name of the gradient method"),
    Setting(
        "units",
        {"type": "array", "items": {"type": "integer"}},
        "parameters of each unit; units lie end to end in initial, targets and model",
    ),
    Setting("microsteps", "integer", "micro-batches that a rank takes in a step"),
)

NODES = Setting(
    "nodes",
    {"type": "array", "items": {"type": "integer"}},
    "the node of each rank; given where nodes keep parameters for backward passes",
    [],
)

REST = (
    Setting("collectives", "string", "family of the sums"),
    *OPTIMIZERS,
    Setting(
        "exact",
        "boolean",
        "how the case was made: values have so few digits that nothing is rounded",
    ),
    *_methods(),
)

OPERATIONS = (
    Operation(
        "train",
        "What every rank has after each step of a strategy.",
        TRAIN + UPDATE,
        (
            given("initial", "<f4", "element", "all parameters before the first step"),
            given("targets", "<f4", "step micro_batch element", "a row c for each micro-batch"),
            given("micro_batch", "<i8", "rank micro_step", "which of them a rank takes"),
            detail("gradient", "<f4", SHAPE, "the worker's sum, the rank's shard"),
            detail("message_size", "<i8", "step rank", "gtc: bytes of the rank's message"),
            detail("message", "|u1", "step rank byte", "gtc: its bytes, filled up with zeros"),
            out("velocity", "<f4", SHAPE, "a worker's momentum", "gtc's correction"),
            out("secondary", "<f4", SHAPE, "its part of what its node keeps", "with nodes"),
            *OUT,
        ),
        (
            *GRID,
            Setting(
                "frames",
                "integer",
                "rows behind one combined gradient, those of all micro-batches of a block's "
                "ranks: what combined is divided by",
            ),
            NODES,
            *REST,
        ),
    ),
    Operation(
        "train_frames",
        "The same on micro-batches of unequal length, clipped, by a schedule.",
        FRAMES + UPDATE,
        (
            given("initial", "<f4", "element", "all parameters before the first step"),
            given("targets", "<f4", "step micro_batch element", "a row c for each micro-batch"),
            given("frames", "<i8", "step micro_batch", "f of each micro-batch"),
            detail("message_size", "<i8", "step rank", "gtc, onebit: bytes of the rank's message"),
            detail(
                "message",
                "|u1",
                "step rank byte",
                "gtc: its bytes; onebit: those to all owners end to end, then the owner's to all",
            ),
            out("micro_batch", "<i8", "rank micro_step", "which of them a rank takes"),
            out("tau", "<f4", SHAPE, "the threshold of the next step, of sums", "with gtc"),
            out("seen", "|u1", SHAPE, "1 where a dense step's sum was not 0", "onebit's mask"),
            *OUT,
        ),
        (
            *GRID,
            Setting("clip", {"type": ["number", "null"]}, "the largest norm of the mean gradient"),
            Setting("every_microstep", "boolean", "when gradients cross workers"),
            Setting("schedule", "object", "of learning_rate: name, hyper, steps_per_epoch"),
            *REST,
        ),
    ),
    Operation(
        "cut_anew",
        "What ranks of another grid go on with.",
        """
a state of b g workers with p shards each, cut as in train, becomes one of b' g' workers with p'
parameters  the block's (equal in all its workers), cut anew; b' = b
residual    worker w's goes to worker floor(w b' g' / (b g)), where what comes is added; cut anew
owned       chunks of a block's workers, joined, are a shard (chunks as in allgather); cut anew,
            and into g' chunks anew
""",
        (
            given("parameters", "<f4", "rank element", "a shard of each rank"),
            given("residual", "<f4", "rank element", "what gtc's worker has not sent, its shard"),
            given("owned", "<f4", "rank element", "what onebit's owner of a chunk owes"),
            out("parameters_after", "<f4", "rank element", "of the new ranks"),
            out("residual_after", "<f4", "rank element", "of the new ranks"),
            out("owned_after", "<f4", "rank element", "of the new ranks, filled up with zeros"),
        ),
        (
            Setting("units", {"type": "array", "items": {"type": "integer"}}, "as in train"),
            Setting("saved", {"type": "array", "items": {"type": "integer"}}, "b, g, p"),
            Setting("grid", {"type": "array", "items": {"type": "integer"}}, "b', g', p'"),
        ),
    ),
    Operation(
        "network",
        "An MLP after all steps; losses, and the gradients of the first step.",
        """
layer i: affine with weight{i}, bias{i}; the activation after every layer but the last
loss of a step: softmax_cross_entropy, summed over all rows of all its micro-batches,
before the update
gradients: sums over all rows; the optimizer takes them divided by the number of rows
"""
        + UPDATE,
        (
            given("x", "<f4", "step micro_batch row input", "inputs"),
            given("labels", "<i8", "step micro_batch row", "the right class"),
            given("weight{i}", "<f4", "input output", "before the first step"),
            given("bias{i}", "<f4", "output", "before the first step"),
            out("loss", "<f4", "step", "of each step"),
            out("weight_gradient{i}", "<f4", "input output", "of the first step"),
            out("bias_gradient{i}", "<f4", "output", "of the first step"),
            out("weight{i}_after", "<f4", "input output", "after the last step"),
            out("bias{i}_after", "<f4", "output", "after the last step"),
        ),
        (
            Setting(
                "widths",
                {"type": "array", "items": {"type": "integer"}},
                "inputs, then the outputs of each layer",
            ),
            Setting("activation", {"enum": ["tanh", "sigmoid", "relu"]}, "between layers"),
            *OPTIMIZERS,
        ),
    ),
)
