"""Every family that is registered does what it states: sums, copies, messages, refusals.

The tests know no family.  They ask the registry which there are, `has` for their operations,
`refuses` for the nodes they run on, `orders` for the sum and `cost` for the messages; so they are
the tests of the next family, too (tests/collectives/test_toy_family.py).

Ranks are threads here (`loopback`), so that many world sizes, lengths and nodes can be tried.
Inputs are a function of (seed, rank), and expected results are computed from them alone.
"""

import re
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from families import addend, anything, run, stated_sum, uneven
from listeners import Heard
from loopback import spawn

from refimpl import collectives
from refimpl.collectives import Auto, chunks
from refimpl.collectives.chunks import Call
from refimpl.collectives.families import EXPLICIT
from refimpl.collectives.interface import ROOTED
from refimpl.support.errors import UserError
from refimpl.world import threads

FAMILIES = {family.name: family for family in (*EXPLICIT, Auto())}
WORLDS = (1, 2, 3, 4, 6, 7, 8)
SUMS = ("reduce_scatter", "allreduce", "reduce")
COPIES = ("allgather", "broadcast", "alltoall")
CUT = ("allgather", "reduce_scatter", "alltoall")


def placements(p):
    """Nodes of k ranks each, neighbours or not; then nodes of unequal size."""
    for k in (k for k in range(p, 0, -1) if p % k == 0):
        yield tuple(rank // k for rank in range(p))
        if 1 < k < p:
            yield tuple(-rank % (p // k) for rank in range(p))
    if p > 2:
        yield (0,) * (p - 1) + (1,)
    if p > 4:
        yield (1, 0, 0, 1, 2) + (2,) * (p - 5)


def fit(name, operation, p):
    """The nodes on which a family can do it."""
    return [nodes for nodes in placements(p) if not FAMILIES[name].refuses(operation, nodes)]


def calls(operation, p, first):
    """Yield (n, dtype, root, offsets) to try; most of them on the first nodes."""
    narrow, *others = ("f4", "f8", "i8") if operation in SUMS else ("u1", "f2", "i4,f8")
    sizes = {(n, narrow) for n in ((0, 1, p - 1, p, p + 1, 101) if first else (p + 1, 101))}
    if first:
        sizes |= {(101, dtype) for dtype in others} | ({(10_007, narrow)} if p == 3 else set())
    for n, dtype in sorted(sizes):
        for root in sorted({0, p // 2, p - 1}) if operation in ROOTED else [0]:
            yield n, dtype, root, None
        if operation in CUT:
            yield n, dtype, 0, uneven(n, p)


@cache
def cost_of(name, operation, *call):
    return FAMILIES[name].cost(operation, *call)


class Outcome(NamedTuple):
    """One call: what was asked, what every rank had, and what it has and has sent afterwards."""

    nodes: tuple
    root: int
    offsets: Any
    before: list
    after: list  # a chunk of x, of a reduce-scatter; what came, of an all-to-all
    in_place: bool
    totals: list
    sent: list  # (receiver, bytes) of every message, in order

    def cost(self, name, operation):
        """Ask the family what it sends."""
        x, cut = self.before[0], self.offsets
        cut = cut if cut is None else tuple(map(int, cut))
        return cost_of(name, operation, x.size, self.nodes, x.itemsize, self.root, cut)

    def orders(self, name, operation):
        """Ask the family how it adds."""
        x = self.before[0]
        call = Call.of(x.size, self.nodes, self.root, self.offsets)
        return FAMILIES[name].orders(operation, call, x.itemsize)


@cache
def outcomes(name, operation, p):
    """Run an operation in many ways."""
    family, done = FAMILIES[name], []

    def body(comm):
        results = []
        for vectors, root, offsets in tried:
            x = vectors[comm.rank].copy()
            comm.ledger.clear()
            with comm.events.listen(sent := Heard("send")):
                got = run(family, operation, comm, x, root, offsets)
            own = chunks.slices(x, p, offsets)[comm.rank]
            there = x[own] if operation == "reduce_scatter" else x
            in_place = got is x or got.base is x
            results.append((got.copy(), in_place and there.tobytes() == got.tobytes()))
            messages = [(event.peer, event.nbytes) for event in sent.begun]
            results[-1] += comm.ledger.totals(), messages
        return results

    for number, nodes in enumerate(fit(name, operation, p)):
        make = addend if operation in SUMS else anything
        tried = [
            ([make(rank, n, np.dtype(dtype)) for rank in range(p)], root, offsets)
            for n, dtype, root, offsets in calls(operation, p, number == 0)
        ]
        by_call = zip(*spawn(nodes, body), strict=True)
        for (vectors, root, offsets), ranks in zip(tried, by_call, strict=True):
            after, in_place, *sent = (list(column) for column in zip(*ranks, strict=True))
            done.append(Outcome(nodes, root, offsets, vectors, after, all(in_place), *sent))
    return done


def each(operations=collectives.OPERATIONS):
    """Parametrize by every family, every operation of these that it has, and p."""
    return pytest.mark.parametrize(
        "name, operation, p",
        [
            (name, operation, p)
            for name, family in FAMILIES.items()
            for operation in filter(family.has, operations)
            for p in WORLDS
        ],
    )


# ------------------------------------------------------------------------------------ results


def ranks_in(order):
    return [order] if isinstance(order, int) else [*ranks_in(order[0]), *ranks_in(order[1])]


@each(SUMS)
def test_stated_orders_add_every_rank_once_everywhere(name, operation, p):
    for call in outcomes(name, operation, p):
        covered = []
        for part, order in call.orders(name, operation):
            assert sorted(ranks_in(order)) == list(range(p))
            covered += range(part.start, part.stop)
        assert covered == list(range(call.before[0].size))


@each(SUMS)
def test_a_sum_is_the_stated_one_to_the_last_bit(name, operation, p):
    for call in outcomes(name, operation, p):
        want = stated_sum(call.orders(name, operation), call.before)
        assert want.dtype != np.int64 or np.array_equal(want, np.sum(call.before, axis=0))
        own = chunks.slices(want, p, call.offsets)
        for rank in [call.root] if operation == "reduce" else range(p):
            wanted = want[own[rank]] if operation == "reduce_scatter" else want
            np.testing.assert_array_equal(call.after[rank], wanted, strict=True)


@each(COPIES)
def test_copies_are_those_of_the_owners_or_the_root(name, operation, p):
    for call in outcomes(name, operation, p):
        want = call.before[call.root].copy()
        cut = chunks.slices(want, p, call.offsets)
        if operation == "allgather":
            for rank, own in enumerate(cut):
                want[own] = call.before[rank][own]
        wanted = [want] * p
        if operation == "alltoall":
            wanted = [np.stack([x[own] for x in call.before]) for own in cut]
        for got, want in zip(call.after, wanted, strict=True):
            assert (got.shape, got.tobytes()) == (want.shape, want.tobytes())


@each([*SUMS, "allgather", "broadcast"])
def test_results_stand_in_the_callers_array(name, operation, p):
    assert all(call.in_place for call in outcomes(name, operation, p))


# ----------------------------------------------------------------------------------- messages


@each()
def test_ledger_equals_the_cost_exactly(name, operation, p):
    for call in outcomes(name, operation, p):
        cost = call.cost(name, operation)
        assert call.totals == [cost.sent_by(rank) for rank in range(p)]


@each()
def test_messages_leave_in_the_stated_steps(name, operation, p):
    for call in outcomes(name, operation, p):
        itemsize, left = call.before[0].itemsize, [list(messages) for messages in call.sent]
        for step in call.cost(name, operation).steps:
            for _ in range(step.times):
                for rank in range(p):
                    mine = step.source == rank
                    stated = zip(step.dest[mine], step.elements[mine] * itemsize, strict=True)
                    number = int(mine.sum())
                    assert sorted(left[rank][:number]) == sorted(stated)
                    del left[rank][:number]
        assert left == [[]] * p


@each()
def test_stated_steps_add_every_addend_once_or_once_on_every_rank(name, operation, p):
    for call in outcomes(name, operation, p):
        steps = call.cost(name, operation).steps
        added = sum(step.times * int((step.elements * step.adds).sum()) for step in steps)
        once = call.before[0].size * (p - 1) if operation in SUMS else 0
        # Doubling, each rank adds lg p partial sums; before it, every surplus rank's is added.
        doubling = 1 << (p.bit_length() - 1)
        everywhere = doubling * (p.bit_length() - 1) + p - doubling
        assert added == once or added == call.before[0].size * everywhere


@each()
def test_total_is_the_sum_over_ranks_and_what_enters_the_nodes(name, operation, p):
    for call in outcomes(name, operation, p):
        cost = call.cost(name, operation)
        for link, total in cost.total().items():
            assert sum(totals[link].bytes for totals in call.totals) == total.bytes
            assert sum(totals[link].messages for totals in call.totals) == total.messages
        entering = sum(cost.entering(node).bytes for node in set(call.nodes))
        assert entering == cost.total()["inter"].bytes


@each()
def test_a_call_again_takes_no_new_scratch(name, operation, p):
    def body(comm):
        x = np.zeros(101, np.float32)
        places = []
        for _ in range(2):
            run(FAMILIES[name], operation, comm, x)
            slots = [comm._slots, *(level._slots for level in comm._levels or ())]
            places.append([{slot: id(memory) for slot, memory in s.items()} for s in slots])
        assert places[0] == places[1]

    spawn(fit(name, operation, p)[-1], body)


@each()
def test_whatever_is_started_is_waited_for(name, operation, p, monkeypatch):
    made = []

    class Noting(threads.Request):
        def __init__(self, action):
            made.append(self)
            self.waited, self.action = False, action

        def Wait(self):
            self.waited = True
            self.action()

    monkeypatch.setattr(threads, "Request", Noting)
    nodes = fit(name, operation, p)[-1]
    spawn(nodes, lambda comm: run(FAMILIES[name], operation, comm, np.zeros(101, np.float32)))
    assert all(request.waited for request in made)


@each()
def test_a_call_is_told_once_around_its_messages(name, operation, p):
    def body(comm):
        x = np.zeros(101, np.float32)
        comm.levels()  # made beforehand, as it is once
        with comm.events.listen(heard := Heard("collective", "send", "receive", "wait")):
            run(FAMILIES[name], operation, comm, x)
        (begin, first), *between, (end, last) = heard.log
        assert (begin, end) == ("begin", "end") and first is last
        chosen = FAMILIES[name].family(operation, 101, comm.nodes).name
        assert first[:2] == ("collective", f"{chosen}.{operation}")
        assert first.nbytes == x.nbytes and first.value is x
        assert not [event for _, event in between if event.kind == "collective"]

    spawn(fit(name, operation, p)[-1], body)


# ------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("p", WORLDS)
@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_family_refuses_is_refused_on_all_ranks_before_any_message(name, p):
    family = FAMILIES[name]

    def body(comm):
        for operation in refused:
            with pytest.raises(UserError) as error:
                run(family, operation, comm, np.zeros(10))
            assert str(error.value) == family.refuses(operation, comm.nodes)
        assert comm.ledger.counts == {}

    for nodes in placements(p):
        refused = [o for o in collectives.OPERATIONS if family.refuses(o, nodes) is not None]
        for operation in refused:
            with pytest.raises(UserError) as error:
                family.cost(operation, 10, nodes)
            with pytest.raises(UserError, match=re.escape(str(error.value))):
                family.orders(operation, Call.of(10, nodes))
            assert str(error.value) == family.refuses(operation, nodes)
        if refused:
            spawn(nodes, body)


def test_names_are_those_of_the_families_and_get_finds_each():
    assert (*(family.name for family in EXPLICIT), "native", "auto") == collectives.NAMES
    assert len(set(collectives.NAMES)) == len(collectives.NAMES)
    assert [collectives.get(name).name for name in collectives.NAMES] == [*collectives.NAMES]
    with pytest.raises(UserError, match="no collectives 'rign': choose one of auto, bruck, chain"):
        collectives.get("rign")
