"""One rank of a contest of `torch_hsdp.py`: of our job, or of PyTorch's.

    python torch_hsdp_ranks.py CONTEST SIDE FOLDER ...         started by torch_hsdp.py

Both sides build the same network from the same weights and return a `Job`; `main` lets it take
its turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refimpl.run.bench.network import BATCH, WIDTHS, network

LR, MOMENTUM = 1e-3, 0.9


class Contest(NamedTuple):
    """What is compared: ``partition`` ranks hold one replica; ratio at most ``bar``."""

    ranks: int
    partition: int
    ours: str
    theirs: str
    bar: float | None


CONTESTS = {
    "mics": Contest(4, 2, "mics p=2", "HSDP 2x2", 0.5),
    "zero3": Contest(2, 2, "zero3", "FSDP2", 0.5),
    "ddp": Contest(2, 1, "ddp", "DDP", None),
}


def weights() -> list[np.ndarray]:
    """Return the initial weight matrices (inputs, outputs); biases are 0."""
    rng = np.random.default_rng(0)
    return [
        (rng.standard_normal((i, o)) * np.sqrt(2 / i)).astype(np.float32)
        for i, o in zip(WIDTHS[:-1], WIDTHS[1:], strict=True)
    ]


def frames(rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames (64, 440) and labels (64,) of a rank."""
    rng = np.random.default_rng((1, rank))
    x = rng.standard_normal((BATCH, WIDTHS[0])).astype(np.float32)
    return x, rng.integers(0, WIDTHS[-1], BATCH)


class Job(NamedTuple):
    """A rank's part in a job.

    ``losses()`` is the sum of the mean losses of all micro-batches since the last call,
    ``total(value)`` the sum over the ranks, ``says`` the versions in use.
    """

    rank: int
    step: Callable[[], Any]
    losses: Callable[[], float]
    barrier: Callable[[], Any]
    total: Callable[[float], float]
    says: str


def ours(contest: Contest, given: argparse.Namespace) -> Job:
    """Return this rank's part in refimpl's job."""
    import mpi4py
    from mpi4py import MPI

    from refimpl import collectives, optim
    from refimpl.methods.losses import LOSS_UNIT, Loss
    from refimpl.methods.partition.stages import Sharded, Whole
    from refimpl.methods.step import Replica, StepOptions
    from refimpl.methods.strategies import Methods
    from refimpl.state.tree import cut
    from refimpl.world.communicator import Communicator
    from refimpl.world.groups import Groups
    from refimpl.world.topology import Grid

    comm = Communicator(MPI.COMM_WORLD)
    assert comm.size == contest.ranks
    net = network(WIDTHS)
    net.plan(BATCH, np.dtype(np.float32))
    sharded = contest.partition > 1
    replica = Replica(
        net,
        Groups.split(comm, Grid.cut(comm.size, contest.partition)),
        collectives.get(given.collectives),
        optim.SGD(momentum=MOMENTUM),
        Methods(Sharded(prefetch=given.prefetch) if sharded else Whole()),
        StepOptions(batch=BATCH, microsteps=given.microsteps),
    )
    whole = np.concatenate([np.append(w, np.zeros(w.shape[1], w.dtype)) for w in weights()])
    shard = cut(replica.context.layout, whole, replica.groups.partition.rank)
    replica.partition.replace(shard)
    batch = frames(comm.rank)

    lost: list[Loss] = []

    def losses() -> float:
        units = sum(loss.units for loss in lost)
        lost.clear()
        return units * LOSS_UNIT / BATCH

    library = MPI.Get_library_version().replace("\0", "").splitlines()[0].split(",")[0]
    return Job(
        comm.rank,
        lambda: lost.append(replica.step(lambda _: batch, LR)),
        losses,
        comm.barrier,
        lambda value: sum(comm.allgather_object(value)),
        f"NumPy {np.__version__}, mpi4py {mpi4py.__version__}, {' '.join(library.split())}",
    )


def theirs(contest: Contest, given: argparse.Namespace) -> Job:
    """Return this rank's part in PyTorch's job."""
    import torch
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{given.folder}/store",
        rank=given.rank,
        world_size=contest.ranks,
    )
    layers: list[torch.nn.Module] = []
    for matrix in weights():
        linear = torch.nn.Linear(*matrix.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(matrix.T))
            linear.bias.zero_()
        layers += [linear, torch.nn.ReLU()]
    model: Any = torch.nn.Sequential(*layers[:-1])
    if contest.partition == 1:
        model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    else:
        replicas = contest.ranks // contest.partition
        if replicas > 1:
            shape, names = (replicas, contest.partition), ("replicate", "shard")
            mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
        else:
            mesh = init_device_mesh("cpu", (contest.partition,))
        for layer in layers[::2] if given.torch_units == "layer" else ():
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)
    x, y = map(torch.tensor, frames(given.rank))
    seen = torch.zeros(())

    def step() -> None:
        for m in range(given.microsteps):
            last = m == given.microsteps - 1
            if contest.partition > 1:
                model.set_requires_all_reduce(last)  # two hops, as ours
            defer = contest.partition == 1 and not last
            with model.no_sync() if defer else nullcontext():
                loss = torch.nn.functional.cross_entropy(model(x), y)
                (loss / given.microsteps).backward()
            seen.add_(loss.detach())
        optimizer.step()
        optimizer.zero_grad()

    def losses() -> float:
        value = seen.item()
        seen.zero_()
        return value

    def total(value: float) -> float:
        tensor = torch.tensor(value, dtype=torch.float64)
        distributed.all_reduce(tensor)
        return tensor.item()

    return Job(given.rank, step, losses, distributed.barrier, total, f"torch {torch.__version__}")


def take_turns(job: Job, pipe: Path, microsteps: int) -> None:
    """Take n steps for every line "n" that comes through the pipe, until it is closed.

    Reading is how to wait without using a core.  Rank 0 prints one line of JSON per turn.
    """

    def say(**what: Any) -> None:
        if job.rank == 0:
            print(json.dumps(what), flush=True)

    say(says=job.says)
    with open(pipe) as turns:
        for line in turns:
            steps = int(line)
            job.barrier()
            start, cpu = time.perf_counter(), time.process_time()
            for _ in range(steps):
                job.step()
            cpu = time.process_time() - cpu
            job.barrier()
            seconds = time.perf_counter() - start
            micro_batches = job.total(steps * microsteps)
            loss = job.total(job.losses()) / micro_batches
            say(seconds=seconds / steps, cpu=job.total(cpu) / steps, loss=loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("contest", choices=CONTESTS)
    parser.add_argument("side", choices=["ours", "theirs"])
    parser.add_argument("folder", type=Path, help="with a pipe for every rank")
    parser.add_argument("--rank", type=int)
    parser.add_argument("--microsteps", type=int)
    parser.add_argument("--collectives")
    parser.add_argument("--prefetch", action="store_true")
    parser.add_argument("--torch-units")
    given = parser.parse_args()
    side = ours if given.side == "ours" else theirs
    job = side(CONTESTS[given.contest], given)
    take_turns(job, given.folder / f"{given.side}.{job.rank}", given.microsteps)


if __name__ == "__main__":
    main()
