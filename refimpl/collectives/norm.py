"""The norm of a vector whose shards lie on the ranks of a group; `refimpl.numerics.norm`."""

from __future__ import annotations

import numpy as np

from refimpl.collectives import small
from refimpl.collectives.cost import Cost
from refimpl.numerics import norm
from refimpl.world.communicator import Communicator

PURPOSE = "norm"


class GlobalNorm:
    """Work space for a norm; ``exact`` chooses the form that does not depend on the cut."""

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact
        self._scratch = np.zeros(norm.STRIP)
        self._integers = np.zeros(norm.STRIP if exact else 0, np.int64)

    def __call__(self, comm: Communicator, shard: np.ndarray) -> float:
        """Return the norm over all shards, the same float on all ranks of ``comm``.  Collective.

        Each rank's part goes to all, one float64; when exact its peak first, and then the two
        words of its sum.  `cost` gives it exactly.
        """
        if not self.exact:
            part = norm.square_sum(shard, self._scratch)
            return norm.float_norm(small.gathered(comm, [part], PURPOSE)[:, 0].tolist())
        top = float(small.gathered(comm, [norm.peak(shard)], PURPOSE).max())
        words = norm.exact_squares(shard, top, self._scratch, self._integers)
        return norm.exact_norm(small.gathered(comm, words, PURPOSE).sum(axis=0), top)


def cost(nodes: tuple[int, ...], exact: bool = False) -> Cost:
    """Return the cost of one norm over shards on ranks that lie on these nodes.

    >>> cost((0, 0)).sent_by(0)["intra"], cost((0, 0), exact=True).sent_by(0)["intra"]
    (Count(messages=1, bytes=8), Count(messages=2, bytes=24))
    """
    rows = (1, 2) if exact else (1,)
    return Cost([step for m in rows for step in small.cost(m, nodes).steps], nodes, itemsize=8)
