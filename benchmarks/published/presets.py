"""Published clusters and runs, as data; every number says where it is from.

Sources have short names, `SOURCES`.  What is marked ``recalled`` was not found again in a source:
it may be wrong, and is not to be cited.
"""

from __future__ import annotations

from benchmarks.published.interspeech2019 import INTERSPEECH2019
from benchmarks.published.quantities import Preset, Published, Quantity, Run, Variation
from refimpl.support.errors import UserError

SOURCES = {
    "blog": "'Near-linear scaling of gigantic-model training on AWS', Amazon Science, by the "
    "authors of MiCS",
    "nccl tuner": "NVIDIA/nccl, src/graph/tuning.cc",
    "nccl#527": "NVIDIA/nccl issue 527, a user's all-reduce bandwidths on p4d, 2022",
    "nccl#235": "NVIDIA/nccl issue 235, bandwidths on p3dn with EFA",
    "PR 1453": "deepspeedai/DeepSpeed pull request 1453, by the same team",
    "PR 1188": "deepspeedai/DeepSpeed pull request 1188, by the same team",
    "AMSP": "arXiv 2311.00257, version 2",
    "BloombergGPT": "the BloombergGPT paper, section on large-scale optimization",
}

_NCCL = "nccl tuner, ring, simple protocol"
_OPERATIONS = Quantity(
    8, "", "f, operations per parameter and token", "published", "PR 1453: x 4/3 for recomputing"
)
_STATE = Quantity(
    16, "bytes", "states per parameter (2 + 2 + 12)", "published", "AMSP, section II-C"
)
_CALL = Quantity(8.4e-6, "s", "overhead of one collective call", "published", _NCCL)
_INTER_ALPHA = Quantity(14e-6, "s", "alpha between nodes, coalesced", "published", _NCCL)
_INTRA_ALPHA = Quantity(3.4e-6, "s", "alpha inside a node", "published", _NCCL)
_CALLS = Quantity(
    12, "", "q, calls per layer and pass, ZeRO-3", "assumed", "only q alpha is identified"
)
_HIDING = Quantity(
    1.0,
    "",
    "w of coalesced runs",
    "assumed",
    "prefetch hides all that fits behind compute; in DeepSpeed's MiCS no reduce-scatter (AMSP)",
)
_P4D = {
    "ranks_per_node": Quantity(
        8, "GPUs", "k, ranks of a node", "derived", "blog: 512 GPUs are 64 nodes"
    ),
    "inter_bandwidth": Quantity(
        37e9,
        "B/s",
        "Bx, bandwidth of a node",
        "chosen",
        "75 % of the line, 50 GB/s (blog: 400 Gbit/s); nccl#527 measured 30 on 4 nodes",
    ),
    "inter_alpha": _INTER_ALPHA,
    "intra_bandwidth": Quantity(
        230.8e9, "B/s", "bandwidth of a GPU in its node", "published", "nccl#527, measured"
    ),
    "intra_alpha": _INTRA_ALPHA,
    "call": _CALL,
    "calls": _CALLS,
    "operations": _OPERATIONS,
    "state": _STATE,
    "hiding": _HIDING,
}
_ZERO3 = Run("zero3", group=False, family="ring", coalesced=False, overlap=None)

_MICS_128 = Published(
    "mics", 128, 170 / 0.994, "171", "derived", "blog: more than 170 on 512, 99.4 % of 128"
)
_ZERO3_128 = Published("zero3", 128, 62 / 0.72, "86", "derived", "blog: 62 on 512, 72 % of 128")
_ZERO3_512 = Published("zero3", 512, 62, "62", "published", "blog", "72 %")
_MICS_512 = Published("mics", 512, 170, "> 170", "published", "blog", "99.4 %")

