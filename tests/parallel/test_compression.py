"""GTC, one bit and BMUF on real ranks: replicas are equal, sums exact, costs as documented."""

import numpy as np
import pytest
from axes import combine, context

from refimpl import collectives
from refimpl.methods.block.averaging import cut, parts
from refimpl.methods.block.bmuf import Bmuf, block_update
from refimpl.methods.gradient.gtc import exchange, threshold, wire
from refimpl.methods.gradient.gtc.method import Threshold
from refimpl.methods.gradient.onebit import message as onebit
from refimpl.methods.gradient.onebit.method import OneBit
from refimpl.methods.protocol import Context
from refimpl.nn.flat import one_unit
from refimpl.numerics.exact import FixedPoint
from refimpl.numerics.rng import stream
from refimpl.optim import SGD
from refimpl.world.communicator import Communicator
from refimpl.world.groups import Groups
from refimpl.world.ledger import Count
from refimpl.world.topology import Grid

RING = collectives.get("ring")


def gradient(rank, step, n, dtype=np.float32, unit=2.0**-6):
    """Return multiples of a power of two, so that all sums are exact; every rank knows all."""
    return (stream(7, "gradient", rank, step).integers(-200, 200, n) * unit).astype(dtype)


def equal_on_all(comm, *arrays):
    """Tell whether all ranks hold the same bits."""
    everyones = comm.allgather_object([array.tobytes() for array in arrays])
    return all(bits == everyones[0] for bits in everyones)


def compressor(comm, n, tau, dtype=np.float32, **options):
    return Threshold(tau, **options).build(context(n, dtype, gradient=comm))


def two_nodes(world):
    """Return the world drawn on nodes of two ranks."""
    return Communicator(world.mpi, ranks_per_node=2)


# ---------------------------------------------------------------------------- the exchange


@pytest.mark.parametrize("wanted", wire.CHOICES)
def test_every_rank_gets_counts_times_tau_and_own_messages_count(world, wanted):
    n, tau = 300, threshold.rounded(0.7, np.float32)
    everyones = [
        threshold.encode(np.zeros(n, np.float32), gradient(r, 0, n), tau, np.empty(n, np.uint32))
        for r in range(world.size)
    ]
    count = np.zeros(n, int)
    for words in everyones:
        count[threshold.indices(words)] += threshold.signs(words)
    out = np.empty(n, np.float32)
    counts = threshold.Counts(n, world.size)
    mine = everyones[world.rank]
    sent = exchange.exchange(world, mine, tau, counts, out, wanted)
    assert (out == count.astype(np.float32) * np.float32(tau)).all()
    assert sent.entries == tuple(words.size for words in everyones)
    assert sent.bytes == wire.size(mine, n, sent.format)
    assert equal_on_all(world, out)


