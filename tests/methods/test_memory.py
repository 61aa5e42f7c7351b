"""The closed formula of a rank's memory is what its partition's states allocate, to the byte."""

import re
from itertools import pairwise, product

import numpy as np
import pytest
from loopback import spawn

from refimpl import collectives
from refimpl.methods.formulas import table
from refimpl.methods.partition.memory import Bytes, per_rank
from refimpl.methods.partition.stages import Sharded, Whole
from refimpl.methods.partition.zero import ModelStates
from refimpl.methods.protocol import Context, Setting
from refimpl.methods.strategies import Methods
from refimpl.nn import Affine, Layout, Sequential
from refimpl.nn.flat import one_unit
from refimpl.optim import SGD, Adam
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid, Nodes

WIDTHS = (5, 7, 3, 1, 1)  # units of 42, 24, 4 and 2 numbers: padded for p = 3 and 4
UNITS = [(inputs + 1) * outputs for inputs, outputs in pairwise(WIDTHS)]
OPTIMIZERS = ((SGD(momentum=0), 0), (SGD(momentum=0.9), 1), (Adam(), 2))


def states(comm, optimizer=OPTIMIZERS[1][0], dtype="float32", exact=False, **options):
    """Return the states of a network of `UNITS`."""
    layers = [Affine(f"a{i}", *ends, seed=1) for i, ends in enumerate(pairwise(WIDTHS))]
    network = Sequential(*layers)
    network.plan(1, np.dtype(dtype))
    context = Context(
        Groups.split(comm, Grid(1, 1, comm.size)),
        collectives.get("ring"),
        Layout(network.units, comm.size),
        np.dtype(dtype),
        options.pop("microsteps"),
        exact=exact,
        network=network,
        optimizer=optimizer,
    )
    return ModelStates(context, **options)


def arrays(value):
    """Yield the memory of every array that an object holds, by its attributes and containers."""
    if isinstance(value, np.ndarray):
        yield value if value.base is None else value.base
    elif isinstance(value, dict):
        yield from arrays(list(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from arrays(one)


def allocated(held):
    """Return the bytes of all arrays; a view counts as the array that it is a view of."""
    return sum(
        {id(a): a.nbytes for name, value in vars(held).items() for a in arrays(value)}.values()
    )


@pytest.mark.parametrize("stage, p", [(0, 1), *product((1, 2, 3), (1, 2, 3, 4))])
@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("microsteps", [1, 3])
def test_every_array_is_in_the_formula(stage, p, exact, microsteps):
    for prefetch in (False, True) if stage == 3 else (False,):
        for optimizer, count in OPTIMIZERS:
            for itemsize, dtype in ((4, "float32"), (8, "float64")):
                how = {"stage": stage, "microsteps": microsteps, "prefetch": prefetch}
                options = {"optimizer": optimizer, "dtype": dtype, "exact": exact, **how}
                held = spawn((0,) * p, lambda comm, o=options: states(comm, **o))
                each = Bytes(itemsize, itemsize, count * itemsize)
                want = per_rank(UNITS, p, each=each, exact=exact, **how)
                for rank in held:
                    assert allocated(rank) == want.total, options
                    assert rank.state_bytes == want.states, options
                    assert rank.work_bytes == want.work, options


@pytest.mark.parametrize("p, nodes", [(4, (0, 0, 1, 1)), (4, (0, 0, 0, 0)), (2, (0, 1))])
def test_memory_counts_the_secondary_shard(p, nodes):
    near = nodes.count(0)
    for held in spawn(nodes, lambda comm: states(comm, stage=3, microsteps=2, secondary=True)):
        want = per_rank(UNITS, p, 3, Bytes(4, 4, 4), microsteps=2, near=near)
        padded = sum(p * -(-unit // p) for unit in UNITS)
        assert want.secondary == held.near.shard.nbytes == 4 * padded / near
        assert held.work_bytes == want.work and held.state_bytes == want.states
        assert allocated(held) + held.near.shard.nbytes == want.total


def test_each_kind_is_the_array_that_it_names():
    def kinds(comm):
        held = states(comm, exact=True, stage=stage, microsteps=3)
        reduced = 0 if held.gradient is held.accumulator else held.gradient.nbytes
        gathered = 0 if held.shard is None else held.seats[0].base.nbytes
        parameters = held.whole if held.shard is None else held.shard
        optimizer = sum(a.nbytes for a in held.states.values())
        own = (parameters.nbytes, held.accumulator.nbytes, optimizer)
        return (*own, held.bucket.nbytes, gathered, reduced, held.encoded.nbytes, 0)

    for stage in (1, 2, 3):
        want = per_rank(UNITS, 3, stage, exact=True, microsteps=3)
        assert spawn((0,) * 3, kinds) == [tuple(want)] * 3


def test_a_network_without_parameters_takes_nothing():
    assert per_rank([], p=2, stage=3, exact=True).total == 0


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("p", [1, 4])
def test_topology_prints_the_formula_and_its_value(p, exact):
    methods = Methods(Sharded() if p > 1 else Whole())
    ring = collectives.get("ring")
    setting = Setting(Grid(1, 2, p), Nodes.of(2 * p), one_unit(100, p), ring, exact=exact)
    text = table(methods, setting, states=2)
    rows = re.findall(r"^  stage (\d) +V (.*?)  +([\d,]+) bytes", text, re.MULTILINE)
    assert [int(stage) for stage, _, _ in rows] == ([1, 2, 3] if p > 1 else [0])
    for stage, formula, number in rows:
        said = 400 * eval(formula, {"m": 2, "p": p})
        want = per_rank([100], p, int(stage), Bytes(4, 4, 8), exact=exact).states
        assert int(number.replace(",", "")) == want == said
