"""Secondary shards: the same bits, and backward gathers that no message between nodes is for."""

import numpy as np
import pytest
import tiny
from checks import everywhere, serial

from refimpl import collectives, nn
from refimpl.methods import traffic
from refimpl.methods.calls import Setting
from refimpl.methods.formulas import table
from refimpl.methods.partition.secondary import Secondary
from refimpl.methods.partition.stages import Sharded
from refimpl.methods.strategies import Methods
from refimpl.nn.flat import one_unit
from refimpl.support.errors import UserError
from refimpl.world.threads import spawn
from refimpl.world.topology import Grid, Nodes

NODE = Methods(Sharded(secondary=True))
FEW = {"steps": 3, "micro_batches": 16}


@pytest.mark.parametrize(
    "n, partition, nodes, algorithm",
    [
        (4, 4, (0, 0, 1, 1), "ring"),
        (4, 4, (0, 1, 0, 1), "hierarchical"),  # dealt out in turn
        (4, 4, (0, 0, 0, 1), "ring"),  # a rank that is alone
        (8, 8, (0, 0, 0, 0, 1, 1, 1, 1), "hierarchical"),
        (8, 4, (0, 0, 0, 1, 1, 1, 2, 2), "halving-doubling"),  # parts of 3 and 1, 2 and 2
    ],
)
def test_the_bits_are_serials_wherever_the_ranks_are(n, partition, nodes, algorithm):
    grid = Grid(1, n // partition, partition)
    options = {"grid": grid, "methods": NODE, "algorithm": algorithm} | FEW
    found = {one.digest for one in spawn(nodes, lambda comm: tiny.trained(comm, **options))}
    assert found == {serial(**FEW).digest}


def test_stale_shards_are_noticed(monkeypatch):
    """Were they kept once and never again, the second step would be another."""
    kept = set()

    def once(self, number, seat, right=Secondary.keep):
        if (id(self), number) not in kept:
            kept.add((id(self), number))
            right(self, number, seat)

    monkeypatch.setattr(Secondary, "keep", once)
    ranks = everywhere(2, grid=Grid(1, 1, 2), methods=NODE, **FEW)
    assert ranks[0].digest != serial(**FEW).digest


def between_nodes(methods, n, per_node, layout, microsteps):
    """Return the bytes that all ranks send to other nodes in a step."""
    ring = collectives.get("ring")
    setting = Setting(Grid(1, 1, n), Nodes.of(n, per_node), layout, ring, microsteps)
    links = traffic.sent(traffic.step_calls(methods, setting)).values()
    return sum(one["inter"].bytes for one in links)


@pytest.mark.parametrize("n, k", [(4, 2), (8, 2), (8, 4), (6, 3)])
def test_two_vectors_cross_between_nodes_in_a_micro_step_instead_of_three(n, k):
    """Each of the n/k edges between nodes carries V (n - 1)/n for a gather or a reduce-scatter."""
    layout, edges = one_unit(n * 100, n), n // k
    v = 4 * n * 100
    for s in (1, 3):
        once = edges * v * (n - 1) // n
        assert between_nodes(NODE, n, k, layout, s) == s * 2 * once
        assert between_nodes(Methods(Sharded()), n, k, layout, s) == s * 3 * once


def test_the_ledger_says_so_of_a_step_that_was_taken():
    def body(comm):
        comm.ledger.clear()
        tiny.trained(
            comm,
            grid=Grid(1, 1, 4),
            methods=NODE,
            steps=2,
            micro_batches=8,
            exact=False,
            clip=None,
        )
        return comm.ledger.totals()["inter"].bytes

    sent = sum(spawn((0, 0, 1, 1), body))
    layout = nn.Layout(tiny.network().units, 4)
    step = between_nodes(NODE, 4, 2, layout, 2)
    gathers = 2 * 4 * layout.padded * 3 // 4  # `each` gathers the model once, at the end
    assert sent == 2 * step + gathers


def test_it_is_told_on_paper():
    setting = Setting(
        Grid(1, 1, 8), Nodes.of(8, 4), one_unit(800, 8), collectives.get("ring"), microsteps=2
    )
    text = table(NODE, setting, states=1)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "all-gathers 2 x V (p-1)/p 5,600 bytes" in lines
    assert "all-gathers inside nodes 2 x V (k-1)/k 4,800 bytes" in lines
    assert "and secondary shard V/k 800 bytes" in lines


@pytest.mark.parametrize(
    "method, match",
    [
        (Sharded(stage=2, secondary=True), "node does not go with ZeRO stage 2: parameters must"),
        (
            Sharded(secondary=True, prefetch=True),
            "stage 3 and --prefetch: .* when they are needed",
        ),
    ],
)
def test_what_has_nothing_to_gather_or_gathers_ahead_is_refused(method, match):
    with pytest.raises(UserError, match=match):
        Methods(method).refuse(collectives.get("ring"))


def test_a_secondary_shard_is_no_state():
    replica = everywhere(2, grid=Grid(1, 1, 2), methods=NODE, **FEW)[0].replica
    assert not any(
        np.shares_memory(leaf.value, replica.partition.near.shard)
        for leaf in replica.state().values()
        if isinstance(leaf.value, np.ndarray)
    )
