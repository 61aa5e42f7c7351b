"""The ladder: small cases first, each rung standing on those below it.

file             rung                                             what its cases ask
ask.py           (how a case is put together)
places.py        (where each bundle stands)
truth.py         (values with many digits, the same everywhere)
collectives.py   1 collectives                                    what every rank sends and gets
compression.py   2 compression                                    GTC's bytes
messages.py      2 compression                                    long, many, and what is none
onebit.py        2 compression                                    one bit's, by scale or columns
topk.py          2 compression                                    the bytes of chunked top-k
bmuf.py          3 blocks                                         the block filter
diloco.py        3 blocks                                         DiLoCo's outer optimizer
layers.py        4 layers                                         forward and backward
optimizers.py    5 optimizers                                     steps, clipping, rates
acoustic.py      6 acoustic                                       features, paths, words
springs.py       (a model whose training is exact)
trained.py       (what trains it on every rank)
training.py      7 one step, 8 ten steps                          every strategy
varied.py        8 ten steps                                      steps of which no two are alike
recut.py         8 ten steps                                      a state on another grid
network.py       7 one step, 8 ten steps                          a real network
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from types import ModuleType

from refimpl.golden import editions
from refimpl.golden.bundle import Bundle
from refimpl.golden.cases import (
    acoustic,
    bmuf,
    collectives,
    compression,
    diloco,
    layers,
    messages,
    network,
    onebit,
    optimizers,
    recut,
    topk,
    trained,
    training,
)
from refimpl.golden.cases.ask import Operation
from refimpl.golden.cases.places import PLACES, place
from refimpl.golden.select import Globs, split

MODULES: tuple[ModuleType, ...] = (
    collectives,
    compression,
    topk,
    bmuf,
    diloco,
    layers,
    optimizers,
    acoustic,
    network,
    training,
    recut,
)

OPERATIONS: tuple[Operation, ...] = (
    collectives.allgather,
    collectives.reduce_scatter,
    collectives.allreduce,
    collectives.broadcast,
    collectives.reduce,
    collectives.alltoall,
    compression.gtc_encode,
    compression.gtc_message,
    compression.gtc_decode,
    compression.gtc_exchange,
    compression.gtc_adapt,
    messages.gtc_sparse,
    messages.gtc_total,
    messages.gtc_accepts,
    onebit.onebit_encode,
    onebit.onebit_allreduce,
    onebit.onebit_columns,
    messages.onebit_accepts,
    topk.topk_exchange,
    messages.topk_accepts,
    bmuf.bmuf,
    diloco.outer_sgd,
    layers.affine,
    layers.relu,
    layers.sigmoid,
    layers.tanh,
    layers.softmax_cross_entropy,
    optimizers.optimizer,
    optimizers.clipping,
    optimizers.learning_rate,
    optimizers.fixed_point,
    acoustic.log_mel,
    acoustic.cmvn,
    acoustic.splice,
    acoustic.utterance_graph,
    acoustic.align,
    acoustic.decode,
    acoustic.word_errors,
    trained.train,
    trained.train_frames,
    recut.cut_anew,
    network.network,
)


# Bundles that train take most of the time; their names begin with these.
TRAINED = {network: ("one-step", "ten-steps"), training: ("one-step", "ten-steps")}


def ladder(
    globs: Globs = "*", watch: Callable[[int, int], None] = lambda done, total: None
) -> Iterator[Bundle]:
    """Compute all bundles, and yield them in their places from the lowest rung on.

    Those that train may be left out where no name of theirs can match any of ``globs``.  ``watch``
    is told how many are done, and how many there are.
    """
    heads = [re.split(r"[^\w-]", glob)[0] for glob in chain(*split(globs))]
    made: list[Bundle] = []
    for module in MODULES:
        names = TRAINED.get(module, heads)
        if any(name.startswith(head) for head in heads for name in names):
            for one in module.bundles():
                made.append(editions.dated(replace(one, place=place(one.name))))
                watch(len(made), len(PLACES))
    yield from sorted(made, key=lambda one: one.order)
