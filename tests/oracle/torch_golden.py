"""PyTorch against the golden values: reads bundles, writes its own arrays in their form.

    python torch_golden.py GOLDEN THEIRS WORLDS         WORLDS as 1,2,4
    refimpl golden check THEIRS --against GOLDEN --cases 'layers/*'

Needs torch and NumPy alone; nothing of refimpl is imported.  Operations are functions of this
module's table `OPERATIONS`; those that need several ranks run as that many processes, over gloo.
"""

import sys
import tempfile
from contextlib import nullcontext
from datetime import timedelta

import bundles
import numpy as np
import torch
from torch import distributed
from torch.nn import functional

STATES = {"momentum": "momentum_buffer", "first": "exp_avg", "second": "exp_avg_sq"}


def leaf(array):
    return torch.tensor(array, requires_grad=True)


# -------------------------------------------------------------------------------- one process


def affine(given, settings):
    x, w, b = leaf(given["x"]), leaf(given["w"]), leaf(given["b"])
    y = functional.linear(x, w.T, b)
    y.backward(torch.tensor(given["dy"]))
    return {"y": y, "dw": w.grad, "db": b.grad, "dx": x.grad}


def curve(function):
    def operation(given, settings):
        x = leaf(given["x"])
        y = function(x)
        y.backward(torch.tensor(given["dy"]))
        return {"y": y, "dx": x.grad}

    return operation


def softmax_cross_entropy(given, settings):
    logits = leaf(given["logits"])
    loss = functional.cross_entropy(logits, torch.tensor(given["labels"]), reduction="sum")
    loss.backward()
    return {"loss": loss, "dlogits": logits.grad}


def optimizer_of(parameters, name, hyper, lr):
    if name in ("adam", "adamw"):
        kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
        betas = hyper["beta1"], hyper["beta2"]
        return kind(parameters, lr, betas, hyper["eps"], hyper["weight_decay"])
    return torch.optim.SGD(
        parameters,
        lr,
        momentum=hyper.get("momentum", 0.0),
        weight_decay=hyper["weight_decay"],
        nesterov=name == "nesterov",
    )


def optimizer(given, settings):
    w = leaf(given["w"])
    made = optimizer_of([w], settings["name"], settings["hyper"], settings["lr"])
    found = {"w_after": []}
    for gradient in torch.tensor(given["gradient"]):
        w.grad = gradient * settings["scale"]
        made.step()
        found["w_after"].append(w.detach().clone())
        for name, theirs in STATES.items():
            if theirs in made.state[w]:
                found.setdefault(name, []).append(made.state[w][theirs].clone())
    return {name: torch.stack(rows) for name, rows in found.items()}


def clipping(given, settings):
    gradient = torch.tensor(given["gradient"])
    norm = torch.nn.utils.get_total_norm(list(gradient))
    return {"norm": norm, "clipped": gradient * min(1.0, settings["max_norm"] / float(norm))}


def outer(start, eta, nesterov):
    """Return BMUF's filter: SGD on the start of a block, whose gradient is what training undid."""
    return torch.optim.SGD([start], 1.0, momentum=eta, nesterov=nesterov and eta > 0)


def filtered(made, start, mean, zeta):
    """Take the outer step; return W and D."""
    base = start.detach().clone()
    start.grad = zeta * (base - mean)
    made.step()
    update = made.state[start].get("momentum_buffer")
    update = 0 - (start.grad if update is None else update)  # 0 - 0 is 0, but -0 is -0
    (group,) = made.param_groups
    model = base - start.grad if group["nesterov"] else start.detach().clone()
    return model, update


def bmuf(given, settings):
    found = torch.tensor(given["found"])
    eta = 1 - 1 / settings["models"] if settings["eta"] is None else settings["eta"]
    start = leaf(given["initial"])
    made = outer(start, eta, settings["nesterov"])
    rows = {"model": [], "update": [], "start": []}
    for block in found:
        mean = (start.detach() + block).mean(0)
        model, update = filtered(made, start, mean, settings["zeta"])
        for name, value in (("model", model), ("update", update), ("start", start)):
            rows[name].append(value.detach().clone())
    return {name: torch.stack(values) for name, values in rows.items()}


def outer_sgd(given, settings):
    start, momentum = leaf(given["initial"]), settings["momentum"]
    made = torch.optim.SGD([start], lr=settings["rate"], momentum=momentum, nesterov=momentum > 0)
    rows = {"model": [], "memory": []}
    for block in torch.tensor(given["found"]):
        start.grad = start.detach() - (start.detach() + block).mean(0)
        made.step()
        memory = made.state[start]["momentum_buffer"] if momentum else start.grad
        rows["model"].append(start.detach().clone())
        rows["memory"].append(memory.clone())
    return {name: torch.stack(values) for name, values in rows.items()}


