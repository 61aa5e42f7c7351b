"""Bugs that others shipped, put in on purpose: the checks of training notice each of them.

Every test trains with a check of tests/helpers/checks.py, which passes; puts a bug in; and sees
the same check fail.  Where a bug is known from, its docstring says.  What the checks must not miss
is what no crash and no warning shows: most of these train, and the loss goes down.
"""

from functools import partial

import loopback
import numpy as np
import pytest
import tiny
from checks import replicas_equal, sends_the_formula, serial, serials_bits
from families import doing

from refimpl.collectives import ring
from refimpl.collectives.families import HIERARCHICAL
from refimpl.collectives.norm import GlobalNorm
from refimpl.methods.gradient.exact import AllReduce, Exact
from refimpl.methods.losses import Loss
from refimpl.methods.partition.zero import ModelStates
from refimpl.methods.step import Replica
from refimpl.optim import clip
from refimpl.world.groups import Groups
from refimpl.world.topology import Grid

# On 4 ranks 3 micro-steps, on 6 ranks 2; clipped in steps 2 and 4.
SHARE = {"micro_batches": 12, "steps": 5, "clip": 0.57}
MICS = {"partition": 2, "stage": 3}
SERIAL = partial(serial, **SHARE)


def bits(n=4, ranks_per_node=None, network=tiny.network, **options):
    """Check for serial's bits, by default on 2 replicas x 2 shards with 3 micro-steps."""
    want = SERIAL(network=network).digest
    serials_bits(want, n, ranks_per_node, network=network, **SHARE | MICS | options)


def equal(n=4, **options):
    """Check that replicas are equal after every step."""
    replicas_equal(n, **SHARE | MICS | options)


def sent(n=4, ranks_per_node=None, **options):
    """Check what is sent."""
    sends_the_formula(n, ranks_per_node, **MICS | {"microsteps": 3, "steps": 1} | options)


@pytest.fixture
def dies(monkeypatch):
    """Return ``dies(check, owner, name, bug)``: the check passes, but with the bug it fails."""

    def dies(check, owner, name, bug):
        check()
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, bug)
            with pytest.raises((AssertionError, loopback.Deadlock)):
                check()

    return dies


# ---------------------------------------------------------------------- two hops, and when


def stepping(combined):
    """Return a step in which ``combined`` makes the gradient, in fixed point, of all hops."""

    def step(self, batches, lr, frames=None):
        gradient = combined(self, batches)
        self.gradient.fixed.decode(gradient, self.gradient._sum)
        self._update(self.gradient._sum, lr)
        self.steps += 1
        return Loss()

    return step


def test_accumulating_after_the_allreduce_is_noticed(dies):
    """Only the last micro-step's gradient crosses the replicas.

    "We cannot simply accumulate after all-reduce": PyTorch PR 125484, where FSDP2 avoids it.
    """

    def after_the_last(self, batches):
        total = np.zeros_like(self.partition.gradient)
        for microstep in range(self.options.microsteps):
            self._forward_backward(*batches(microstep), microstep, first=True)
            if microstep == self.options.microsteps - 1:
                self.gradient._allreduce(self.partition.gradient)
            total += self.partition.gradient
        return total

    for check in bits, equal:
        dies(check, Replica, "step", stepping(after_the_last))


def test_allreducing_the_running_sum_in_every_micro_step_is_noticed(dies):
    """Earlier micro-steps are added up again with every later one."""

    def running(self, batches):
        for microstep in range(self.options.microsteps):
            self._forward_backward(*batches(microstep), microstep, first=microstep == 0)
            self.gradient._allreduce(self.partition.gradient)
        return self.partition.gradient

    for check in bits, sent:
        dies(check, Replica, "step", stepping(running))


def test_an_allreduce_in_every_micro_step_where_one_is_due_is_noticed(dies):
    """The right numbers at M times the traffic between replicas.

    The default of FSDP1's HYBRID_SHARD, which cannot do otherwise, and of FSDP2 (PyTorch 2.13).
    """
    init = Replica.__init__

    def eager(self, network, groups, family, optimizer, methods, options):
        methods = methods._replace(gradient=Exact(every_microstep=True))
        init(self, network, groups, family, optimizer, methods, options)

    dies(sent, Replica, "__init__", eager)


