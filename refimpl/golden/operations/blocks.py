"""What becomes of models that were trained apart for a block of steps."""

from __future__ import annotations

from refimpl.golden.operations.declared import Operation, Setting, given, out

MODELS = Setting("models", "integer", "b, how many models are averaged")

OPERATIONS = (
    Operation(
        "bmuf",
        "The global model, its last update and the next start, block after block.",
        """
W = start = initial, D = 0; for each block t:
  model i is trained to start + found[t, i]: found is a way, not a model
  G = mean over i of (start + found[t, i]) - start
  D = eta D + zeta G
  W = W + D
  start = W + eta D if nesterov (NBM), else W (CBM)
""",
        (
            given("initial", "<f4", "element", "the model before the first block"),
            given(
                "found", "<f4", "block model element", "each model's way from the block's start"
            ),
            out("model", "<f4", "block element", "W after the block"),
            out("update", "<f4", "block element", "D after the block"),
            out("start", "<f4", "block element", "where the next block starts"),
        ),
        (
            Setting("eta", {"type": ["number", "null"]}, "block momentum; null: 1 - 1/b"),
            Setting("zeta", "number", "block learning rate"),
            Setting("nesterov", "boolean", "NBM, else CBM"),
            MODELS,
        ),
    ),
    Operation(
        "outer_sgd",
        "The model and the outer momentum, block after block (DiLoCo).",
        """
W = initial, u = 0; for each block t:
  model i is trained to W + found[t, i]: found is a way, not a model
  a = W - mean over i of (W + found[t, i])
  u = momentum u + a
  W = W - rate (a + momentum u)            where the next block starts
""",
        (
            given("initial", "<f4", "element", "the model before the first block"),
            given("found", "<f4", "block model element", "each model's way from W"),
            out("model", "<f4", "block element", "W after the block"),
            out("memory", "<f4", "block element", "u after the block"),
        ),
        (
            Setting("rate", "number", "outer learning rate"),
            Setting("momentum", "number", "outer momentum"),
            MODELS,
        ),
    ),
)
