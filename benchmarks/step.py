"""How much of a training step on one rank is not matrix products?

    OMP_NUM_THREADS=1 python benchmarks/step.py

Times, in turn, a whole step (forward, loss, backward, SGD with momentum) of the network
440-1024-1024-1024-128 on 64 rows of float32, and its matrix products alone, into the same kind of
preallocated arrays.  Times are CPU times of this thread, which on an idle machine are wall times;
what else runs then disturbs less.  Reports medians and bests over rounds, and the median of the
ratios within a round.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when NumPy loads its BLAS
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout's refimpl

import numpy as np

from refimpl import nn, optim
from refimpl.run.bench.network import BATCH, WIDTHS, network, products
from refimpl.support.text import table


def bound():
    """Return the network, planned and bound, its loss, parameters and gradients."""
    net, loss = network(), nn.SoftmaxCrossEntropy()
    net.plan(BATCH, np.float32)
    loss.plan(BATCH, net.outputs, np.float32)
    layout = nn.Layout(net.units)
    w, g = (np.zeros(layout.padded, np.float32) for _ in range(2))
    for layer, unit in zip(net.units, layout.units, strict=True):
        layer.initialise(w[unit.place])
        layer.bind(w[unit.place], g[unit.place])
    return net, loss, w, g


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds

    net, loss, w, g = bound()
    bare = products(WIDTHS, BATCH)
    sgd = optim.SGD(momentum=0.9)
    states = sgd.allocate(w.size, w.dtype)
    x = np.random.default_rng(2).standard_normal((BATCH, WIDTHS[0])).astype(np.float32)
    labels = np.arange(BATCH) % WIDTHS[-1]

    times = {name: [] for name in ("products", "forward", "loss", "backward", "update", "step")}
    for _ in range(rounds + 3):
        marks = [time.thread_time()]
        bare()
        marks.append(time.thread_time())
        logits = net.forward(x)
        marks.append(time.thread_time())
        loss.forward(logits, labels)
        dlogits = loss.backward()
        marks.append(time.thread_time())
        net.backward(dlogits)
        marks.append(time.thread_time())
        sgd.advance(states)
        sgd.update(w, g, states, lr=1e-3, scale=1 / BATCH)
        marks.append(time.thread_time())
        parts = [later - earlier for earlier, later in zip(marks, marks[1:], strict=False)]
        for name, value in zip(times, [*parts, sum(parts[1:])], strict=True):
            times[name].append(value)

    times = {name: values[3:] for name, values in times.items()}
    print(f"{'-'.join(map(str, WIDTHS))}, batch {BATCH}, {w.size} parameters, one thread")
    rows = [
        (name, f"{1e3 * statistics.median(values):.3f} ms", f"best {1e3 * min(values):.3f}")
        for name, values in times.items()
    ]
    print(table((), rows))
    ratios = [s / p for s, p in zip(times["step"], times["products"], strict=True)]
    best = min(times["step"]) / min(times["products"])
    print(f"step / products: median {statistics.median(ratios):.3f}, of the best times {best:.3f}")


if __name__ == "__main__":
    main()
