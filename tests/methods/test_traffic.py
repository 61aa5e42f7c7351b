"""What cannot run is refused on all ranks before any message; `auto` says what it chose."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import tiny
from loopback import spawn

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.block.bmuf import Bmuf
from refimpl.methods.partition.stages import Sharded, Whole
from refimpl.methods.protocol import Setting
from refimpl.methods.strategies import Methods, strategy
from refimpl.nn import Layout
from refimpl.nn.flat import one_unit
from refimpl.run.config import Recipe, Run
from refimpl.support.errors import UserError
from refimpl.world.topology import Grid, Nodes

LAYOUT = Layout(tiny.network().units, 4)


def check(grid, nodes, name, stage):
    """Look for groups of this grid on which the collectives cannot run."""
    methods = Methods(
        Sharded(stage) if stage else Whole(), block=Bmuf() if grid.blocks > 1 else None
    )
    setting = Setting(grid, nodes, one_unit(24, grid.partition), collectives.get(name))
    traffic.check(methods, setting)


@pytest.mark.parametrize(
    "grid, per_node, message",
    [
        (Grid(1, 1, 4), 3, r"partition group \{0, 1, 2, 3\}: .*the nodes hold 3, 1: choose"),
        (Grid(1, 2, 3), 4, r"partition group \{3, 4, 5\}: .*the nodes hold 1, 2"),
        (Grid(1, 4, 1), 3, r"gradient group \{0, 1, 2, 3\}: .*the nodes hold 3, 1"),
        (Grid(2, 1, 3), 4, r"partition group \{3, 4, 5\}: .*"),
        (Grid(4, 1, 1), 3, r"block group \{0, 1, 2, 3\}: .*the nodes hold 3, 1"),
    ],
)
def test_groups_that_lie_unevenly_on_nodes_are_refused_by_name_for_hierarchical_alone(
    grid, per_node, message
):
    nodes = Nodes.of(grid.world, per_node)
    with pytest.raises(UserError, match=message):
        check(grid, nodes, "hierarchical", stage=3)
    for name in ("ring", "halving-doubling", "native", "auto"):
        check(grid, nodes, name, stage=3)


def test_every_rank_refuses_although_only_some_lie_unevenly():
    """Group {3, 4, 5} spans nodes of 1 and 2 of its ranks; {0, 1, 2} is on one node."""

    def body(comm):
        nodes = Nodes(comm.nodes)
        with pytest.raises(UserError, match=r"\{3, 4, 5\}"):
            check(Grid(1, 2, 3), nodes, "hierarchical", stage=3)
        assert comm.ledger.counts == {}

    spawn(Nodes.of(6, 4).node, body)


def test_collectives_without_an_operation_that_an_axis_needs_are_refused():
    nodes = Nodes.of(4)
    with pytest.raises(UserError, match="tree have no allgather, which the partition axis needs"):
        check(Grid(1, 1, 4), nodes, "tree", stage=1)
    check(Grid(1, 4, 1), nodes, "tree", stage=0)
    with pytest.raises(UserError, match="bruck have no allreduce, which the gradient axis needs"):
        check(Grid(1, 4, 1), nodes, "bruck", stage=0)


@pytest.mark.parametrize(
    "name, n, per_node, lengths",
    [
        *((name, 3, 2, {}) for name in ("gtc", "topk", "onebit")),
        ("mics-gtc", 6, 4, {"partition": 2}),
        ("mics-topk", 8, 5, {"partition": 2}),  # uneven for the even ranks only
    ],
)
def test_dense_sums_of_a_method_with_messages_are_looked_at_if_there_are_any(
    name, n, per_node, lengths
):
    row = strategy(name)
    for warmup, dense in (0, False), (5, True):
        methods, grid = row.choose({"gtc_warmup": warmup}), row.grid(n, lengths)
        nodes, layout = Nodes.of(n, per_node), Layout(tiny.network().units, grid.partition)
        setting = Setting(grid, nodes, layout, collectives.get("hierarchical"))
        with pytest.raises(UserError, match="gradient group") if dense else nullcontext():
            traffic.check(methods, setting)
        lines = traffic.choices(methods, replace(setting, collectives=collectives.get("auto")))
        assert any("gradient allreduce" in line for line in lines) == dense


@pytest.mark.parametrize(
    "options, culprit",
    [
        ({"strategy": "zero2"}, "stage 2"),
        ({"strategy": "ddp"}, "strategy ddp"),
        ({"strategy": "mics", "methods": {"partition": 2, "zero_stage": 1}}, "stage 1"),
        ({"strategy": "zero3", "collectives": "hierarchical"}, "collectives hierarchical"),
        ({"strategy": "zero3", "collectives": "auto"}, "collectives auto"),
    ],
)
def test_prefetch_is_refused_where_nothing_would_be_prefetched(options, culprit):
    methods = options.pop("methods", {}) | {"prefetch": True}
    run = Run("mlp", Recipe("images", epochs=1, lr=0.1), methods=methods, **options)
    with pytest.raises(UserError, match=f"--prefetch does not go with .*{culprit}.*zero3"):
        run.check(4)
    Run("mlp", run.recipe, strategy="zero3", methods={"prefetch": True}).check(4)


def test_auto_says_for_every_axis_what_it_chose_and_why():
    auto = collectives.get("auto")
    setting = Setting(Grid(1, 2, 4), Nodes.of(8, 2), LAYOUT, auto)
    lines = traffic.choices(Methods(Sharded(stage=3)), setting)
    assert [line.split(":")[0] for line in lines] == [
        "auto, partition allgather",
        "auto, partition reduce_scatter",
        "auto, gradient allreduce",
    ]
    for line in lines:
        operation = line.split(":")[0].split()[-1]
        n = int(line.split("; ")[1].split()[0].replace(",", ""))
        group = (0, 1, 2, 3) if "gradient" not in line else (0, 4)
        nodes = tuple(Nodes.of(8, 2).node[rank] for rank in group)
        choice = auto.choose(operation, n, nodes)
        assert choice.name in line and line.endswith(choice.why), line
    setting = Setting(Grid(1, 4, 1), Nodes.of(4), one_unit(24), auto)
    (line,) = traffic.choices(Methods(), setting)
    assert line.startswith("auto, gradient allreduce: ")
