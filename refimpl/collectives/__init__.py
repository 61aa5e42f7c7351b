"""Collectives, every message written out, and MPI's own beside them.

p ranks cut n values (P in the book) into p chunks.  Per rank, where p, N and k are powers of two
and divide n; each file says what holds otherwise, and `Collectives.cost` gives it exactly for
every case.

    name              operation       steps          elements sent    order of summation, p = 4
    ring              allgather       p - 1          n (p-1)/p
                      reduce_scatter  p - 1          n (p-1)/p        chunk 0: 1 + 2 + 3 + 0
                      allreduce       2 (p - 1)      2 n (p-1)/p      chunk 0: 1 + 2 + 3 + 0
    halving-doubling  allgather       lg p           n (p-1)/p
                      reduce_scatter  lg p           n (p-1)/p        chunk 0: (0 + 2) + (1 + 3)
                      allreduce       2 lg p         2 n (p-1)/p      chunk 0: (0 + 2) + (1 + 3)
    tree              broadcast       lg p           n per child
                      reduce          lg p           n (root: 0)      (0 + 1) + (2 + 3)
                      allreduce       2 lg p         up to n lg p     (0 + 1) + (2 + 3)
    hierarchical      allgather       N + k - 2      n (p-1)/p        (N nodes of k ranks)
                      reduce_scatter  N + k - 2      n (p-1)/p        chunk 0: (3 + 2) + (1 + 0)
                      allreduce       2 (N + k - 2)  2 n (p-1)/p      chunk 0: (3 + 2) + (1 + 0)
                      broadcast       lg N + lg k    n per child
                      reduce          lg N + lg k    n (root: 0)      (0 + 1) + (2 + 3)
    recursive-doubling
                      allreduce       lg p           n lg p           (0 + 1) + (2 + 3)
    bruck             allgather       lg p           n (p-1)/p
    scatter-allgather broadcast       lg p + p - 1   2 n (p-1)/p at most
    chain             broadcast       m + p - 2      n in m segments
    pairwise          alltoall        p - 1          n (p-1)/p
    native            all             MPI's affair   not counted      not documented
    auto              all             picks one of the explicit ones by size, ranks and nodes

One message per step, except in the all-gather and reduce-scatter of ``hierarchical``, whose k - 1
steps inside the node have one message for each of the N nodes.  ``ring``,
``halving-doubling`` and ``recursive-doubling`` broadcast and reduce along the tree.  What a family
does not have it refuses.  A message of no elements is sent and counted like any other.

    file                  what is in it
    chunks.py             how n elements are cut into chunks; what a call is
    order.py              orders of summation as data
    cost.py               messages, bytes and time of a schedule
    interface.py          what every family offers, and where a call begins
    ring.py  halving_doubling.py  tree.py  hierarchical.py  hierarchical_steps.py  native.py
    recursive_doubling.py  bruck.py  scatter_allgather.py  chain.py  pairwise.py
    families.py  auto.py  the families, and the one that picks among them
    small.py  norm.py     a few numbers of every rank, on all ranks; the norm over shards
    explain.py            schedules as text, from the index functions of the loops
    text.py  explain_hierarchical.py  explain_steps.py        (its parts)

>>> get("ring").cost("allreduce", n=1000, nodes=(0, 0, 1, 1)).total()["inter"]
Count(messages=12, bytes=12000)
"""

from __future__ import annotations

from refimpl.collectives.auto import ASSUMED, Auto
from refimpl.collectives.cost import Links
from refimpl.collectives.families import EXPLICIT, NATIVE
from refimpl.collectives.interface import OPERATIONS, Collectives
from refimpl.support.errors import UserError, listed

__all__ = ["NAMES", "OPERATIONS", "Auto", "Collectives", "get"]

NAMES = (*(family.name for family in EXPLICIT), NATIVE.name, Auto.name)


def get(name: str, links: Links = ASSUMED) -> Collectives:
    """Return the family of this name; ``auto`` chooses by these links.

    Raises `UserError` if there is none; the message lists those that there are.
    """
    for family in (*EXPLICIT, NATIVE, Auto(links)):
        if family.name == name:
            return family
    raise UserError(f"no collectives {name!r}: choose one of {listed(NAMES)}")
