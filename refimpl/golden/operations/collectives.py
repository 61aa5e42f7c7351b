"""What all ranks of a collective are given and have in the end, and in which order they add."""

from __future__ import annotations

from refimpl.golden.operations.declared import Operation, Setting, Values, detail, given, out

CHUNKS = """
chunk c of n values on p ranks: floor(n / p) values, and one more if c < n mod p;
chunks lie end to end, chunk r is that of rank r, and some are empty if n < p (then no case has
details)
"""

ORDERS = """
order of summation of chunk c, where sums are rounded; (a, b) is a + b, taken from inside out:
  ring                c + 1, c + 2, ..., c, round the ring: p = 4, c = 1: (((2, 3), 0), 1)
  halving-doubling    a range [lo, hi) of ranks is cut at mid = floor((lo + hi + 1) / 2), again
                      and again, down to one rank; at each cut rank lo + i and mid + i are
                      partners, each adds to its own sum what its partner has of the chunks
                      on its side; if hi - lo is odd, mid - 1 has no partner, and rank hi - 1
                      adds its sum too, after that of its own partner: p = 4, c = 0:
                      ((0, 2), (1, 3)); p = 3, c = 2: ((2, 0), 1)
  tree                of the whole vector, with v = (rank - root) mod p: v adds the sums of
                      v + 1, v + 2, v + 4, ..., as far as they are below p and below v + the
                      lowest one bit of v (v = 0: no limit), in this order: ((0, 1), (2, 3))
  recursive-doubling  of the whole vector; q the largest power of two <= p: of the first
                      2 (p - q) ranks each odd one adds that before it to its own; then
                      pairs of what is left, pairs of pairs, ...: p = 3: ((0, 1), 2)
  hierarchical        of N nodes with k ranks each, place (i, j) is local rank j of node i
                      (nodes in the order of their numbers, ranks rising): inside each node
                      round the ring to j, (j + 1) mod k first; then these sums round the ring
                      of nodes to i, node (i + 1) mod N first: 2 x 2, place (0, 0):
                      ((3, 2), (1, 0))
"""

REDUCE = """
result = the sum over ranks, in the order of
  tree                as for the sum over a tree with this root: v = (rank - root) mod p adds
                      the sums of v + 1, v + 2, v + 4, ..., below p and below v + v's lowest
                      one bit: p = 4, root 0: ((0, 1), (2, 3))
  hierarchical        the root is local rank j of node i: in each node such a tree of its
                      ranks to its local rank j; then such a tree of these sums to node i:
                      2 x 2, root 3: ((3, 2), (1, 0))
"""

NODES = Setting(
    "nodes",
    {"type": "array", "items": {"type": "integer"}},
    "on which node each rank lies; numbers need not rise with the rank",
)
RANKS = Setting("ranks", "integer", "p")
FAMILY = Setting(
    "algorithm",
    {
        "enum": [
            "ring",
            "halving-doubling",
            "tree",
            "hierarchical",
            "recursive-doubling",
            "bruck",
            "scatter-allgather",
            "chain",
            "pairwise",
        ]
    },
    "who sends what to whom: `refimpl explain`, docs/collectives.md",
)
ROOT = Setting("root", "integer", "the rank that has it, or gets it")

SENT = (
    detail("sent_to", "<i8", "rank message", "receivers of a rank's messages; -1: no message"),
    detail("sent_size", "<i8", "rank message", "how many values each message has"),
    detail("sent", "<f4", "rank message element", "the messages, in the order of sending"),
)
HELD = detail(
    "held", "<f4", "rank step element", "of the chunk that came: what the rank has after the step"
)
SCRATCH = detail("gathered", "<f4", "rank element", "hierarchical: the run of chunks in scratch")


def _x(meaning: str) -> Values:
    return given("x", "<f4", "rank element", meaning)


def _result(meaning: str, axes: str = "rank element") -> Values:
    return out("result", "<f4", axes, meaning)


OPERATIONS = (
    Operation(
        "allgather",
        "Every rank has all chunks.",
        CHUNKS + "result[r] = chunk 0 of x[0], chunk 1 of x[1], ..., chunk p - 1 of x[p - 1]",
        (
            _x("what each rank has; only its own chunk counts"),
            _result("all chunks, on every rank"),
            *SENT,
            SCRATCH,
            detail(
                "reordered", "<f4", "rank element", "hierarchical: after stage 2, others' chunks 0"
            ),
            HELD,
        ),
        (FAMILY, RANKS, NODES),
    ),
    Operation(
        "reduce_scatter",
        "Every rank has its chunk of the sum over ranks.",
        CHUNKS + "result[r] = chunk r of the sum over q of x[q]\n" + ORDERS,
        (
            _x("the addend of each rank"),
            _result("each rank's chunk, filled up with zeros to the longest one"),
            *SENT,
            SCRATCH,
            detail(
                "node_sums", "<f4", "rank element", "hierarchical: sums over the node, others' 0"
            ),
            HELD,
        ),
        (FAMILY, RANKS, NODES),
    ),
    Operation(
        "allreduce",
        "Every rank has the sum over ranks.",
        """
result[r] = the sum over q of x[q]
ring, halving-doubling: chunk by chunk as in reduce_scatter; tree: as reduce to rank 0;
hierarchical: the vector is cut into k chunks, one per local index j, each of these into N
chunks, one per node i; chunk i of chunk j is added in the order of place (i, j)
"""
        + CHUNKS
        + ORDERS,
        (_x("the addend of each rank"), _result("the sum, equal on all ranks"), *SENT, HELD),
        (FAMILY, RANKS, NODES),
    ),
    Operation(
        "broadcast",
        "Every rank has the root's vector.",
        "result[r] = x[root]",
        (_x("only the root's counts"), _result("the root's, on every rank"), *SENT),
        (FAMILY, RANKS, NODES, ROOT),
    ),
    Operation(
        "reduce",
        "The root has the sum over ranks.",
        REDUCE,
        (_x("the addend of each rank"), _result("the sum, on the root", "element"), *SENT),
        (FAMILY, RANKS, NODES, ROOT),
    ),
    Operation(
        "alltoall",
        "Every rank has what all ranks have for it.",
        CHUNKS + "result[r] = chunk r of x[0], chunk r of x[1], ..., chunk r of x[p - 1]",
        (
            _x("chunk c of it is for rank c"),
            _result("end to end, filled up with zeros to the longest"),
            *SENT,
        ),
        (FAMILY, RANKS, NODES),
    ),
)
