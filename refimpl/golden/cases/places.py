"""Where each bundle stands in the ladder: a number that is never given to another one.

Places rise inside a rung, and that is all they mean; they leave gaps.  So a new strategy, a new
family of collectives, or cases of another kind get a line here, and no other bundle changes by it:
bundles that came after the first ones are counted by the hundreds of their rung.
"""

from __future__ import annotations

# fmt: off
PLACES = {
    "collectives.ring": 1,
    "collectives.halving-doubling": 2,
    "collectives.tree": 3,
    "collectives.hierarchical": 4,
    "collectives.recursive-doubling": 100,
    "collectives.bruck": 101,
    "collectives.scatter-allgather": 102,
    "collectives.chain": 103,
    "collectives.pairwise": 104,
    "compression.gtc": 5,
    "compression.onebit": 6,
    "compression.topk": 200,
    "blocks.bmuf": 7,
    "blocks.diloco": 300,
    "layers": 8,
    "optimizers": 9,
    "acoustic": 10,
    "one-step.network": 11,
    "one-step.serial": 12,
    "one-step.ddp": 13,
    "one-step.zero1": 14,
    "one-step.zero2": 15,
    "one-step.zero3": 16,
    "one-step.mics": 17,
    "one-step.gtc": 18,
    "one-step.onebit": 19,
    "one-step.bmuf": 20,
    "one-step.gtc-bmuf": 21,
    "one-step.mics-gtc": 22,
    "one-step.mics-bmuf": 23,
    "one-step.mics-gtc-bmuf": 24,
    "one-step.topk": 700,
    "one-step.topk-bmuf": 701,
    "one-step.mics-topk": 702,
    "one-step.mics-topk-bmuf": 703,
    "one-step.diloco": 704,
    "one-step.mics-diloco": 705,
    "one-step.local-sgd": 706,
    "ten-steps.network": 25,
    "ten-steps.serial": 26,
    "ten-steps.ddp": 27,
    "ten-steps.zero1": 28,
    "ten-steps.zero2": 29,
    "ten-steps.zero3": 30,
    "ten-steps.mics": 31,
    "ten-steps.gtc": 32,
    "ten-steps.onebit": 33,
    "ten-steps.bmuf": 34,
    "ten-steps.gtc-bmuf": 35,
    "ten-steps.mics-gtc": 36,
    "ten-steps.mics-bmuf": 37,
    "ten-steps.mics-gtc-bmuf": 38,
    "ten-steps.topk": 800,
    "ten-steps.topk-bmuf": 801,
    "ten-steps.mics-topk": 802,
    "ten-steps.mics-topk-bmuf": 803,
    "ten-steps.diloco": 804,
    "ten-steps.mics-diloco": 805,
    "ten-steps.local-sgd": 806,
    "ten-steps.warm-start": 820,
    "ten-steps.local-state": 821,
    "ten-steps.gtc-local": 822,
    "ten-steps.secondary-shards": 823,
    "ten-steps.cut-anew": 830,
}
# fmt: on

NONE_YET = 1_000_000  # at the end of its rung, until it gets a line above


def place(bundle: str) -> int:
    """Return the place of a bundle in its rung, by its name alone.

    >>> place("collectives.ring"), place("ten-steps.local-sgd"), place("ten-steps.toy")
    (1, 806, 1000000)
    """
    return PLACES.get(bundle, NONE_YET)
