"""GTC, BMUF and their composition with sharding: every cut trains as its unsharded twin.

Ranks are threads here (`loopback`).  All with ``--reduction exact``, compared to the bit.
"""

import numpy as np
import pytest
import tiny
from loopback import spawn

from refimpl.methods.block.bmuf import Bmuf
from refimpl.methods.gradient.gtc.method import Threshold
from refimpl.methods.strategies import STRATEGIES, strategy
from refimpl.support.errors import UserError
from refimpl.world.topology import Grid, Nodes

GTC = {"gradient": Threshold(tau=0.5)}
BMUF = {"block": Bmuf(steps=3)}
DATA = {"micro_batches": 24, "steps": 7}  # the last block is a partial one


def everywhere(n, ranks_per_node=None, **options):
    nodes = Nodes.of(n, ranks_per_node).node
    return spawn(nodes, lambda comm: tiny.trained(comm, **DATA | options))


def digests(ranks):
    return {rank.digest for rank in ranks}


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("p, g, b", [(2, 2, 1), (4, 2, 1), (2, 3, 1), (3, 1, 2), (2, 2, 2)])
def test_sharding_does_not_change_the_numbers_of_gtc_and_bmuf(p, g, b, optimizer):
    methods = (GTC if g > 1 else {}) | (BMUF if b > 1 else {})
    options = methods | {"gtc_group": g, "optimizer": optimizer}
    twin = everywhere(g * b, **options)
    for stage in (1, 2, 3):
        sharded = everywhere(p * g * b, partition=p, stage=stage, **options)
        assert digests(sharded) == digests(twin), stage
    assert len(digests(twin)) == 1


def test_the_adaptive_threshold_counts_the_entries_of_all_shards():
    """And the values of all shards but no padding; it rises in some steps, and falls in others."""
    seen = {2: [], 8: []}

    def watch(replica):
        numbers = replica.gradient.statistics()
        if replica.groups.world.rank == 0:
            seen[replica.groups.world.size].append((numbers["tau"], numbers["density"]))

    options = {"gradient": Threshold(tau=2.0, target=0.3), "after": watch}
    twin, sharded = everywhere(2, **options), everywhere(8, partition=4, stage=3, **options)
    assert sharded[0].replica.context.layout.padded > twin[0].replica.context.layout.size
    assert digests(sharded) == digests(twin) and seen[8] == seen[2]
    steps = np.diff([tau for tau, _ in seen[2]])
    assert (steps > 0).any() and (steps < 0).any()


def test_every_block_adapts_a_threshold_of_its_own():
    options = {"gradient": Threshold(tau=2.0, target=0.15), "gtc_group": 2, "end": False}
    leaves = [rank.replica.state()["gradient/tau"] for rank in everywhere(4, **options, **BMUF)]
    assert {leaf.placement for leaf in leaves} == {"block"}
    taus = [leaf.value for leaf in leaves]
    assert taus[0] == taus[1] != taus[2] == taus[3]


def test_one_block_is_gtc_to_the_bit_and_one_group_of_one_is_serial():
    gtc = everywhere(4, **GTC)
    assert digests(everywhere(4, gtc_group=4, **GTC, **BMUF)) == digests(gtc)
    serial = everywhere(1)
    assert digests(everywhere(1, **BMUF)) == digests(serial)
    assert digests(everywhere(4)) == digests(serial) != digests(gtc)


@pytest.mark.parametrize("n", [2, 3])
@pytest.mark.parametrize("eta", [0.0, None])
def test_after_a_block_the_plain_average_is_evaluated_and_saved(eta, n):
    """With zeta = 1 that holds for any block momentum, since W and not the look-ahead is saved."""
    options = DATA | {"steps": 6, "clip": None, "gtc_group": 1}
    short = {"steps": 3}
    block = Bmuf(steps=3, eta=eta)
    averaged = spawn((0,) * n, lambda comm: tiny.trained(comm, block=block, **options | short))
    workers = spawn(
        (0,) * n,
        lambda comm: tiny.trained(comm, block=Bmuf(steps=99), end=False, **options | short),
    )
    for name, value in averaged[0].parameters.items():
        mean = sum(worker.parameters[name] for worker in workers) / n
        np.testing.assert_allclose(value, mean, rtol=1e-5, atol=1e-7)
    ahead = averaged[0].replica.partition.whole
    saved = averaged[0].replica.block.model
    assert (ahead == saved).all() == (eta == 0.0)


