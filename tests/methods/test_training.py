"""Training ends with the same bits whatever the cluster, and sends what the formulas say.

Ranks are threads here (`loopback`); tests/parallel/test_training.py shows that MPI agrees.
"""

import numpy as np
import pytest
import tiny
from checks import everywhere, replicas_equal, sends_the_formula, serial, serials_bits
from families import doing
from loopback import spawn

from refimpl import collectives
from refimpl.collectives import chunks
from refimpl.collectives.families import RING
from refimpl.methods import traffic
from refimpl.methods.partition.stages import Sharded, Whole
from refimpl.methods.partition.zero import ModelStates
from refimpl.methods.protocol import Setting
from refimpl.methods.strategies import Methods
from refimpl.nn.flat import one_unit
from refimpl.optim import clip
from refimpl.support.errors import UserError
from refimpl.world.events import Listener
from refimpl.world.topology import Grid, Nodes, divisors

WORLDS = (1, 2, 3, 4, 6, 8)
YES_NO = (False, True)


def cuts(n):
    """Yield every (partition, stage) of a world of n ranks."""
    for partition in divisors(n):
        for stage in (0, 1, 2, 3) if partition == 1 else (1, 2, 3):
            yield partition, stage


def runs(n, partition, per_node, algorithm):
    """Tell whether the algorithm runs on every group of every axis."""
    try:
        setting = Setting(
            Grid.cut(n, partition),
            Nodes.of(n, per_node),
            one_unit(24, partition),
            collectives.get(algorithm),
        )
        traffic.check(Methods(Sharded() if partition > 1 else Whole()), setting)
    except UserError:
        return False
    return True


@pytest.mark.parametrize(
    "n, optimizer", [*((n, "momentum") for n in (1, 2, 3, 4, 6)), (3, "adam"), (4, "adam")]
)
def test_exact_reduction_ends_with_serials_bits_for_every_cut(n, optimizer):
    want = serial(optimizer=optimizer).digest
    for partition, stage in cuts(n):
        serials_bits(want, n, partition=partition, stage=stage, optimizer=optimizer)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_these_runs_are_clipped_in_some_steps_and_not_in_others(optimizer, monkeypatch):
    seen, coefficient = [], clip.coefficient

    def watched(norm, most):
        seen.append(coefficient(norm, most))
        return seen[-1]

    monkeypatch.setattr(clip, "coefficient", watched)
    everywhere(1, optimizer=optimizer)
    assert min(seen) < 1 and seen.count(1.0) > 1


@pytest.mark.parametrize("algorithm", ["halving-doubling", "hierarchical", "auto"])
@pytest.mark.parametrize("n", WORLDS)
def test_exact_reduction_ends_with_serials_bits_for_every_algorithm_and_node_size(n, algorithm):
    want = serial(steps=3).digest
    for per_node in divisors(n) if algorithm == "hierarchical" else (n,):
        for partition in divisors(n):
            if runs(n, partition, per_node, algorithm):
                options = {"partition": partition, "stage": 3, "algorithm": algorithm}
                serials_bits(want, n, per_node, steps=3, **options)


@pytest.mark.parametrize("micro_steps", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [2, 4])
def test_micro_steps_and_when_they_are_synchronised_do_not_change_exact_bits(n, micro_steps):
    share = {"micro_batches": n * micro_steps, "steps": 3}
    want = serial(**share).digest
    for partition, stage in cuts(n):
        for every in (False, True):
            options = {"partition": partition, "stage": stage, "every_microstep": every}
            serials_bits(want, n, **options, **share)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_prefetching_changes_neither_bits_nor_messages(n, exact):
    for partition in divisors(n):
        options = {"partition": partition, "stage": 3, "exact": exact, "steps": 3}
        plain = everywhere(n, **options)
        serials_bits(plain[0].digest, n, prefetch=True, **options)
        sends_the_formula(n, prefetch=True, **options)


def test_prefetching_sends_the_next_unit_while_one_computes():
    """On 3 ranks a gather has two messages: one leaves before, one after the computation."""
    counts = {"start": [], "gradients": []}

    class Order(Listener):
        kinds = frozenset({"compute", "send"})
        sent = reduced = 0

        def begin(self, event):
            if event.kind == "compute" and "layer" in event.name:
                counts["start"].append(self.sent)
            self.sent += event.kind == "send" and event.purpose == "parameters"
            if event.purpose == "gradients" and len(counts["gradients"]) < self.reduced:
                counts["gradients"].append(self.sent)

        def end(self, event):
            self.reduced += event.kind == "compute" and event.name.startswith("backward layer")

    def body(comm):
        if comm.rank == 0:
            comm.events.add(Order())
        options = {"partition": 3, "stage": 3, "prefetch": True, "micro_batches": 3, "steps": 1}
        tiny.trained(comm, **options)

    spawn((0,) * 3, body)
    assert counts["start"] == [3, 5, 6, 6 + 3, 6 + 5, 6 + 6]
    assert counts["gradients"] == [6 + 4, 6 + 6, 6 + 6]


