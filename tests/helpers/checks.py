"""What must be true of training on many ranks, each as one function that fails if it is not.

tests/methods/test_training.py calls them for every cut of the world; test_mutants.py beside it
breaks the code on purpose and shows that they notice.  Ranks are threads (`loopback`).
"""

from functools import cache

import tiny
from loopback import spawn

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.partition.stages import Sharded, Whole
from refimpl.methods.protocol import Setting
from refimpl.methods.strategies import Methods
from refimpl.nn import Layout
from refimpl.world.ledger import LINKS, Count
from refimpl.world.topology import Grid, Nodes


@cache
def serial(**options):
    """Return what one rank ends with that computes all micro-batches of every step."""
    return spawn((0,), lambda comm: tiny.trained(comm, **options))[0]


def everywhere(n, ranks_per_node=None, **options):
    """Return what each of n ranks ends with; options as `tiny.trained`."""
    nodes = Nodes.of(n, ranks_per_node).node
    return spawn(nodes, lambda comm: tiny.trained(comm, **options))


def serials_bits(want, n, ranks_per_node=None, **options):
    """Every rank ends with the digest ``want``, that of a run on one rank."""
    got = everywhere(n, ranks_per_node, **options)
    assert [rank.digest for rank in got] == [want] * n, (n, ranks_per_node, options)


def replicas_equal(n, ranks_per_node=None, **options):
    """After every step every rank has the same shard as the others of its column, to the bit."""

    def body(comm):
        shards = []
        trained = tiny.trained(comm, after=lambda r: shards.append(own_bits(r)), **options)
        return trained.replica.groups.grid, shards

    ranks = spawn(Nodes.of(n, ranks_per_node).node, body)
    for rank, (grid, shards) in enumerate(ranks):
        first = grid.replication_group(rank)[0]
        for step, bits in enumerate(shards):
            assert bits == ranks[first][1][step], (rank, first, step, options)


def own_bits(replica):
    return b"".join(piece.tobytes() for piece in replica.partition.pieces)


def sends_the_formula(
    n,
    ranks_per_node=None,
    *,
    partition=1,
    stage=0,
    algorithm="ring",
    exact=True,
    every_microstep=False,
    microsteps=2,
    steps=2,
    **options,
):
    """The ledgers of all ranks add up to `traffic.step_calls` times the steps, per link."""
    nodes = Nodes.of(n, ranks_per_node)

    def body(comm):
        books = []
        tiny.trained(
            comm,
            partition=partition,
            stage=stage,
            algorithm=algorithm,
            exact=exact,
            every_microstep=every_microstep,
            micro_batches=n * microsteps,
            steps=steps,
            after=lambda _: books.append(comm.ledger.by_purpose()),
            **options,
        )
        return books

    ranks = spawn(nodes.node, body)
    setting = Setting(
        Grid(1, n // partition, partition),
        nodes,
        Layout(tiny.network().units, partition),
        collectives.get(getattr(algorithm, "name", algorithm)),
        microsteps=microsteps,
        exact=exact,
        every_microstep=every_microstep,
    )
    methods = Methods(Sharded(stage) if stage else Whole(), Exact(every_microstep=every_microstep))
    want = traffic.sent(traffic.step_calls(methods, setting))
    for purpose in ("parameters", "gradients"):
        want.setdefault(purpose, dict.fromkeys(LINKS, Count()))
    for step in range(steps):
        for purpose, links in want.items():
            for link, count in links.items():
                sent = sum(
                    (books[step][purpose][link] for books in ranks if purpose in books[step]),
                    Count(),
                )
                times = step + 1  # ledgers go on counting
                formula = Count(times * count.messages, times * count.bytes)
                assert sent == formula, (step, purpose, link, n, partition, stage, options)
