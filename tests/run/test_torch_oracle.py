"""PyTorch's DDP, FSDP2 and hybrid sharding end with our parameters: an independent witness.

One job of 4 torch processes (gloo) trains every case; starting them takes longer than training.
Our ranks are threads (`loopback`): the messages of MPI are proven elsewhere, and so this needs
no launcher.  Both sides compute in float64 from the same weights and micro-batches.

Needs torch (extra [oracle]) here, or in the Python that REFIMPL_TORCH_PYTHON names.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loopback import spawn
from witness import PROGRAMS, TORCH, needs_torch

from refimpl import collectives, nn, optim
from refimpl.methods.partition.stages import Sharded, Whole, partition_calls
from refimpl.methods.step import Replica, StepOptions
from refimpl.methods.strategies import Methods
from refimpl.numerics.rng import stream
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid

pytestmark = needs_torch

PROGRAM = PROGRAMS / "torch_training.py"
# Unit sizes 143, 84, 40: 2 does not divide the first, nor any layer's outputs, which PyTorch cuts.
WIDTHS, BATCH = (12, 11, 7, 5), 4
RANKS, MICROSTEPS, STEPS, LR, DECAY = 4, 3, 10, 0.05, 0.01
CLIP = 0.55  # the norm of the gradient is above in some of the steps, below in others
LIMIT = 300  # seconds, most of which PyTorch takes to start
CLASSES = {"momentum": "SGD", "adam": "Adam"}
HYPER = {
    "momentum": {"momentum": 0.9, "weight_decay": DECAY},
    "adam": {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": DECAY},
}

# name -> how PyTorch calls it, ranks of a replica, optimizer
CASES = {
    "hsdp-momentum": ("hsdp", 2, "momentum"),
    "hsdp-adam": ("hsdp", 2, "adam"),
    "hsdp-alone": ("hsdp", 1, "momentum"),  # sharded among one: only replicas
    "fsdp": ("fsdp", 4, "momentum"),
    "ddp": ("ddp", 1, "momentum"),
}


def network():
    layers = []
    for i, (inputs, outputs) in enumerate(zip(WIDTHS[:-1], WIDTHS[1:], strict=True)):
        layers += [nn.Affine(f"layer{i}", inputs, outputs, seed=1), nn.Tanh()]
    net = nn.Sequential(*layers[:-1])
    net.plan(BATCH, np.float64)
    return net


def micro_batch(step, number):
    """Return the inputs (BATCH, 12) and labels (BATCH,) of a micro-batch of a step."""
    rng = stream(0, "micro-batch", step, number)
    return rng.normal(size=(BATCH, WIDTHS[0])), rng.integers(0, WIDTHS[-1], BATCH)


def ours(partition, stage, optimizer, steps=STEPS):
    """Train on 4 threads; return the parameters that every rank ends with."""
    grid = Grid.cut(RANKS, partition)
    options = StepOptions(batch=BATCH, microsteps=MICROSTEPS, clip=CLIP, dtype="float64")

    def on_a_rank(comm):
        replica = Replica(
            network(),
            Groups.split(comm, grid),
            collectives.get("ring"),
            optim.make(optimizer, weight_decay=DECAY),
            Methods(Sharded(stage) if stage else Whole()),
            options,
        )
        for step in range(steps):
            numbers = [grid.micro_batch(comm.rank, m, MICROSTEPS) for m in range(MICROSTEPS)]
            mine = [micro_batch(step, number) for number in numbers]
            replica.step(mine.__getitem__, LR)
        return {name: value.copy() for name, value in replica.partition.each()}

    first, *others = spawn((0,) * RANKS, on_a_rank)
    for other in others:
        assert all((first[name] == other[name]).all() for name in first)
    return first


def job():
    """Return the arrays that tell PyTorch what to train."""
    micro_batches = [
        [micro_batch(step, i) for i in range(RANKS * MICROSTEPS)] for step in range(STEPS)
    ]
    cases = {
        name: {
            "kind": kind,
            "partition": p,
            "replicas": RANKS // p,
            "optimizer": CLASSES[optimizer],
            "hyper": {"lr": LR, **HYPER[optimizer]},
            "clip": CLIP,
            "micro_batches": [
                [Grid.cut(RANKS, p).micro_batch(r, m, MICROSTEPS) for m in range(MICROSTEPS)]
                for r in range(RANKS)
            ],
        }
        for name, (kind, p, optimizer) in CASES.items()
    }
    return {
        "inputs": np.array([[x for x, _ in step] for step in micro_batches]),
        "labels": np.array([[y for _, y in step] for step in micro_batches]),
        "cases": json.dumps(cases),
        **initial(),
    }


def initial():
    """Return the initial parameters by name."""
    return ours(1, 0, "momentum", steps=0)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """All cases by PyTorch: case/parameter -> value, case/collectives -> counts as JSON."""
    folder = tmp_path_factory.mktemp("torch")
    np.savez(folder / "job.npz", **job())
    paths = [folder / name for name in ("job.npz", "result.npz", "store")]
    surroundings = os.environ | {"OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [str(word) for word in (TORCH, PROGRAM, *paths, rank, RANKS)],
            env=surroundings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(RANKS)
    ]
    try:
        said = [rank.communicate(timeout=LIMIT)[0] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert not any(rank.returncode for rank in ranks), "\n".join(said)[-6000:]
    return dict(np.load(folder / "result.npz"))


def distance(theirs, case, parameters):
    """Return the largest difference of any parameter."""
    return max(
        np.abs(theirs[f"{case}/{name}"] - value).max() for name, value in parameters.items()
    )


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_mics_is_torchs_hybrid_sharding(theirs, optimizer, stage):
    assert distance(theirs, f"hsdp-{optimizer}", ours(2, stage, optimizer)) < 1e-12


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_is_torchs_full_sharding(theirs, stage):
    assert distance(theirs, "fsdp", ours(4, stage, "momentum")) < 1e-12


@pytest.mark.parametrize("case", ["ddp", "hsdp-alone"])
def test_ranks_that_share_nothing_are_torchs_ddp(theirs, case):
    assert distance(theirs, case, ours(1, 0, "momentum")) < 1e-12
    assert distance(theirs, case, ours(1, 3, "momentum")) < 1e-12


def test_training_moved_the_parameters_far_beyond_the_tolerance(theirs):
    assert distance(theirs, "hsdp-momentum", initial()) > 0.01
    assert distance(theirs, "hsdp-adam", ours(2, 3, "momentum")) > 0.01


def test_torch_took_the_same_two_hops(theirs):
    """What PyTorch sent in a step: gathers and reduce-scatters as ours, one all-reduce a unit."""
    counts = json.loads(str(theirs["hsdp-momentum/collectives"]))

    def called(word):
        return sum(n for name, n in counts.items() if word in name)

    units = len(network().units)
    calls = partition_calls(3, MICROSTEPS)
    assert called("gather") == units * calls.allgather, counts
    assert called("reduce_scatter") == units * calls.reduce_scatter, counts
    assert called("allreduce") == units, counts


BESIDE_PYTHON = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks" / "torch_hsdp.py"


@pytest.mark.skipif(shutil.which("mpiexec", path=BESIDE_PYTHON) is None, reason="no mpiexec")
def test_the_benchmark_trains_the_same_with_both(tmp_path):
    """In float32, on MPI, at full size: the times that it compares are those of one training."""
    figures = tmp_path / "figures.json"
    command = [sys.executable, BENCHMARK, "mics", "--torch-python", TORCH, "--json", figures]
    command += ["--rounds", 2, "--steps", 2, "--microsteps", 2]
    run = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=LIMIT
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(figures.read_text())["contests"]["mics"]
    assert found["losses"]["ours"] == pytest.approx(found["losses"]["theirs"], rel=1e-4)
    assert len(found["rounds"]) == 2
