"""The partition axis as it is chosen: what is sharded, and what a step then sends.

For every unit u of padded length P_u, in every partition group, with s micro-steps:

    stage   all-gathers of P_u     reduce-scatters of P_u
      0     none                   none
      1     1                      1
      2     1                      s
      3     2 s                    s

(``--sync every-microstep`` reduces stage 1's in every micro-step, too.)

With secondary shards (stage 3) s of the 2 s all-gathers, those of the backward passes, are among
the ranks of the group that are on one node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from refimpl.collectives import Collectives
from refimpl.methods.calls import Call, Setting, Statistics
from refimpl.methods.options import Check, option
from refimpl.methods.partition import memory
from refimpl.methods.partition.zero import ModelStates
from refimpl.methods.protocol import Context, PartitionMethod
from refimpl.world.topology import node_members


class Calls(NamedTuple):
    """How often a step calls each collective in a partition group, per unit."""

    allgather: int
    reduce_scatter: int


def partition_calls(stage: int, microsteps: int, every_microstep: bool = False) -> Calls:
    """Return the calls of one step for each unit.

    >>> partition_calls(stage=3, microsteps=4)
    Calls(allgather=8, reduce_scatter=4)
    """
    return {
        0: Calls(0, 0),
        1: Calls(1, microsteps if every_microstep else 1),
        2: Calls(1, microsteps),
        3: Calls(2 * microsteps, microsteps),
    }[stage]


@dataclass(frozen=True)
class Whole(PartitionMethod):
    """Stage 0: every rank holds a whole replica; p = 1, and nothing is sent."""

    name: ClassVar[str] = "whole"
    title: ClassVar[str] = "whole model states"

    def build(self, context: Context) -> ModelStates:
        """Return the model states of one rank."""
        return ModelStates(context, stage=0)


@dataclass(frozen=True)
class Sharded(PartitionMethod):
    """One replica's model states, sharded over a partition group: ZeRO's stages, MiCS."""

    name: ClassVar[str] = "sharded"
    title: ClassVar[str] = "sharded model states (ZeRO, MiCS)"

    stage: int = option(
        "--zero-stage",
        3,
        "what is sharded: 1 optimizer state, 2 also gradients, 3 also parameters (default: 3)",
        Check(lambda stage: stage in (1, 2, 3), "1, 2 or 3"),
    )
    prefetch: bool = option("--prefetch", False, "gather the next unit while one computes")
    secondary: bool = option(
        "--secondary-shards",
        False,
        "shards for the backward pass, whose gathers they keep inside: none (default), node",
        choices={"none": False, "node": True},
        metavar="WHERE",
    )

    def build(self, context: Context) -> ModelStates:
        """Return the model states of one rank."""
        return ModelStates(context, self.stage, self.prefetch, self.secondary)

    def traffic(self, setting: Setting, statistics: Sequence[Statistics] = ()) -> Iterator[Call]:
        """Yield the calls of a step for every unit in every partition group."""
        calls = partition_calls(self.stage, setting.microsteps, setting.every_microstep)
        for group in setting.talking("partition"):
            gathers = Counter({tuple(group): calls.allgather})
            if self.secondary:
                near = node_members(setting.nodes.nodes_of(group))
                gathers = Counter({tuple(group): setting.microsteps})
                for members in near:
                    gathers[tuple(group[member] for member in members)] += setting.microsteps
            for ranks, times in gathers.items():
                yield from _calls(
                    setting, ranks, "parameters", "allgather", times, setting.itemsize
                )
            yield from _calls(
                setting, group, "gradients", "reduce_scatter", calls.reduce_scatter, setting.summed
            )

    def publishing(self, setting: Setting) -> Iterator[Call]:
        """Yield an all-gather for every unit in every partition group, in stages 1 and 2."""
        for group in setting.talking("partition"):
            yield from _calls(
                setting, group, "parameters", "allgather", self.stage < 3, setting.itemsize
            )

    def beside(self, setting: Setting) -> Iterator[tuple[str, str, int]]:
        """Yield the secondary shard, of a rank on the node that has the fewest of its group."""
        if self.secondary:
            groups = [setting.nodes.nodes_of(group) for group in setting.grid.groups("partition")]
            fewest = min(len(members) for nodes in groups for members in node_members(nodes))
            units = [unit.size for unit in setting.layout.units]
            kept = memory.per_rank(
                units, setting.grid.partition, 3, memory.Bytes(setting.itemsize), near=fewest
            )
            yield "secondary shard", "V/k", round(kept.secondary)

    def refusal(self, collectives: Collectives) -> str | None:
        """Prefetching needs something to gather, by collectives that can be taken step by step."""
        if self.prefetch and (self.stage != 3 or collectives.ahead is None):
            return (
                f"--prefetch does not go with ZeRO stage {self.stage} and collectives "
                f"{collectives.name}: parameters must be sharded (stage 3: zero3, mics) and "
                "gathered by collectives ring"
            )
        if self.secondary and (self.stage != 3 or self.prefetch):
            return (
                f"--secondary-shards node does not go with ZeRO stage {self.stage}"
                f"{' and --prefetch' * self.prefetch}: parameters must be sharded (stage 3: "
                "zero3, mics) and gathered when they are needed"
            )
        return None


def _calls(
    setting: Setting,
    ranks: Sequence[int],
    purpose: str,
    operation: str,
    times: int,
    itemsize: int,
) -> Iterator[Call]:
    """Yield a call for every unit, if there are any and anybody to talk to."""
    group = list(ranks)
    for unit in setting.layout.units if times and len(group) > 1 else ():
        n = unit.padded
        yield Call(setting, "partition", group, purpose, operation, n, itemsize, times=times)
