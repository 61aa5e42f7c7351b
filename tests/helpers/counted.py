"""What ranks that are threads return, and what they have sent."""

from loopback import spawn

from refimpl.world.topology import Nodes

WORLDS = [(p, k) for p in (1, 2, 3, 4, 6) for k in (1, 2, p)]


def counted(p, k, body):
    """Return what body(comm) does on each of p ranks on nodes of k, its totals and purposes."""

    def counting(comm):
        returned = body(comm)
        return returned, comm.ledger.totals(), {purpose for purpose, _ in comm.ledger.counts}

    return spawn(Nodes.of(p, k).node, counting)
