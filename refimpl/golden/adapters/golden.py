"""Golden values answered in Python, with NumPy alone: a template for a backend of yours.

    refimpl golden write golden
    python golden.py golden theirs
    refimpl golden check theirs --against golden --only-answered

To test your own library, put calls of it where the functions compute; what is around them stays.
One function is one operation; `refimpl golden describe NAME` tells what it must do.  It is given
the case's arrays and settings, and returns what must come out; NotImplementedError leaves a case
out, and so does an operation that is not in OPERATIONS.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Settings = dict[str, Any]


def allgather(given: Arrays, settings: Settings) -> Arrays:
    """Return all chunks on every rank: chunk r is that of row r."""
    x = given["x"]
    chunks = [np.array_split(row, len(x))[rank] for rank, row in enumerate(x)]
    return {"result": np.tile(np.concatenate(chunks), (len(x), 1))}


def allreduce(given: Arrays, settings: Settings) -> Arrays:
    """Return the sum on every rank, chunk c in the order c + 1, c + 2, ..., c of a ring."""
    if settings["algorithm"] != "ring":
        raise NotImplementedError
    x = given["x"]
    p, total = len(x), []
    for chunk, columns in enumerate(np.array_split(x, p, axis=1)):
        part = columns[(chunk + 1) % p].copy()
        for step in range(2, p + 1):
            part += columns[(chunk + step) % p]
        total.append(part)
    return {"result": np.tile(np.concatenate(total), (p, 1))}


def gtc_encode(given: Arrays, settings: Settings) -> Arrays:
    """Return what is sent of residuals beyond tau, and what stays."""
    residual, tau = given["residual"], settings["tau"]
    words, after = [], []
    for gradient in given["gradient"]:
        residual = residual + gradient
        plus, minus = residual > tau, residual < -tau
        index = np.flatnonzero(plus | minus)
        words.append(index << 1 | plus[index])
        residual = residual - np.float32(tau) * plus + np.float32(tau) * minus
        after.append(residual)
    entries = np.array([len(one) for one in words])
    said = np.zeros((len(words), entries.max()), np.uint32)
    for row, one in zip(said, words, strict=True):
        row[: len(one)] = one
    return {"entries": entries, "words": said, "residual_after": np.stack(after)}


def bmuf(given: Arrays, settings: Settings) -> Arrays:
    """Return the global model, its last update and the next start, block after block."""
    models = given["found"].shape[1]
    eta = 1 - 1 / models if settings["eta"] is None else settings["eta"]
    model = start = given["initial"]
    update, seen = np.zeros_like(model), []
    for found in given["found"]:
        step = (start + found).mean(axis=0, dtype=model.dtype) - start
        update = eta * update + settings["zeta"] * step
        model = model + update
        start = model + eta * update if settings["nesterov"] else model
        seen.append((model, update, start))
    names = ("model", "update", "start")
    return {
        name: np.stack(rows) for name, rows in zip(names, zip(*seen, strict=True), strict=True)
    }


def affine(given: Arrays, settings: Settings) -> Arrays:
    """Return y = x w + b and the derivatives: sums over rows."""
    x, w, b, dy = (given[name] for name in ("x", "w", "b", "dy"))
    return {"y": x @ w + b, "dw": x.T @ dy, "db": dy.sum(axis=0), "dx": dy @ w.T}


def relu(given: Arrays, settings: Settings) -> Arrays:
    """Return max(x, 0) and its derivative, 0 at 0."""
    x, dy = given["x"], given["dy"]
    return {"y": np.maximum(x, 0), "dx": np.where(x > 0, dy, np.float32(0))}


def optimizer(given: Arrays, settings: Settings) -> Arrays:
    """Return parameters and velocity after each step of gradient descent with momentum."""
    if settings["name"] not in ("momentum", "nesterov"):
        raise NotImplementedError
    w, hyper, lr = given["w"], settings["hyper"], settings["lr"]
    velocity, after, velocities = np.zeros_like(w), [], []
    for gradient in given["gradient"]:
        g = settings["scale"] * gradient + hyper["weight_decay"] * w
        velocity = hyper["momentum"] * velocity + g
        ahead = settings["name"] == "nesterov"
        w = w - lr * (g + hyper["momentum"] * velocity if ahead else velocity)
        after.append(w)
        velocities.append(velocity)
    return {"w_after": np.stack(after), "momentum": np.stack(velocities)}


OPERATIONS: dict[str, Callable[[Arrays, Settings], Arrays]] = {
    one.__name__: one for one in (allgather, allreduce, gtc_encode, bmuf, affine, relu, optimizer)
}


def answered(bundle: Path) -> Arrays:
    """Return the answers to the cases of a bundle, by the names that they have in it."""
    told = json.loads((bundle / "manifest.json").read_text("utf-8"))
    answers: Arrays = {}
    with np.load(bundle / "arrays.npz", allow_pickle=False) as arrays:
        for case in told["cases"]:
            operation = OPERATIONS.get(case["operation"])
            if operation is None:
                continue
            names = [array["name"] for array in case["arrays"] if array["role"] == "input"]
            given = {name: arrays[f"{case['name']}/{name}"] for name in names}
            try:
                out = operation(given, case["settings"])
            except NotImplementedError:
                continue
            answers |= {f"{case['name']}/{name}": value for name, value in out.items()}
    return answers


def main(golden: str, theirs: str) -> None:
    """Answer all bundles of a folder into another."""
    for manifest in sorted(Path(golden).glob("*/manifest.json")):
        answers = answered(manifest.parent)
        if answers:
            folder = Path(theirs, manifest.parent.name)
            folder.mkdir(parents=True, exist_ok=True)
            np.savez(folder / "arrays.npz", **answers)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