def test_losing_all_but_the_last_micro_step_is_noticed(dies):
    """Megatron-LM issue 7186: only the last micro-batch reached the optimizer."""
    reduce = ModelStates.reduce
    dies(bits, ModelStates, "reduce", lambda self, layer, first: reduce(self, layer, True))


@pytest.mark.parametrize("partition, stage", [(1, 0), (1, 3), (2, 3)])
def test_replicas_that_never_synchronise_are_noticed(dies, partition, stage):
    """PyTorch issue 154888: FSDP1's HYBRID_SHARD on an (n, 1) mesh drops the second hop.

    No error, no warning; still so in 2.13.
    """
    check = partial(equal, partition=partition, stage=stage)
    dies(check, AllReduce, "_allreduce", lambda self, gradient: None)


def test_one_buffer_for_the_gradients_of_all_units_is_noticed(dies):
    """Every unit is updated with the last one's gradient.

    PyTorch 180889 and 180900: HSDP's all-reduce shared a buffer that was in use.
    """
    update = ModelStates.update

    def aliased(self, gradient, lr, scale):
        places = [unit.shard_place for unit in self.layout.units]
        shared = np.zeros(max(place.stop - place.start for place in places), gradient.dtype)
        for place in places:
            shared[: place.stop - place.start] = gradient[place]
        for place in places:
            gradient[place] = shared[: place.stop - place.start]
        update(self, gradient, lr, scale)

    dies(bits, ModelStates, "update", aliased)


# -------------------------------------------------------------------------- means and norms


def test_a_mean_over_the_partition_group_alone_is_noticed(dies):
    """Hop 1's divisor without hop 2's: gradients R times too large."""
    frames = property(lambda self: self.options.batch * self.options.microsteps * 2)
    dies(bits, Replica, "frames", frames)


def test_a_norm_over_the_world_is_noticed(dies):
    """Every shard counts R times, so the gradient is clipped too often and too much.

    DeepSpeed's MiCS_Optimizer points its process group at the shard group; so the norm is right.
    """

    def update(self, gradient, lr, frames):
        scale = 1.0 / self.frames
        norm = self._norm(self.groups.world, gradient) * scale
        scale *= clip.coefficient(norm, self.options.clip)
        self.partition.update(gradient, lr, scale)

    dies(bits, Replica, "_update", update)


def test_a_norm_of_the_own_shard_is_noticed(dies):
    """RLinf issue 1542: no reduction of the gradient's norm across ranks."""
    norm = GlobalNorm.__call__
    (alone,) = loopback.spawn((0,), lambda comm: comm)
    dies(bits, GlobalNorm, "__call__", lambda self, comm, g: norm(self, alone, g))


# --------------------------------------------------------------------- who is in which group


def test_a_reduce_scatter_over_the_world_is_noticed(dies):
    """Shards are cut for p ranks, the scatter runs over n.

    DeepSpeed 0.19.5 (since commit 02663d6e5): with two replicas the first step never ends.
    """
    original = Replica._forward_backward

    def over_the_world(self, *batch, **first):
        self.partition.scatter_over = self.groups.world
        return original(self, *batch, **first)

    def reduce(self, layer, first):
        if not layer.parameters:
            return
        unit = self.layout.units[self.unit[layer.name]]
        self.bucket[unit.size : unit.padded] = 0
        self.fixed.encode(self.bucket[: unit.padded], self.encoded[: unit.padded])
        arrived = ring.reduce_scatter(self.scatter_over, self.encoded[: unit.padded])
        kept = self.accumulator[unit.shard_place][: arrived.size]
        kept[:] = arrived if first else kept + arrived

    def check():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Replica, "_forward_backward", over_the_world)
            bits()

    dies(check, ModelStates, "reduce", reduce)


def test_initial_values_of_a_partition_groups_own_are_noticed(dies):
    """The same commit of DeepSpeed: weights are broadcast in the shard group, not in the world.

    With a seed per rank the replicas start from different weights, and never meet.
    """
    initialise = ModelStates.initialise

    def per_group(self):
        initialise(self)
        for piece in self.pieces:
            piece += 0.01 * self.partition.members[0]

    for check in bits, equal:
        dies(check, ModelStates, "initialise", per_group)


