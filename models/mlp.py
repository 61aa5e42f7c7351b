"""Image classifier: the pixels of a digit -> which digit it is.

    layer                in -> out           shape after
    pixels               28 x 28             (B, 784)
    affine, relu         784 -> 512          (B, 512)      twice, each with dropout if asked for
    affine               512 -> 10           (B, 10)       logits

Trains on MNIST's idx files (``--data DIR``), or on built-in toy digits.
"""

from refimpl import nn
from refimpl.run.config import Recipe


def build(seed, inputs=784, classes=10, hidden=512, depth=2, dropout=0.0):
    """Return the network: ``depth`` hidden layers of ``hidden`` rectified units."""
    layers, width = [], inputs
    for i in range(depth):
        layers += [nn.Affine(f"hidden{i}", width, hidden, seed), nn.Relu()]
        layers += [nn.Dropout(f"dropout{i}", dropout, seed)] if dropout else []
        width = hidden
    return nn.Sequential(*layers, nn.Affine("digits", width, classes, seed))


def recipe():
    """Return hyper-parameters that reach 98 % on MNIST."""
    return Recipe(
        task="images",
        epochs=12,
        batch=32,
        lr=0.1,
        momentum=0.9,
        schedule="exponential",
        decay=0.7,
        methods={"tau": 1.0, "block_steps": 10},  # measured: docs/gtc.md, docs/bmuf.md
    )
