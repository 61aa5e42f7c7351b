"""Strategies: how many ranks train one model.

Every strategy is a choice on each of the three axes of the rank grid (`refimpl.world.topology`),
and `refimpl.methods.step` composes the choices; nothing else knows which strategy runs.

    axis        file                                what it decides
    partition   sharding.py                         who holds which part of the model states
    gradient    gradients.py, gtc.py, onebit.py     how the gradients of a step become one
    block       blocks.py                           how the groups' models become one
    (together)  replica.py                          one training step: the axes in their order
    (on paper)  traffic.py, formulas.py             what a step sends, in closed formulas
"""

from __future__ import annotations

from dataclasses import dataclass

from refimpl.support.errors import UserError, listed
from refimpl.world.topology import Grid


@dataclass(frozen=True)
class Strategy:
    """One row of the strategy table.

    ``partition`` is the length p of the partition axis: ``"1"``, ``"n"`` (the whole world) or
    ``"given"`` (``--partition``).  ``stage`` says what is sharded along it: 1 the optimizer
    state, 2 also gradients, 3 also parameters; 0 nothing, ``None`` as given (``--zero-stage``).
    ``gradient`` names what travels along the gradient axis (``exact``, ``gtc``, ``onebit``),
    empty for an axis of length 1.  ``blockwise`` says whether models travel along a block axis
    (BMUF).
    """

    name: str
    partition: str
    stage: int | None
    gradient: str
    blockwise: bool
    summary: str

    @property
    def hybrid(self) -> bool:
        """Whether there are both a gradient and a block axis, so that g must be given."""
        return bool(self.gradient) and self.blockwise

    def grid(self, world: int, partition: int | None = None, gtc_group: int | None = None) -> Grid:
        """Return the grid that this strategy cuts a world of n ranks into.

        Raises
        ------
        UserError
            If an option is given that the strategy does not have, one that it needs is
            missing, or a group size does not divide.
        """
        if self.name == "serial" and world != 1:
            raise UserError(
                f"strategy serial runs on one rank, not {world}: use -n 1, or another strategy "
                f"({listed(set(STRATEGIES) - {'serial'})})"
            )
        self._option(
            "--partition", "P, the ranks of one replica", partition, self.partition == "given"
        )
        self._option("--gtc-group", "G, the workers of one GTC group", gtc_group, self.hybrid)
        p = {"1": 1, "n": world, "given": partition}[self.partition]
        assert p is not None
        if self.hybrid:
            return Grid.cut(world, p, gtc_group)
        return Grid.cut(world, p, 1 if self.blockwise else None)

    def _option(self, name: str, meaning: str, given: int | None, needed: bool) -> None:
        """Refuse a group size that is missing, or that the strategy does not have."""
        if needed and given is None:
            raise UserError(f"strategy {self.name} needs {name} {meaning}")
        if given is not None and not needed:
            having = [row.name for row in STRATEGIES.values() if row.takes(name)]
            raise UserError(
                f"{name} {given} does not go with strategy {self.name}: leave it out, or use "
                f"--strategy {listed(having)}"
            )

    def takes(self, option: str) -> bool:
        """Return whether a group size is this strategy's to be given."""
        return {"--partition": self.partition == "given", "--gtc-group": self.hybrid}[option]


STRATEGIES: dict[str, Strategy] = {
    row.name: row
    for row in (
        Strategy("serial", "1", 0, "", False, "one rank; the meaning of every other row"),
        Strategy("ddp", "1", 0, "exact", False, "every rank a replica; all-reduce the gradient"),
        Strategy("zero1", "n", 1, "", False, "optimizer state sharded over all ranks"),
        Strategy("zero2", "n", 2, "", False, "optimizer state and gradients sharded"),
        Strategy("zero3", "n", 3, "", False, "parameters too, gathered unit by unit"),
        Strategy("mics", "given", None, "exact", False, "sharded in groups, replicated between"),
        Strategy("gtc", "1", 0, "gtc", False, "gradients as messages of +-tau"),
        Strategy("onebit", "1", 0, "onebit", False, "gradients as one bit per value"),
        Strategy("bmuf", "1", 0, "", True, "local training, models filtered every block"),
        Strategy("gtc-bmuf", "1", 0, "gtc", True, "GTC inside groups, BMUF between them"),
        Strategy("mics-gtc", "given", 3, "gtc", False, "GTC between sharded workers"),
        Strategy("mics-bmuf", "given", 3, "", True, "BMUF between sharded workers"),
        Strategy("mics-gtc-bmuf", "given", 3, "gtc", True, "all three axes"),
    )
}


def strategy(name: str) -> Strategy:
    """Return the row of this name, or raise a `UserError` that lists the names."""
    if name not in STRATEGIES:
        raise UserError(f"no strategy {name!r}: choose one of {listed(STRATEGIES)}")
    return STRATEGIES[name]