def test_hybrid_sharding_that_is_flat_is_noticed(dies):
    """UniRL issue 410: "hybrid" shards over all ranks after all.  Only the messages show it."""
    split = Groups.split
    dies(sent, Groups, "split", lambda world, grid: split(world, Grid(1, 1, world.size)))


def test_ranks_that_stay_away_where_their_shard_is_empty_are_noticed(dies):
    """Ranks that see no data of their own in a buffer skip it, and the others wait.

    The second half of the bug of DeepSpeed 0.19.5.
    """
    reduce = ModelStates.reduce

    def absent(self, layer, first):
        unit = self.layout.units[self.unit[layer.name]] if layer.parameters else None
        if unit is not None and self.partition.rank * unit.piece < unit.size:
            reduce(self, layer, first)

    dies(partial(bits, partition=4, network=tiny.crumbs), ModelStates, "reduce", absent)


def test_ranks_that_gather_in_different_orders_are_noticed(dies):
    """DeepSpeed's gather of many tensors sorts the tensors, but not their buffers."""
    publish = ModelStates.publish

    def unsorted(self):
        seats = self.seats
        self.seats = seats[::-1] if self.partition.rank % 2 else seats
        publish(self)
        self.seats = seats

    dies(partial(bits, stage=2), ModelStates, "publish", unsorted)


# ------------------------------------------------------------------ hierarchical all-gathers


def transposed(comm, x, offsets=None):
    """Gather across, then within, as (local, node, element) instead of (node, local, element)."""
    within, across = comm.levels()
    own = np.array_split(x, comm.size)[comm.rank].copy()
    run = x.reshape(within.size, across.size, own.size)[within.rank]
    run[across.rank] = own
    ring.allgather(across, run.reshape(-1))
    ring.allgather(within, x)


def not_cloned(comm, x, offsets=None):
    """Use a part of x as scratch, and move it from there to where it belongs piece by piece."""
    within, across = comm.levels()
    own = np.array_split(x, comm.size)[comm.rank].copy()
    scratch = x.reshape(within.size, across.size, own.size)[within.rank]  # a view, not a copy
    scratch[across.rank] = own
    ring.allgather(across, scratch.reshape(-1))
    out = x.reshape(across.size, within.size, own.size)
    for node in range(across.size):
        out[node, within.rank] = scratch[node]
    for node in range(across.size):
        ring.allgather(within, out[node].reshape(-1))


@pytest.mark.parametrize(
    "n, bug", [(4, transposed), (6, transposed), (6, not_cloned)], ids=lambda x: str(x)[:14]
)
def test_a_hierarchical_gather_with_its_blocks_in_the_wrong_places_is_noticed(dies, n, bug):
    """What DeepSpeed's `_hierarchical_all_gather_params` re-orders and clones to avoid.

    With 2 nodes the missing clone does no harm, with 3 it does.
    """

    class Chosen:
        """The family under test, as a name that `dies` can set."""

        family = HIERARCHICAL

    def check():
        bits(n, ranks_per_node=2, partition=n, algorithm=Chosen.family)

    dies(check, Chosen, "family", doing(HIERARCHICAL, allgather=bug))


def test_hierarchical_collectives_that_are_flat_are_noticed(dies):
    """The right numbers over the wrong links: a fallback that says nothing."""

    class Chosen:
        family = HIERARCHICAL

    def check():
        sent(4, ranks_per_node=2, partition=4, algorithm=Chosen.family)

    flat = doing(HIERARCHICAL, allgather=ring.allgather, reduce_scatter=ring.reduce_scatter)
    dies(check, Chosen, "family", flat)


def test_prefetching_into_the_buffer_in_use_is_noticed(dies):
    """The next unit's parameters arrive while this one computes."""
    init = ModelStates.__init__

    def one_buffer(self, *arguments):
        init(self, *arguments)
        self.seats = [self._buffers[0][: unit.padded] for unit in self.layout.units]
        self._bind()

    dies(partial(bits, prefetch=True), ModelStates, "__init__", one_buffer)
