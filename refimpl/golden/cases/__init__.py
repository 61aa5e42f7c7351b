"""The ladder: small cases first, each rung standing on those below it.

file             rung                                             what its cases ask
ask.py           (how a case is put together)
truth.py         (values with many digits, the same everywhere)
collectives.py   1 collectives                                    what every rank sends and gets
compression.py   2 compression                                    GTC's and one-bit's bytes
topk.py          2 compression                                    the bytes of chunked top-k
bmuf.py          3 blocks                                         the block filter
diloco.py        3 blocks                                         DiLoCo's outer optimizer
layers.py        4 layers                                         forward and backward
optimizers.py    5 optimizers                                     steps, clipping, rates
acoustic.py      6 acoustic                                       features, paths, words
springs.py       (a model whose training is exact)
training.py      7 one step, 8 ten steps                          every strategy
network.py       7 one step, 8 ten steps                          a real network
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, count
from types import ModuleType

from refimpl.golden.bundle import RUNGS, Bundle
from refimpl.golden.cases import (
    acoustic,
    bmuf,
    collectives,
    compression,
    diloco,
    layers,
    network,
    optimizers,
    topk,
    training,
)
from refimpl.golden.cases.ask import Operation
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
    compression.onebit_encode,
    compression.onebit_allreduce,
    topk.topk_exchange,
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
    training.train,
    network.network,
)


# Bundles that train take most of the time; their names begin with these.
TRAINED = {network: ("one-step", "ten-steps"), training: ("one-step", "ten-steps")}


def ladder(globs: Globs = "*") -> Iterator[Bundle]:
    """Compute all bundles, and yield them in their places from the lowest rung on.

    Those that train may be left out where no name of theirs can match any of ``globs``.
    """
    heads = [re.split(r"[^\w-]", glob)[0] for glob in chain(*split(globs))]
    made = [
        one
        for module in MODULES
        if any(name.startswith(head) for head in heads for name in TRAINED.get(module, (head,)))
        for one in module.bundles()
    ]
    for rung in RUNGS:
        bundles = (one for one in made if one.rung == rung)
        for place, one in zip(places(rung), bundles, strict=False):
            yield replace(one, place=place)


# Where each rung began when all bundles were numbered through, and where the last one ended.
FIRST = (1, 5, 7, 8, 9, 10, 11, 25, 39)


def places(rung: str) -> Iterator[int]:
    """Return the places of a rung's bundles, in order, without end.

    Bundles that came later are counted by the hundreds of their rung: a new one that is the last
    of its rung leaves all others as they are, to the byte.

    >>> from itertools import islice
    >>> list(islice(places("compression"), 4))
    [5, 6, 200, 201]
    """
    number = RUNGS.index(rung)
    return chain(range(FIRST[number], FIRST[number + 1]), count(100 * (number + 1)))