@pytest.mark.parametrize("n", [0, 1, 40, 70_000])
def test_empty_full_and_very_unequal_messages_are_exchanged(world, n):
    """Even ranks send nothing and odd ones everything."""
    own = np.full(n, world.rank % 2 * 2.0)
    gtc = compressor(world, n, tau=1.0, dtype=np.float64)
    gtc.combine(own)
    assert (own == world.size // 2).all()
    assert (gtc.residual == world.rank % 2).all()


@pytest.mark.parametrize("wanted", ["index", "two-bit", "rice"])
def test_the_ledger_of_an_exchange_is_its_cost(world, wanted):
    comm = two_nodes(world)
    n, tau = 500, 1.0
    gtc = compressor(comm, n, tau, format=wanted)
    for step in range(2):
        comm.ledger.clear()
        gtc.combine(gradient(comm.rank, step, n))
        lengths = comm.allgather_object(gtc.statistics()["message_bytes"])
        expected = exchange.cost(lengths, comm.nodes).sent_by(comm.rank)
        assert comm.ledger.totals() == expected
        assert comm.ledger.total(purpose="gradients") == comm.ledger.total()
    comm.free()


def test_a_message_of_the_index_format_is_a_header_and_four_bytes_per_entry(world):
    comm = two_nodes(world)
    gtc = compressor(comm, 100, tau=1.0, format="index")
    gtc.combine(np.full(100, 2.0, np.float32))
    p = comm.size
    assert comm.ledger.total() == Count(2 * (p - 1), (p - 1) * (8 + 24 + 400))
    comm.free()


def test_a_damaged_message_is_an_error_on_every_rank_and_no_update(world):
    class Noisy(Communicator):
        """Flips the sign of tau in the last rank's message, where it comes from."""

        def Isend(self, buf, dest, tag=0):
            if self.rank == self.size - 1 and not self.noisy:
                self.noisy = True
                buf[23] ^= 128
            return super().Isend(buf, dest, tag)

    if world.size == 1:
        return
    comm = Noisy(world.mpi)
    comm.noisy = False
    gtc = compressor(comm, 50, tau=1.0)
    g = gradient(comm.rank, 0, 50)
    before = g.copy()
    with pytest.raises(wire.MessageError, match=r"threshold -1\.0"):
        gtc.combine(g)
    assert (g == before).all()
    out = np.empty(50, np.float32)
    gtc._counts.total(1.0, out)
    assert not out.any()
    comm.free()


def test_ranks_that_disagree_on_tau_are_told(world):
    if world.size == 1:
        return
    gtc = compressor(world, 50, tau=1.0 + (world.rank == 0))
    with pytest.raises(wire.MessageError, match="threshold"):
        gtc.combine(gradient(world.rank, 0, 50))


# ------------------------------------------------------------------------------------- GTC


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_applied_plus_residuals_of_all_ranks_equal_the_gradients_exactly(world, dtype):
    n, tau = 1000, 1.5
    gtc = compressor(world, n, tau, dtype)
    applied = np.zeros(n)
    for step in range(6):
        g = gradient(world.rank, step, n, dtype)
        gtc.combine(g)
        assert equal_on_all(world, g)
        applied += g
    owed = sum(world.allgather_object(gtc.residual.astype(np.float64)))
    given = sum(
        gradient(r, step, n).astype(np.float64) for r in range(world.size) for step in range(6)
    )
    np.testing.assert_array_equal(applied + owed, given)


@pytest.mark.parametrize("target", [None, 0.02])
def test_replicas_are_equal_to_the_bit_after_every_step(world, target):
    """With a threshold, a rate and gradients that are anything but dyadic."""
    n = 800
    curve = stream(7, "curve", world.rank).uniform(0.5, 2, n).astype(np.float32)
    gtc = compressor(
        world, n, tau=0.123, target=target, warmup=1, clip_every=2, clip_at=1.5, format="smallest"
    )
    optimizer = SGD(momentum=0.9)
    w = stream(7, "start").normal(size=n).astype(np.float32)
    states = optimizer.allocate(n, np.float32)
    for _ in range(8):
        g = curve * w
        gtc.combine(g)
        optimizer.update(w, g, states, lr=0.01)
        assert equal_on_all(world, w, states["momentum"])
        assert len(set(world.allgather_object(gtc.tau))) == 1


def test_gradients_tau_and_rate_scale_together_to_the_bit(world):
    n = 200
    curve = stream(7, "curve", world.rank).uniform(0.5, 2, n).astype(np.float32)

    def trajectory(c):
        gtc, w = compressor(world, n, tau=0.3 * c), stream(7, "start").normal(size=n)
        w = w.astype(np.float32)
        out = []
        for _ in range(10):
            g = curve * w * np.float32(c)
            gtc.combine(g)
            w -= np.float32(0.02 / c) * g
            out.append(w.tobytes())
        return out

    assert trajectory(256.0) == trajectory(1.0)


def test_gradients_of_nothing_or_one_tau_are_the_dense_sum(world):
    """What threshold compression can say is said; a residual of exactly tau would wait."""
    n, tau = 400, 1.0
    own = stream(7, "signs", world.rank).integers(-1, 2, n).astype(np.float32)
    dense = sum(stream(7, "signs", r).integers(-1, 2, n) for r in range(world.size))
    gtc = compressor(world, n, tau)
    gtc.residual[:] = 0.25 * np.sign(own)
    gtc.combine(own)
    assert (own == dense).all()


@pytest.mark.parametrize("fixed", [False, True])
def test_warm_up_is_the_dense_sum(world, fixed):
    n = 300
    gtc = Threshold(1.0, warmup=1).build(context(n, gradient=world, exact=fixed))
    g = gradient(world.rank, 0, n)
    combine(gtc, g)
    assert (g == sum(gradient(r, 0, n) for r in range(world.size))).all()
    assert gtc.statistics() == {"dense": True, "tau": 1.0, "units": "sum"}


@pytest.mark.wide
@pytest.mark.parametrize("target", [None, 0.3])
def test_any_cut_into_shards_takes_the_same_steps_to_the_bit(world, target):
    """Each partition of the world against one worker per group of p ranks, computed alone.

    The last values' gradients are 20 times the first ones', so that shards by themselves would
    steer an adaptive threshold in different ways.
    """
    n, steps = 3 * 5 * 7 * 8, 12  # shards of one length on up to 8 ranks
    sizes = np.linspace(0.1, 2, n)
    options = Threshold(0.9, target=target, warmup=1, clip_every=2, clip_at=1.0)

    def run(group, part, own, partition=None):
        gtc = options.build(context(n, gradient=group, partition=partition, exact=True))
        out = []
        for step in range(steps):
            g = (stream(8, "gradient", own, step).normal(size=n) * sizes).astype(np.float32)[part]
            combine(gtc, g)
            out.append(g)
        return np.array(out), gtc.tau

    for p in (d for d in range(2, world.size + 1) if world.size % d == 0):
        grid = Grid.cut(world.size, partition=p)
        groups = Groups.split(world, grid)
        worker, shard = grid.worker(world.rank), grid.place(world.rank).shard
        cut = slice(shard * n // p, (shard + 1) * n // p)
        sharded, tau = run(groups.gradient, cut, worker, groups.partition)
        whole, twin_tau = run(groups.gradient, slice(0, n), worker)
        assert sharded.tobytes() == np.ascontiguousarray(whole[:, cut]).tobytes()
        assert tau == twin_tau
        groups.free()


def test_folded_residuals_make_the_accounts_exact(world):
    """Steps, then a fold: what was applied is the sum of all gradients, on every rank."""
    n = 500
    for exact in (False, True):
        options = Threshold(1.5, at_sync="fold")
        gtc = options.build(context(n, np.float64, gradient=world, exact=exact))
        applied, given = np.zeros(n), np.zeros(n)
        for step in range(3):
            g = gradient(world.rank, step, n, np.float64)
            combine(gtc, g)
            applied += g
            given += sum(gradient(r, step, n, np.float64) for r in range(world.size))
        assert (applied != given).any()
        np.testing.assert_array_equal(applied + gtc.settle(g), given)
        assert not gtc.residual.any()


# ---------------------------------------------------------------------------------- one bit


@pytest.mark.parametrize("n", [0, 1, 3, 1003])
def test_one_bit_replicas_are_equal_and_the_ledger_is_the_cost(world, n):
    comm = two_nodes(world)
    axis = OneBit(warmup=1).build(context(n, gradient=comm))
    for step in range(4):
        comm.ledger.clear()
        g = gradient(comm.rank, step, n)
        axis.combine(g)
        assert equal_on_all(comm, g)
        if step:
            expected = onebit.cost(n, comm.nodes).sent_by(comm.rank)
            assert comm.ledger.totals() == expected
            assert axis.statistics()["message_bytes"] == comm.ledger.total().bytes
        else:
            assert (g == sum(gradient(r, 0, n) for r in range(comm.size))).all()
    comm.free()


def test_one_bit_results_plus_all_residuals_equal_the_gradients_exactly(world):
    """Chunks of a power of two values have dyadic scales, and every sum is exact."""
    chunk, steps = 64, 3
    n = chunk * world.size
    axis = OneBit().build(context(n, np.float64, gradient=world))
    applied, given = np.zeros(n), np.zeros(n)
    for step in range(steps):
        g = gradient(world.rank, step, n, np.float64, unit=1.0)
        axis.combine(g)
        applied += g
        given += sum(gradient(r, step, n, np.float64, unit=1.0) for r in range(world.size))
    owed = sum(world.allgather_object(axis.residual))
    owed += np.concatenate(world.allgather_object(axis.owned))
    np.testing.assert_array_equal(applied + owed, given)


def test_one_bit_is_the_definition_computed_alone(world):
    p, n = world.size, 37
    axis = OneBit().build(context(n, gradient=world))
    cut = np.cumsum([0] + [n // p + (b < n % p) for b in range(p)]).tolist()
    residuals = [np.zeros(n, np.float32) for _ in range(p)]
    owned = [np.zeros(cut[b + 1] - cut[b], np.float32) for b in range(p)]

    def quantised(x):
        s = np.float32(np.abs(x).sum(dtype=np.float64) / max(1, x.size))
        return np.where(x >= 0, s, -s)

    for step in range(3):
        g = stream(9, "gradient", world.rank, step).normal(size=n).astype(np.float32)
        axis.combine(g)
        want = np.empty(n, np.float32)
        for r in range(p):
            residuals[r] += stream(9, "gradient", r, step).normal(size=n).astype(np.float32)
        for b in range(p):
            part = slice(cut[b], cut[b + 1])
            for r in range(p):
                said = quantised(residuals[r][part])
                residuals[r][part] -= said
                owned[b] += said
            want[part] = quantised(owned[b])
            owned[b] -= want[part]
        np.testing.assert_array_equal(g, want, strict=True)


# ------------------------------------------------------------------------------------- BMUF


def on(groups, n, **given):
    """Return what BMUF is built from, on these groups."""
    layout = one_unit(n, groups.grid.partition)
    return Context(groups, RING, layout, np.dtype(np.float32), **given)


def grids(size):
    """Yield every grid of this many ranks with more than one block."""
    for p in range(1, size + 1):
        for g in range(1, size // p + 1):
            if size % (p * g) == 0 and size // (p * g) > 1:
                yield Grid(size // (p * g), g, p)


@pytest.mark.wide
@pytest.mark.parametrize("nesterov", [True, False], ids=["nbm", "cbm"])
def test_blocks_on_every_grid_are_the_equations_computed_alone(world, nesterov):
    n, options = 120, Bmuf(steps=4, zeta=0.8, nesterov=nesterov)
    for grid in grids(world.size):
        groups = Groups.split(world, grid)
        block, _, shard = grid.place(world.rank)
        part = slice(shard * n // grid.partition, (shard + 1) * n // grid.partition)
        start = stream(10, "start").normal(size=n).astype(np.float32)
        bmuf = options.build(on(groups, n, exact=True))
        weights = start[part].copy()
        bmuf.begin(weights)
        w, d, s = start, np.zeros(n, np.float32), start
        for sync in range(3):
            ways = [
                stream(10, "way", sync, b).normal(size=n).astype(np.float32)
                for b in range(grid.blocks)
            ]
            weights += ways[block][part]
            bmuf.sync(weights)
            fixed, q = FixedPoint(grid.blocks), np.zeros(n, np.int64)
            for way in ways:
                fixed.add(s + way, q)
            mean = np.empty(n, np.float32)
            fixed.decode(q, mean)
            mean /= grid.blocks
            w, d, s = block_update(w, d, mean, 1 - 1 / grid.blocks, 0.8, nesterov)
            for ours, alone in ((weights, s), (bmuf.model, w), (bmuf.update, d)):
                assert ours.tobytes() == np.ascontiguousarray(alone[part]).tobytes()
            assert bmuf.start().tobytes() == weights.tobytes()
            norm = bmuf.statistics()["block_update_norm"]
            assert norm == pytest.approx(np.sqrt(np.square(d.astype(np.float64)).sum()))
        assert bmuf.synchronised == 3
        groups.free()


def test_all_ranks_with_a_shard_are_equal_after_a_sync_in_float_too(world):
    n = 333
    for grid in grids(world.size):
        groups, place = Groups.split(world, grid), grid.place(world.rank)
        weights = stream(11, "start", place.shard).normal(size=n).astype(np.float32)
        bmuf = Bmuf().build(on(groups, n * grid.partition))
        bmuf.begin(weights)
        weights += stream(11, "way", place.block, place.shard).normal(size=n).astype(np.float32)
        bmuf.sync(weights)
        assert equal_on_all(groups.replication, weights, bmuf.model, bmuf.update)
        groups.free()


def test_every_member_sends_its_part_between_groups_and_gathers_the_others(world):
    comm = two_nodes(world)
    n = 240
    for grid in grids(comm.size):
        groups = Groups.split(comm, grid)
        weights = np.zeros(n // grid.partition, np.float32)
        bmuf = Bmuf().build(on(groups, n))
        bmuf.begin(weights)
        comm.ledger.clear()
        bmuf.sync(weights)
        points = cut(parts(RING, weights.size, groups.block.nodes, grid.gradient))
        own = points[groups.gradient.rank + 1] - points[groups.gradient.rank]
        costs = [
            RING.cost("allreduce", own, groups.block.nodes).sent_by(groups.block.rank),
            RING.cost("allgather", weights.size, groups.gradient.nodes, offsets=points).sent_by(
                groups.gradient.rank
            ),
        ]
        for link, count in comm.ledger.totals().items():
            assert count == costs[0][link] + costs[1][link]
        assert comm.ledger.total(purpose="models") == comm.ledger.total()
        groups.free()
    comm.free()


def test_momentum_0_and_rate_1_is_model_averaging_exactly_in_dyadic_arithmetic(world):
    if world.size & (world.size - 1) or world.size == 1:
        return  # the mean of another number of models is rounded
    groups = Groups.split(world, Grid(world.size, 1, 1))
    bmuf = Bmuf(eta=0.0).build(on(groups, 50))
    weights = np.zeros(50, np.float32)
    bmuf.begin(weights)
    for step in range(4):
        weights += gradient(world.rank, step, 50)
        everyones = world.allgather_object(weights.copy())
        bmuf.sync(weights)
        assert (weights == sum(everyones) / world.size).all()
    groups.free()


def test_state_that_is_loaded_continues_to_the_same_bits(world):
    if world.size == 1:
        return
    groups = Groups.split(world, Grid(world.size, 1, 1))

    def made():
        return Bmuf().build(on(groups, 60))

    first, weights = made(), stream(12, "start").normal(size=60).astype(np.float32)
    first.begin(weights)
    second = made()
    for step in range(4):
        weights += stream(12, "way", world.rank, step).normal(size=60).astype(np.float32)
        if step == 2:
            second.load(first.state())
            twin = weights.copy()
        elif step == 3:
            twin += stream(12, "way", world.rank, step).normal(size=60).astype(np.float32)
        if step >= 2:
            second.sync(twin)
        first.sync(weights)
    assert twin.tobytes() == weights.tobytes()
    assert second.synchronised == 4
    groups.free()
