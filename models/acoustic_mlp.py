"""Frame classifier for speech: 11 frames of 40 log-mel bands -> the state of a phone HMM.

    layer                in -> out           shape after
    spliced frames       5 + 1 + 5 frames    (B, 440)
    affine, relu         440 -> 512          (B, 512)      three times
    affine               512 -> states       (B, classes)  logits

Its outputs are turned into scaled likelihoods by dividing by the states' priors, and an HMM
decoder does the rest: the hybrid DNN-HMM.  See docs/acoustic.md.
"""

from refimpl import nn
from refimpl.run.config import Recipe


def build(seed, inputs=440, classes=60, hidden=512, depth=3):
    """Return the network: ``depth`` hidden layers of ``hidden`` rectified units."""
    layers, width = [], inputs
    for i in range(depth):
        layers += [nn.Affine(f"hidden{i}", width, hidden, seed), nn.Relu()]
        width = hidden
    return nn.Sequential(*layers, nn.Affine("states", width, classes, seed))


def recipe():
    """Return the hyper-parameters of the main job."""
    return Recipe(
        task="acoustic",
        epochs=6,
        batch=128,
        lr=0.25,
        momentum=0.5,
        clip=2.0,
        schedule="exponential",
        warmup=0.1,
        decay=0.6,
        methods={"tau": 4.0, "block_steps": 75},
    )
