"""The preset interspeech2019, as data; every number says where it is from.

The cluster and the model of the published runs are not known to us.  What stands here are the
GPUs and the links that the same company sold at the time, and the sizes of an older model of the
same group.
"""

from __future__ import annotations

from benchmarks.published.quantities import Quantity
from benchmarks.published.speedups import Preset

SOURCES = {
    "authors": "Ladkat et al., 'Two Tiered Distributed Training Algorithm for Acoustic Modeling', "
    "Interspeech 2019, by the authors' blog post",
    "AWS 2017": "Amazon's announcement of EC2 P3 instances, 2017, as copied at infoq.cn (article "
    "j629I8X512fg8tuKd6ke)",
    "nccl#209": "NVIDIA/nccl issue 209, TCP between cloud instances, April 2019",
    "nccl tuner": "NVIDIA/nccl, src/graph/tuning.cc",
    "Strom 2015": "N. Strom, Interspeech 2015, by a secondary account: 14.6 million parameters, "
    "0.21 MB a message with tau 2",
}

INTERSPEECH2019 = Preset(
    name="interspeech2019",
    title="GTC, BMUF and GTC-BMUF on 32, 64 and 128 workers, deep LSTMs, 2,000 hours",
    ranks=(1, 32, 64, 128),
    block_steps=Quantity(50, "", "H, local steps of a block", "published", "authors: say, 50"),
    gpus=Quantity(8, "GPUs", "k, workers of a node", "assumed", "p3.16xlarge (AWS 2017)"),
    inter_bandwidth=Quantity(
        1.875e9,
        "B/s",
        "Bx, bandwidth of a node",
        "assumed",
        "p3.16xlarge: 25 Gbit/s (AWS 2017), of which TCP reached 60 % at most (nccl#209)",
    ),
    inter_alpha=Quantity(
        14e-6, "s", "alpha between nodes", "published", "nccl tuner, ring, simple protocol"
    ),
    intra_bandwidth=Quantity(
        150e9,
        "B/s",
        "bandwidth of a GPU in its node",
        "assumed",
        "p3.16xlarge: 300 GB/s in all, both ways (AWS 2017)",
    ),
    intra_alpha=Quantity(
        3.4e-6, "s", "alpha inside a node", "published", "nccl tuner, ring, simple protocol"
    ),
    parameters=Quantity(
        14.6e6, "", "P, parameters", "assumed", "Strom 2015; those of these LSTMs are not given"
    ),
    density=Quantity(
        0.0036, "", "share of values that a message has", "assumed", "0.21 MB / 4 P (Strom 2015)"
    ),
    group=Quantity(8, "workers", "g of the hybrid", "assumed", "the GPUs of a node; not given"),
    spread=Quantity(
        0.03, "", "sigma, spread of a worker's step over C", "assumed", "nothing is published"
    ),
    memory=Quantity(900e9, "B/s", "bandwidth of a GPU's memory", "recalled", "V100"),
    decoding=Quantity(
        10e-6, "s", "beginning to decode one message", "assumed", "one launch of a kernel"
    ),
    vary=(
        ("P million", "parameters", (5e6, 14.6e6, 40e6), 1e6),
        ("density %", "density", (0.001, 0.0036, 0.02), 0.01),
        ("Bx GB/s", "inter_bandwidth", (0.6e9, 1.875e9, 3.1e9), 1e9),
        ("alpha us", "inter_alpha", (14e-6, 50e-6, 200e-6), 1e-6),
        ("decode us", "decoding", (10e-6, 50e-6, 200e-6), 1e-6),
        ("sigma %", "spread", (0.0, 0.03, 0.1), 0.01),
        ("g", "group", (4, 8, 16), 1),
        ("H", "block_steps", (10, 50, 200), 1),
    ),
    reading=(
        "One number is fitted (gtc on 32: C), the other eight are predicted, with sizes of an "
        "older model and links that were only assumed: read the order, not the digits.",
        "Explained: messages of all workers at every step cost more with every worker, models "
        "every 50 steps hardly do.  So GTC's efficiency falls from the start, BMUF and the hybrid "
        "keep rising to 128, and a dense sum (ddp) is behind all three.",
        "Not explained: that GTC gets slower.  Whatever costs a n per step leaves a speed-up of "
        "n / (1 + a n), which levels off and never falls; nor does it in any row of the "
        "sensitivity.  The published three lie on n^1.62 (64 is met within 1 %), between n "
        "messages over one port and n to each of n through one switch: something that all share "
        "was full.",
        "Not explained: 36.6x on 32.  No cost is negative.  BMUF's three lie on 0.63 + n / 132 "
        "(64 is met within 1 %), as if one worker's step took 1.6 times what one of many computes "
        "in.  What the one has and the many have not (reading all data, for one) is not said; nor "
        "whether a speed-up is one of frames.",
        "Not explained: BMUF's cost of n / 132 C a step.  A ring's mean of models takes the same "
        "on any n; n models through one process would be like that.",
        "Not explained: the hybrid.  Its T / C rises, then falls (1.03, 1.52, 1.32), which no sum "
        "of costs that grow with n does: 31x and 97x alone would give 57x on 64.  And that it is "
        "ahead of BMUF on 128: here it computes with all that BMUF has, and waits more often.",
    ),
)