P4D_100B = Preset(
    name="p4d-100b",
    title="100 billion parameters on p4d.24xlarge, 8 A100-40GB a node, 400 Gbit/s",
    ranks=(128, 256, 512),
    layers=Quantity(80, "", "L, layers", "assumed", "12 L h^2 = 100.7e9"),
    hidden=Quantity(10240, "", "h, width", "assumed", "12 L h^2 = 100.7e9"),
    sequence=Quantity(
        2048, "tokens", "s, sequence", "assumed", "blog gives 2048 for its 175B run only"
    ),
    batch=Quantity(
        2,
        "",
        "b, sequences per GPU and micro-step",
        "chosen",
        "of 1 to 4 the one that fits, see b below",
    ),
    microsteps=Quantity(4, "", "M, micro-steps", "chosen", "for the 99.4 %; see M below"),
    partition=Quantity(
        128, "ranks", "p of MiCS", "assumed", "BloombergGPT, 50B, same cluster: 128 x 4 copies"
    ),
    memory=Quantity(40e9, "bytes", "memory of a GPU", "published", "blog: A100-40GB"),
    runs=(
        _ZERO3,
        Run("mics", group=True, family="hierarchical", coalesced=True, overlap=1.0),
        Run("mics, hop 2 in every micro-step", True, "hierarchical", True, 1.0, True, True),
        Run(
            "mics, w for gathers only",
            True,
            "hierarchical",
            True,
            1.0,
            gathers_only=True,
            what_if=True,
        ),
        Run("mics, flat ring", True, "ring", True, 1.0, what_if=True),
        Run("mics, q calls, little overlap", True, "ring", False, None, what_if=True),
        Run("zero3, coalesced, overlapped", False, "ring", True, 1.0, what_if=True),
    ),
    published=(_ZERO3_128, _ZERO3_512, _MICS_128, _MICS_512),
    speed_from=_MICS_128,
    fit_to=(_ZERO3_128, _ZERO3_512),
    variations=(
        Variation("b", "batch", (1, 2, 3, 4)),
        Variation("M", "microsteps", (1, 2, 4, 8)),
        Variation("p", "partition", (32, 64, 128)),
        Variation("q alpha x", "latency", (0.75, 1, 1.25)),
        Variation("Bx GB/s", "inter_bandwidth", (30e9, 37e9, 45e9, 50e9), 1e9),
        Variation("w zero3", "overlap", (0, 0.25, 0.5)),
        Variation("w mics", "hiding", (0.5, 0.75, 1)),
    ),
    shown=("zero3", "mics"),
    reading=(
        "This explains the published numbers; it does not reproduce them.  Three of the four "
        "(171, 86, 62) are fitted, and the fourth, 99.4 %, hangs on M, which was chosen for it: "
        "M = 4 gives 99.3 %, M = 8 99.7 %, M = 1 97.4 %.",
        "ZeRO-3's two numbers fix only the product q alpha and the overlap w.  b = 2 is chosen: "
        "b = 1 needs nearly full overlap and then leaves MiCS bound by communication at about "
        "half of what was published, b >= 3 fits the two points worse.",
        "If p = 128, both methods have the same groups on 128 GPUs, so the factor of two there "
        "cannot come from partitioning: it is overlap and coalescing.  Scale-aware partitioning "
        "keeps the latency from growing between 128 and 512.",
        "The what-if rows say the same: coalesced and fully overlapped, ZeRO-3 would not fall "
        "either up to 512 GPUs in this model; and over 16 nodes the hierarchical gather is slower "
        "than the flat ring (70.9 s of messages against 66.5 s), only hidden as well.",
        "With the 30 GB/s that nccl#527 measured, MiCS would be bound by communication at 155 "
        "TFLOPS: the 75 % of the line are needed, not known.",
        "w = 1 lets reduce-scatters hide as well.  DeepSpeed's MiCS does not overlap them with "
        "compute (AMSP, section VI-C); how the published run did is not known.  With w for "
        "gathers only, the same F gives 131 TFLOPS in place of 171.",
        "MiCS is flat because a node's part of hop 2, 2 (R - 1)/R of 2 P k/p bytes, saturates in "
        "R, and comes once a step; not because it sends nothing.",
        "Held against a run that was not fitted, the model is optimistic by 26 %, and by 7 % for "
        "another (preset p4d-50b).",
    ),
    **_P4D,
)

_AFTER_64 = Published(
    "zero3 after", 64, 116.1 * 4 / 3, "154.8", "derived", "PR 1453: 116.1 without recomputing"
)

