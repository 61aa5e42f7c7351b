"""The printed schedules are those of the loops, and the docstrings and docs show them."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from listeners import Heard
from loopback import spawn

from refimpl.collectives import (
    bruck,
    chain,
    chunks,
    explain,
    explain_hierarchical,
    explain_steps,
    halving_doubling,
    hierarchical,
    pairwise,
    ring,
    scatter_allgather,
)
from refimpl.collectives.moves import heard
from refimpl.support.errors import UserError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "collectives.md"


def sent_by_everybody(algorithm, p):
    """Run on p ranks with chunks of 1, 2, 4, 8, ... elements: the length of a message names them.

    Returns, per rank, the list of (destination, chunks) in the order in which they were sent.
    """
    offsets = [0, *np.cumsum(1 << np.arange(p)).tolist()]

    def body(comm):
        heard = Heard("send")
        with comm.events.listen(heard):
            algorithm(comm, np.zeros(offsets[-1], np.uint8), offsets)
        return [(e.peer, [b for b in range(p) if e.nbytes >> b & 1]) for e in heard.begun]

    return spawn((0,) * p, body)


def rows(table):
    """Return the cells of a table, without its head and labels."""
    below = [part.splitlines()[1:] for part in table.split("\n\n")]  # columns that had no room
    return [[c for part in parts for c in part.split()[1:]] for parts in zip(*below, strict=True)]


@pytest.mark.parametrize("p", range(2, 8))
@pytest.mark.parametrize(
    "algorithm, operation",
    [(ring.allgather, "allgather"), (ring.reduce_scatter, "reduce_scatter")],
)
def test_ring_table_is_what_is_sent(algorithm, operation, p):
    sent = sent_by_everybody(algorithm, p)
    table = rows(explain.ring_table(heard("ring", operation, p)))
    for rank in range(p):
        want = [((rank + 1) % p, [int(row[rank])]) for row in table]
        assert sent[rank] == want


def read_arrow(cell):
    """Turn ``0-2->r3,r4`` into the messages [(3, [0, 1, 2]), (4, [0, 1, 2])]."""
    if cell == "-":
        return []
    run, to = cell.split("->")
    found = []
    for part in run.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    found.sort()
    return [(int(rank[1:]), found) for rank in to.split(",")]


@pytest.mark.parametrize("p", range(2, 10))
@pytest.mark.parametrize(
    "algorithm, operation",
    [
        (halving_doubling.reduce_scatter, "reduce_scatter"),
        (halving_doubling.allgather, "allgather"),
    ],
)
def test_halving_and_doubling_tables_are_what_is_sent(algorithm, operation, p):
    sent = sent_by_everybody(algorithm, p)
    table = explain.halving_table(heard("halving-doubling", operation, p))
    for rank in range(p):
        want = [message for row in rows(table) for message in read_arrow(row[rank])]
        assert sent[rank] == want


@pytest.mark.parametrize("p", range(2, 10))
def test_brucks_table_is_what_is_sent(p):
    sent, table = sent_by_everybody(bruck.allgather, p), rows(explain_steps.bruck_table(p))
    for rank in range(p):
        assert sent[rank] == [message for row in table for message in read_arrow(row[rank])]


@pytest.mark.parametrize("p", range(2, 8))
def test_pairwise_table_is_what_is_sent(p):
    sent = sent_by_everybody(pairwise.alltoall, p)
    for rank, row in enumerate(zip(*rows(explain_steps.pairwise_table(p)), strict=True)):
        assert sent[rank] == [(int(to), [int(to)]) for to in row]


@pytest.mark.parametrize("p", range(2, 8))
def test_scatter_table_is_what_is_sent_before_the_ring(p, monkeypatch):
    monkeypatch.setattr(chunks, "offsets", lambda n, p: np.cumsum([0, *(1 << np.arange(p))]))
    sent = sent_by_everybody(lambda comm, x, offsets: scatter_allgather.broadcast(comm, x), p)
    for rank, row in enumerate(zip(*rows(explain_steps.scatter_table(p)), strict=True)):
        stated = [m for cell in row for m in read_arrow(cell.replace("v", "r"))]
        around = [((rank + 1) % p, [ring.gathered(p, rank, step)]) for step in range(p - 1)]
        assert sent[rank] == stated + around


@pytest.mark.parametrize("p", range(2, 6))
def test_chain_table_is_what_is_sent(p, monkeypatch):
    monkeypatch.setattr(chain, "segments", lambda n: np.array([0, 1, 3, 7]))

    def body(comm):
        with comm.events.listen(heard := Heard("send")):
            chain.broadcast(comm, np.zeros(7, np.uint8))
        return [(e.peer, e.nbytes.bit_length() - 1) for e in heard.begun]

    links = [line[6:] for line in explain_steps.chain_table(p, 3).splitlines()]
    for rank, sent in enumerate(spawn((0,) * p, body)):
        last = rank == p - 1
        column = [] if last else [line[6 * rank :][:5].strip() for line in links[1:]]
        assert sent == [(rank + 1, int(cell)) for cell in column if cell]


@pytest.mark.parametrize("p, k", [(4, 2), (6, 2), (6, 3), (8, 4), (3, 3), (3, 1)])
def test_stages_of_the_hierarchical_allgather_end_with_everything_everywhere(p, k):
    *_, reordered, within = rows_of_stages(explain_hierarchical.stages(p, k), p)
    assert within == [[str(b) for b in range(p)]] * p
    for rank, held in enumerate(reordered):
        assert held == [str(b) if b % k == rank % k else "." for b in range(p)]


def rows_of_stages(text, p):
    """Return, for every stage and rank, the p marks of its cell."""
    below = [part.splitlines()[1:] for part in text.split("\n\n")]  # columns that had no room
    lines = ["".join(parts) for parts in zip(*below, strict=True)]
    cells = [re.findall(r"\[[^]]*\]|[.\d]+", re.sub(r"\d [a-z]+|-order", "", s)) for s in lines]
    return [
        [row[rank * p : (rank + 1) * p] for rank in range(p)]
        for row in cells
        if not row[0].startswith("[")
    ]


def test_naive_order_is_shown_as_wrong():
    text = explain.explain("hierarchical-allgather", 6, 3)
    assert "0 3 1 4 2 5   <- the wrong order" in text
    assert "wrong" not in explain.explain("hierarchical-allgather", 6, 6)


def naive_allgather(comm, x):
    """Hierarchical all-gather without the re-ordering: the runs of stage 1 laid end to end."""
    within, across = comm.levels()
    run = x.size // within.size
    own = x[chunks.slices(x, comm.size)[comm.rank]].copy()
    part = x[within.rank * run : (within.rank + 1) * run]
    part[chunks.slices(part, across.size)[across.rank]] = own
    ring.allgather(across, part)
    ring.allgather(within, x)


@pytest.mark.parametrize("p, k", [(4, 2), (6, 2), (6, 3)])
def test_wrong_order_is_what_the_naive_version_really_gives(p, k):
    def body(comm):
        x = np.full(p, -1)
        x[comm.rank] = comm.rank
        naive_allgather(comm, x)
        return " ".join(map(str, x))

    for got in spawn(tuple(rank // k for rank in range(p)), body):
        assert f"    {got}   <- the wrong order" in explain.explain("hierarchical-allgather", p, k)


@pytest.mark.parametrize(
    "function, table",
    [
        (ring.allgather, explain.ring_table(heard("ring", "allgather", 4))),
        (ring.reduce_scatter, explain.ring_table(heard("ring", "reduce_scatter", 4))),
        (
            halving_doubling.reduce_scatter,
            explain.halving_table(heard("halving-doubling", "reduce_scatter", 4)),
        ),
        (
            halving_doubling.allgather,
            explain.halving_table(heard("halving-doubling", "allgather", 4)),
        ),
        (bruck.allgather, explain_steps.bruck_table(4)),
        (scatter_allgather.broadcast, explain_steps.scatter_table(4)),
        (chain, explain_steps.chain_table(4, 3)),
        (pairwise.alltoall, explain_steps.pairwise_table(4)),
        (hierarchical.allgather, explain_hierarchical.stages(4, 2)),
        (hierarchical.reduce_scatter, explain_hierarchical.mirror(4, 2)),
    ],
)
def test_docstring_shows_the_table_that_explain_prints(function, table):
    shown = inspect.getdoc(function)
    for line in table.splitlines():
        assert line.split() in [shown_line.split() for shown_line in shown.splitlines()], line


def test_every_name_explains_itself_at_every_size():
    for name in explain.NAMES:
        for p in (1, 2, 3, 4, 6, 9, explain.MOST):
            k = (2 if p % 2 == 0 else 1) if name.startswith("hierarchical") else None
            text = explain.explain(name, p, k)
            assert name.split("-")[0] in text
            assert max(map(len, text.splitlines())) <= 100, (name, p)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("rang", 4), "nothing to explain under 'rang': choose one of bruck, chain, halv"),
        (("ring", 0), "cannot draw 0 ranks: give -p from 1 to 16"),
        (("ring", 17), "cannot draw 17 ranks"),
        (("ring", 4, 2), "ring does not depend on nodes: leave -k 2 out"),
        (("hierarchical-allgather", 4), "needs -k, the ranks of a node"),
        (("hierarchical-allgather", 4, 8), "4 ranks fill no node of -k 8: give at most 4"),
        (("hierarchical-allgather", 5, 2), "the nodes hold 2, 2, 1"),
        (("hierarchical-allreduce", 4, 0), "a node holds at least one"),
    ],
)
def test_what_cannot_be_explained_is_refused(arguments, words):
    with pytest.raises(UserError, match=re.escape(words)):
        explain.explain(*arguments)


def test_pictures_in_the_docs_are_those_that_explain_prints():
    fences = re.findall(
        r"^```text refimpl explain (\S+) -p (\d+)(?: -k (\d+))?\n(.*?)^```",
        PAGE.read_text(),
        re.M | re.S,
    )
    assert len(fences) >= 8
    for name, p, k, shown in fences:
        assert shown.rstrip() == explain.explain(name, int(p), int(k) if k else None), name


def test_quoted_lines_of_code_stand_in_their_file_in_this_order():
    quotes = re.findall(r"^```python (\S+)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert quotes
    for path, shown in quotes:
        assert shown in (PAGE.parents[1] / path).read_text(), path