def network(given, settings):
    widths = settings["widths"]
    activation = {"tanh": torch.nn.Tanh, "sigmoid": torch.nn.Sigmoid, "relu": torch.nn.ReLU}
    layers = []
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        linear = torch.nn.Linear(inputs, outputs)
        with torch.no_grad():
            linear.weight.copy_(torch.tensor(given[f"weight{i}"]).T)
            linear.bias.copy_(torch.tensor(given[f"bias{i}"]))
        layers += [linear, activation[settings["activation"]]()]
    net = torch.nn.Sequential(*layers[:-1])
    linears = layers[::2]
    parameters = list(net.parameters())
    made = optimizer_of(parameters, settings["optimizer"], settings["hyper"], settings["lr"])
    x, labels = torch.tensor(given["x"]), torch.tensor(given["labels"])
    found = {"loss": []}
    for x_step, labels_step in zip(x, labels, strict=True):
        made.zero_grad()
        loss = functional.cross_entropy(
            net(x_step.flatten(0, 1)), labels_step.flatten(), reduction="sum"
        )
        loss.backward()
        found["loss"].append(loss.detach())
        for i, linear in enumerate(linears):
            found.setdefault(f"weight_gradient{i}", linear.weight.grad.T.clone())
            found.setdefault(f"bias_gradient{i}", linear.bias.grad.clone())
        for parameter in parameters:
            parameter.grad /= labels_step.numel()
        made.step()
    found["loss"] = torch.stack(found["loss"])
    for i, linear in enumerate(linears):
        found[f"weight{i}_after"], found[f"bias{i}_after"] = linear.weight.T, linear.bias
    return found


OPERATIONS = {
    "affine": affine,
    "relu": curve(torch.relu),
    "sigmoid": curve(torch.sigmoid),
    "tanh": curve(torch.tanh),
    "softmax_cross_entropy": softmax_cross_entropy,
    "optimizer": optimizer,
    "clipping": clipping,
    "bmuf": bmuf,
    "outer_sgd": outer_sgd,
    "network": network,
}

# --------------------------------------------------------------------------- several processes


class Springs(torch.nn.Module):
    """A unit: loss = 1/2 sum (w - c)^2."""

    def __init__(self, initial):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(initial))

    def forward(self, targets):
        return 0.5 * ((self.weight - targets) ** 2).sum()


class Units(torch.nn.Module):
    def __init__(self, units, initial):
        super().__init__()
        self.sizes = units
        parts = np.split(initial, np.cumsum(units)[:-1])
        self.units = torch.nn.ModuleList(Springs(part) for part in parts)

    def forward(self, row):
        parts = torch.split(row, self.sizes)
        return sum(unit(part) for unit, part in zip(self.units, parts, strict=True))