P4D_50B = Preset(
    name="p4d-50b",
    title="RoBERTa, 50 billion parameters, p4d: DeepSpeed before and after PR 1453 (a check)",
    ranks=(64, 256),
    layers=Quantity(62, "", "L, layers", "recalled", "12 L h^2 = 49.9e9"),
    hidden=Quantity(8192, "", "h, width", "recalled", "12 L h^2 = 49.9e9"),
    sequence=Quantity(512, "tokens", "s, sequence", "published", "PR 1453"),
    batch=Quantity(16, "", "b, sequences per GPU and micro-step", "published", "PR 1453"),
    microsteps=Quantity(1, "", "M, micro-steps", "assumed", "no effect: zero3 has no hop 2"),
    partition=Quantity(64, "ranks", "p of MiCS", "assumed", "not used: no run here has groups"),
    memory=Quantity(40e9, "bytes", "memory of a GPU", "published", "blog: A100-40GB"),
    runs=(
        _ZERO3._replace(name="zero3 before"),
        Run("zero3 after", group=False, family="ring", coalesced=True, overlap=1.0),
    ),
    published=(
        Published(
            "zero3 before", 64, 67.6 * 4 / 3, "90.1", "derived", "PR 1453: 67.6 without recompute"
        ),
        _AFTER_64,
        Published("zero3 after", 256, 108 * 4 / 3, "144", "derived", "PR 1453: 108 likewise"),
    ),
    speed_from=_AFTER_64,
    like=P4D_100B,
    variations=(
        Variation("q alpha x", "latency", (0.75, 1, 1.25)),
        Variation("Bx GB/s", "inter_bandwidth", (30e9, 37e9, 50e9), 1e9),
        Variation("w before", "overlap", (0, 0.25, 0.5)),
        Variation("w after", "hiding", (0.5, 0.75, 1)),
    ),
    shown=("zero3 before", "zero3 after"),
    reading=(
        "A check on numbers that had no part in the fit: latency, overlap and Bx come from "
        "p4d-100b with all that was chosen there; only F is taken from the run after the change "
        "on 64 GPUs.",
        "The model is optimistic: it misses the run before the change by about 26 % and the one "
        "after it on 256 GPUs by about 7 %.",
    ),
    **(
        _P4D
        | {
            "inter_bandwidth": _P4D["inter_bandwidth"]._replace(
                kind="assumed", source="as chosen for p4d-100b"
            )
        }
    ),
)

P3DN_10B = Preset(
    name="p3dn-10b",
    title="BERT, 10 billion parameters, p3dn.24xlarge, 8 V100-32GB a node, 100 Gbit/s (a bracket)",
    ranks=(16, 64, 128),
    layers=Quantity(127, "", "L, layers", "recalled", "12 L h^2 = 9.99e9"),
    hidden=Quantity(2560, "", "h, width", "published", "PR 1188, a BERT of this family"),
    sequence=Quantity(512, "tokens", "s, sequence", "recalled", ""),
    batch=Quantity(8, "", "b, sequences per GPU and micro-step", "recalled", ""),
    global_batch=Quantity(8192, "sequences", "global batch; gives M", "recalled", ""),
    operations=_OPERATIONS,
    state=_STATE,
    partition=Quantity(8, "ranks", "p of MiCS, one node", "recalled", ""),
    ranks_per_node=Quantity(8, "GPUs", "k, ranks of a node", "recalled", ""),
    memory=Quantity(32e9, "bytes", "memory of a GPU", "recalled", "V100-32GB"),
    inter_bandwidth=Quantity(
        8e9, "B/s", "Bx, bandwidth of a node", "assumed", "nccl#235: 10 on 2 nodes, 6-8 on 8-32"
    ),
    inter_alpha=_INTER_ALPHA,
    intra_bandwidth=Quantity(130e9, "B/s", "bandwidth of a GPU in its node", "recalled", "NVLink"),
    intra_alpha=_INTRA_ALPHA,
    call=_CALL,
    calls=_CALLS,
    speed=Quantity(
        50e12,
        "/s",
        "F, operations per second of a GPU",
        "assumed",
        "40 % of a peak of 125e12, which is recalled",
    ),
    like=P4D_100B,
    runs=(
        Run("zero3, no overlap", group=False, family="ring", coalesced=False, overlap=0.0),
        Run("zero3, full overlap", group=False, family="ring", coalesced=False, overlap=1.0),
        Run("mics, no overlap", group=True, family="ring", coalesced=True, overlap=0.0),
        Run("mics, full overlap", True, "ring", True, 1.0, against="zero3, full overlap"),
    ),
    published=(),
    variations=(
        Variation("F TFLOPS", "speed", (40e12, 50e12, 60e12), 1e12),
        Variation("q alpha x", "latency", (0.75, 1, 1.25)),
        Variation("Bx GB/s", "inter_bandwidth", (6e9, 8e9, 10e9), 1e9),
    ),
    shown=("zero3, no overlap", "mics, no overlap"),
    reading=(
        "Published (blog): up to 2.82 times the throughput of DeepSpeed's ZeRO-2 and ZeRO-3 for "
        "BERT models on p3dn; which model and how many GPUs that was is not known here.",
        "The rows without and with overlap bracket MiCS against ZeRO-3 (last but one column); "
        "nothing is fitted, the latency is carried over from p4d-100b, and much is recalled.",
    ),
)

PRESETS = {preset.name: preset for preset in (P4D_100B, P4D_50B, P3DN_10B)}


def get(name: str) -> Preset:
    """Return a preset by name.

    Raises
    ------
    UserError
        If there is none.
    """
    if name not in PRESETS:
        names = [*PRESETS, INTERSPEECH2019.name]
        raise UserError(f"no preset {name!r}: choose one of {', '.join(names)}")
    return PRESETS[name]
