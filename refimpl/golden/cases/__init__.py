"""The ladder: small cases first, each rung standing on those below it.

file             rung                                             what its cases ask
ask.py           (how a case is put together)
truth.py         (values with many digits, the same everywhere)
collectives.py   1 collectives                                    what every rank sends and gets
compression.py   2 compression                                    GTC's and one-bit's bytes
bmuf.py          3 blocks                                         the block filter
layers.py        4 layers                                         forward and backward
optimizers.py    5 optimizers                                     steps, clipping, rates
acoustic.py      6 acoustic                                       features, paths, words
springs.py       (a model whose training is exact)
training.py      7 one step, 8 ten steps                          every strategy
network.py       7 one step, 8 ten steps                          a real network
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

from refimpl.golden.bundle import RUNGS, Bundle
from refimpl.golden.cases import (
    acoustic,
    bmuf,
    collectives,
    compression,
    layers,
    network,
    optimizers,
    training,
)
from refimpl.golden.cases.ask import Operation

MODULES: tuple[ModuleType, ...] = (
    collectives,
    compression,
    bmuf,
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
    compression.gtc_encode,
    compression.gtc_message,
    compression.gtc_decode,
    compression.gtc_exchange,
    compression.gtc_adapt,
    compression.onebit_encode,
    compression.onebit_allreduce,
    bmuf.bmuf,
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


def ladder() -> Iterator[Bundle]:
    """Compute all bundles, and yield them in their places from the lowest rung on."""
    made = [one for module in MODULES for one in module.bundles()]
    made.sort(key=lambda one: RUNGS.index(one.rung))
    for place, one in enumerate(made, start=1):
        yield replace(one, place=place)