def test_at_a_sync_momentum_starts_anew_and_adams_moments_stay_unless_told_otherwise():
    def states(keep, optimizer):
        block = Bmuf(steps=3, keep_momentum=keep)
        one = everywhere(2, gtc_group=1, block=block, optimizer=optimizer)[0]
        return one.digest, one.replica.partition.states

    for optimizer in ("momentum", "adam"):
        (reset, none), (kept, some) = states(False, optimizer), states(True, optimizer)
        assert not any(np.any(value) for value in none.values())
        assert all(np.any(value) for value in some.values())
        assert reset != kept
        assert states(None, optimizer)[0] == (kept if optimizer == "adam" else reset)


@pytest.mark.parametrize("p, g, b, k", [(1, 2, 2, 2), (1, 4, 2, 4), (2, 2, 2, 4), (1, 1, 4, 2)])
def test_only_models_go_between_nodes_that_hold_a_group_each(p, g, b, k):
    n = p * g * b
    nodes = Nodes.of(n, k)

    def body(comm):
        tiny.trained(
            comm,
            partition=p,
            gtc_group=g,
            stage=3 if p > 1 else 0,
            **DATA | (GTC if g > 1 else {}) | BMUF,
        )
        models = comm.ledger.total("inter", "models")
        return models.messages, comm.ledger.total("inter").messages == models.messages

    sent = spawn(nodes.node, body)
    assert any(messages for messages, _ in sent)
    if p * g == k:
        assert all(messages for messages, _ in sent)
    if p * g <= k:
        assert all(alone for _, alone in sent)


def test_residual_policies_differ_and_replicas_stay_equal():
    ends = set()
    for policy in ("keep", "zero", "fold"):
        ranks = everywhere(4, gtc_group=2, gradient=Threshold(tau=0.5, at_sync=policy), **BMUF)
        ends |= digests(ranks)
        owed = max(float(np.abs(rank.replica.gradient.residual).max()) for rank in ranks)
        assert (owed > 0) == (policy == "keep")
    assert len(ends) == 3


def test_every_strategy_cuts_eight_ranks_as_its_row_says():
    want = {
        "ddp": (1, 8, 1),
        "zero1": (1, 1, 8),
        "zero3": (1, 1, 8),
        "gtc": (1, 8, 1),
        "onebit": (1, 8, 1),
        "bmuf": (8, 1, 1),
        "mics": (1, 4, 2),
        "gtc-bmuf": (2, 4, 1),
        "mics-gtc": (1, 4, 2),
        "mics-bmuf": (4, 1, 2),
        "mics-gtc-bmuf": (1, 4, 2),
        "topk": (1, 8, 1),
        "diloco": (8, 1, 1),
        "mics-diloco": (4, 1, 2),
        "local-sgd": (8, 1, 1),
        "topk-bmuf": (2, 4, 1),
        "mics-topk": (1, 4, 2),
        "mics-topk-bmuf": (1, 4, 2),
    }
    for name, (b, g, p) in want.items():
        row = STRATEGIES[name]
        given = {"P": {"partition": 2}, "G": {"gtc_group": 4}}
        lengths = {key: n for letter in row.given for key, n in given[letter].items()}
        grid = row.grid(8, lengths)
        assert grid == Grid(b, g, p), name
    assert strategy("serial").grid(1) == Grid(1, 1, 1)


@pytest.mark.parametrize(
    "name, options, message",
    [
        ("serial", {}, "serial runs on one rank, not 8"),
        ("ddp", {"partition": 2}, "--partition 2 does not go with strategy ddp.*mics"),
        ("bmuf", {"gtc_group": 2}, "--gtc-group 2 does not go with strategy bmuf.*gtc-bmuf"),
        ("mics", {}, "mics needs --partition P"),
        ("gtc-bmuf", {}, "gtc-bmuf needs --gtc-group G"),
        ("gtc-bmuf", {"gtc_group": 3}, "GTC groups of 3.*1, 2, 4, 8"),
        ("mics", {"partition": 3}, "partition groups of 3.*1, 2, 4, 8"),
    ],
)
def test_group_sizes_that_do_not_go_with_the_strategy_are_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        strategy(name).grid(8, options)
