"""The same training by PyTorch, as one of its ranks; `test_torch_oracle.py` starts them.

    python torch_training.py JOB RESULT STORE RANK RANKS

JOB (.npz) holds the initial parameters, the micro-batches of every step, and the cases: which
kind of data parallelism, how many ranks share a replica, which optimizer.  Rank 0 writes every
case's parameters to RESULT (.npz) and what was sent to get there.  Needs torch and NumPy alone:
this is somebody else's idea of what `refimpl` computes, so nothing of ours is imported.
"""

import json
import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from datetime import timedelta

import numpy as np


def network(weights):
    """Return the multi-layer perceptron with these parameters; a `Linear` is (out, in)."""
    import torch

    layers = []
    for name in dict.fromkeys(key.rsplit(".", 1)[0] for key in weights):
        weight, bias = (torch.tensor(weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        linear = torch.nn.Linear(*weight.shape, dtype=torch.float64)
        with torch.no_grad():
            linear.weight.copy_(weight.T)
            linear.bias.copy_(bias)
        layers += [linear, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers[:-1])


def parallel(model, case):
    """Return the model as the case's kind of data parallelism has it."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    if case["kind"] == "ddp":
        return DistributedDataParallel(model)
    replicas, p = case["replicas"], case["partition"]
    if case["kind"] == "hsdp":  # a row of the mesh shards one replica, a column replicates
        mesh = init_device_mesh("cpu", (replicas, p), mesh_dim_names=("replicate", "shard"))
    else:
        assert replicas == 1
        mesh = init_device_mesh("cpu", (p,))
    for layer in model:
        if list(layer.parameters(recurse=False)):
            fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def gradients(model, case, micro_batches):
    """Leave the step's mean gradient in the parameters: two hops, the second after the last."""
    import torch

    for m, (x, y) in enumerate(micro_batches):
        last = m == len(micro_batches) - 1
        if case["kind"] == "hsdp":
            model.set_requires_all_reduce(last)
        defer = case["kind"] == "ddp" and not last
        with model.no_sync() if defer else nullcontext():
            loss = torch.nn.functional.cross_entropy(model(torch.tensor(x)), torch.tensor(y))
            (loss / len(micro_batches)).backward()  # a mean over ranks, but a sum over these


def clip(parameters, limit):
    """Scale the gradients by min(1, limit / norm), the norm that of all shards together."""
    import torch

    total = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    norm = getattr(total, "full_tensor", lambda: total)().item()
    for p in parameters:
        p.grad.mul_(min(1.0, limit / norm))


@contextmanager
def counting(counts):
    """Count the process group's operations inside the block: name -> how many."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            if operation.namespace == "c10d":
                counts[operation.__name__] += 1
            return operation(*args, **(kwargs or {}))

    with Counting():
        yield


def train(case, weights, x, y, rank):
    """Train one case; return its parameters, and the collectives of the last step by name."""
    import torch

    model = parallel(network(weights), case)
    parameters = list(model.parameters())
    optimizer = getattr(torch.optim, case["optimizer"])(parameters, **case["hyper"])
    own, counts = case["micro_batches"][rank], Counter()
    for step in range(len(x)):
        with counting(counts) if step == len(x) - 1 else nullcontext():
            gradients(model, case, [(x[step, i], y[step, i]) for i in own])
        clip(parameters, case["clip"])
        optimizer.step()
        optimizer.zero_grad()
    whole = [getattr(p.data, "full_tensor", lambda p=p: p.data)().numpy() for p in parameters]
    return {
        name: value.T if name.endswith("weight") else value
        for name, value in zip(weights, whole, strict=True)
    }, counts


def main(job, result, store, rank, ranks):
    import torch

    rank, ranks = int(rank), int(ranks)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(seconds=240),
    )
    given = dict(np.load(job))
    x, y = given.pop("inputs"), given.pop("labels")
    cases = json.loads(str(given.pop("cases")))
    found = {}
    for name, case in cases.items():
        parameters, counts = train(case, given, x, y, rank)
        found |= {f"{name}/{key}": value for key, value in parameters.items()}
        found[f"{name}/collectives"] = json.dumps(counts)
    if rank == 0:
        np.savez(result, **found)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