@pytest.mark.parametrize(
    "n, most", [(2, None), (3, None), (6, None), (2, tiny.CLIP), (4, tiny.CLIP)]
)
def test_float_reduction_stays_near_serial(n, most):
    want = serial(exact=False, clip=most).parameters
    for partition, stage in cuts(n):
        got = everywhere(n, partition=partition, stage=stage, exact=False, clip=most)
        assert len({rank.digest for rank in got}) == 1, "replicas differ"
        for name, value in got[0].parameters.items():
            np.testing.assert_allclose(value, want[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("micro_steps", [1, 2])
def test_float_reduction_in_every_micro_step_stays_near_serial(micro_steps):
    share = {"exact": False, "micro_batches": 4 * micro_steps, "steps": 4}
    want = serial(**share).parameters
    for partition, stage in cuts(4):
        options = {"partition": partition, "stage": stage, "every_microstep": True}
        got = everywhere(4, **options, **share)[0].parameters
        for name, value in got.items():
            np.testing.assert_allclose(value, want[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("n, every", [(4, False), (4, True), (6, False)])
def test_replicas_are_equal_to_the_bit_after_every_step(n, every):
    for partition, stage in cuts(n):
        for exact in (False, True):
            options = {"partition": partition, "stage": stage, "every_microstep": every}
            replicas_equal(n, steps=3, exact=exact, **options)


@pytest.mark.parametrize("prefetch", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_units_smaller_than_p_and_tensors_of_no_elements_are_units_like_others(n, prefetch):
    """Ranks whose piece is padding, or nothing, join every collective."""
    want = serial(network=tiny.crumbs, steps=3).digest
    for partition, stage in cuts(n):
        if prefetch and stage < 3:
            continue
        options = {"partition": partition, "stage": stage, "prefetch": prefetch, "steps": 3}
        serials_bits(want, n, network=tiny.crumbs, **options)


def littering(scatter):
    """Return a reduce-scatter that leaves NaN wherever the result is undefined."""

    def reduce_scatter(comm, x, offsets=None):
        own = scatter(comm, x, offsets).copy()
        x[:] = np.nan if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        place = chunks.slices(x, comm.size, offsets)[comm.rank]
        x[place] = own
        return x[place]

    return reduce_scatter


@pytest.mark.parametrize("micro_steps", [1, 2])
def test_what_a_reduce_scatter_leaves_undefined_is_never_read(micro_steps):
    litterer = doing(RING, reduce_scatter=littering(RING.reduce_scatter))
    share = {"micro_batches": 3 * micro_steps, "steps": 3}
    for stage in (1, 2, 3):
        for exact in (False, True):
            options = {"partition": 3, "stage": stage, "exact": exact}
            want = everywhere(3, **options, **share)[0].digest
            serials_bits(want, 3, algorithm=litterer, **options, **share)


def test_one_micro_step_writes_the_gradient_where_it_is_kept():
    """The float ddp step with one micro-step skips a copy; it must not change the result."""
    want = serial(exact=False, micro_batches=2).parameters
    got = everywhere(2, exact=False, micro_batches=2)
    assert got[0].replica.partition.direct
    for name, value in got[0].parameters.items():
        np.testing.assert_allclose(value, want[name], rtol=1e-4, atol=1e-6)


def test_stage_3_binds_no_memory_that_holds_more_than_the_largest_unit():
    """Whole parameters are in one gather buffer, or with prefetching in two."""
    for prefetch in (False, True):
        got = everywhere(2, partition=2, stage=3, steps=1, prefetch=prefetch)
        for rank in got:
            states = rank.replica.partition
            largest = max(unit.padded for unit in states.layout.units)
            memory = {id(seat.base) for seat in states.seats}
            assert len(memory) == 1 + prefetch
            assert all(seat.base.size == largest for seat in states.seats)
            assert states.whole is None and states.shard.size == states.layout.shard


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_unit_that_is_gathered_over_one_in_use_is_noticed(prefetch, monkeypatch):
    monkeypatch.setattr(ModelStates, "free", lambda self, layer: None)
    with pytest.raises(AssertionError, match="was not freed"):
        everywhere(2, partition=2, stage=3, steps=1, prefetch=prefetch)


@pytest.mark.parametrize(
    "n, algorithm, exact, every",
    [
        *((n, "ring", exact, every) for n in (1, 4) for exact in YES_NO for every in YES_NO),
        *((3, "halving-doubling", False, every) for every in YES_NO),
        *((4, name, False, every) for name in ("halving-doubling", "auto") for every in YES_NO),
        *((6, name, False, False) for name in ("ring", "hierarchical")),
    ],
)
def test_a_step_sends_what_the_formula_says(n, algorithm, exact, every):
    for per_node in divisors(n):
        for partition, stage in cuts(n):
            if runs(n, partition, per_node, algorithm):
                options = {"partition": partition, "stage": stage, "algorithm": algorithm}
                options |= {"exact": exact, "every_microstep": every, "clip": None}
                sends_the_formula(n, per_node, **options)