def parallel(model, settings):
    """Return the model as the strategy has it, and how many ranks hold a replica."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    _, replicas, p = settings["grid"]
    if settings["strategy"] in ("serial", "bmuf"):
        return model
    if settings["strategy"] == "ddp":
        return DistributedDataParallel(model)
    if settings["strategy"] == "mics":
        mesh = init_device_mesh("cpu", (replicas, p), mesh_dim_names=("replicate", "shard"))
    else:
        mesh = init_device_mesh("cpu", (p,))
    for unit in model.units:
        fully_shard(unit, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def local(tensor, size, p):
    """Return this rank's piece of a unit's tensor, filled up with zeros."""
    part = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return functional.pad(part.detach(), (0, -(-size // p) - part.numel()))


def train(given, settings):
    """Train; return what this rank has after every step."""
    world, rank = distributed.get_world_size(), distributed.get_rank()
    own = given["micro_batch"][rank].tolist()
    targets = torch.tensor(given["targets"])
    net = Units(settings["units"], given["initial"])
    model = parallel(net, settings)
    alone = model is net and settings["strategy"] in ("serial", "bmuf")
    p, bmuf_options = settings["grid"][2], settings.get("bmuf")
    parameters = list(model.parameters())
    made = optimizer_of(parameters, settings["optimizer"], settings["hyper"], settings["lr"])
    flat = torch.nn.utils.parameters_to_vector
    if bmuf_options and world > 1:
        start = flat(parameters).detach().requires_grad_()
        filters = outer(start, bmuf_options["eta"], bmuf_options["nesterov"])
    found = {}

    def keep(name, tensors):
        value = torch.cat(
            [local(t, n, p) for t, n in zip(tensors, settings["units"], strict=True)]
        )
        found.setdefault(name, []).append(value.clone())

    def synchronise():
        mean = flat(parameters).detach().clone()
        distributed.all_reduce(mean)
        result = filtered(filters, start, mean / world, bmuf_options["zeta"])
        torch.nn.utils.vector_to_parameters(start.detach().clone(), parameters)
        made.state.clear()
        return result

    state, since = None, 0
    for step in targets:
        for m, number in enumerate(own):
            last = m == len(own) - 1
            if settings["strategy"] == "mics":
                model.set_requires_all_reduce(last)
            defer = settings["strategy"] == "ddp" and not last
            with model.no_sync() if defer else nullcontext():
                model(step[number]).backward()
        with torch.no_grad():
            for parameter in parameters:
                parameter.grad *= 1 if alone else world  # they are means over ranks
            keep("combined", [q.grad for q in parameters])
            for parameter in parameters:
                parameter.grad /= settings["frames"]
        made.step()
        made.zero_grad()
        since += 1
        if bmuf_options and world > 1 and since == bmuf_options["steps"]:
            state, since = synchronise(), 0
        for name in ("momentum",) if settings["optimizer"] == "momentum" else ("first", "second"):
            keep(name, [made.state[q].get(STATES[name], torch.zeros_like(q)) for q in parameters])
        keep("parameters", parameters)
        if bmuf_options and world > 1:
            was = state or (torch.tensor(given["initial"]), torch.zeros_like(start))
            for name, value in zip(("global_model", "block_update"), was, strict=True):
                found.setdefault(name, []).append(value.clone())
    found = {name: torch.stack(rows) for name, rows in found.items()}
    if bmuf_options and world > 1:
        found["model"] = (synchronise() if since else state)[0]
    else:
        found["model"] = torch.cat(
            [getattr(q.data, "full_tensor", lambda q=q: q.data)() for q in parameters]
        )
    return found


TRAINED = ("serial", "ddp", "zero2", "zero3", "mics", "bmuf")


def collective(operation, given, settings):
    """MPI's classic operations by gloo; sums in an order of its own."""
    rank, p = distributed.get_rank(), distributed.get_world_size()
    mine = torch.tensor(given["x"][rank])
    if operation == "broadcast":
        distributed.broadcast(mine, settings["root"])
    else:  # blocks of others are 0 in an all-gather's input
        distributed.all_reduce(mine)
    if operation == "reduce_scatter":
        sizes = [mine.numel() // p + (r < mine.numel() % p) for r in range(p)]
        mine = functional.pad(mine.split(sizes)[rank], (0, max(sizes) - sizes[rank]))
    return {"result": mine}


def worker(rank, world, store, golden, result):
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=120),
    )
    found = {}
    for bundle, case, given in bundles.cases(golden):
        settings, operation = case["settings"], case["operation"]
        name = f"{bundle}|{case['name']}"
        mine = {}
        if operation == "train":
            fits = settings["strategy"] in TRAINED and np.prod(settings["grid"]) == world
            mine = train(given, settings) if fits else {}
        elif bundle == "collectives.ring" or bundle == "collectives.tree":
            fits = settings["ranks"] == world and "order" not in case["name"]
            mine = collective(operation, given, settings) if fits else {}
        else:
            continue
        for key, value in mine.items():
            everyones = [None] * world
            distributed.all_gather_object(everyones, value.detach().numpy())
            if key == "model":
                found[f"{name}|{key}"] = everyones[0]
            elif operation == "reduce":
                found[f"{name}|{key}"] = everyones[settings["root"]]
            else:
                axis = 1 if operation == "train" else 0
                found[f"{name}|{key}"] = np.stack(everyones, axis)
    if rank == 0:
        np.savez(result, **found)
    distributed.destroy_process_group()


# ---------------------------------------------------------------------------------------- files


def everything(golden, worlds):
    """Yield all answers: bundle, case/array and value."""
    for bundle, name, value in bundles.answered(golden, OPERATIONS):
        yield bundle, name, value.detach().numpy()
    for world in map(int, worlds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            store, result = f"{folder}/store", f"{folder}/result.npz"
            torch.multiprocessing.spawn(worker, (world, store, golden, result), nprocs=world)
            for name, value in np.load(result).items():
                bundle, case, key = name.split("|")
                yield bundle, f"{case}/{key}", value


if __name__ == "__main__":
    golden, theirs, worlds = sys.argv[1:]
    bundles.write(theirs, everything(golden, worlds))
