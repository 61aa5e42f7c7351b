"""`refimpl topology --parameters` prints the closed formulas, filled in with the right numbers."""

import re

import pytest

from refimpl import cli, collectives
from refimpl.methods import formulas
from refimpl.methods.block.bmuf import Bmuf
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.partition.stages import Sharded, Whole
from refimpl.methods.protocol import Setting
from refimpl.methods.strategies import Methods
from refimpl.nn.flat import one_unit
from refimpl.world.topology import Grid, Nodes


def table(
    grid,
    nodes,
    parameters,
    stage,
    *,
    microsteps=1,
    family="ring",
    every_microstep=False,
    exact=False,
    states=1,
):
    """Return the text for exact gradients, and BMUF if there are blocks."""
    methods = Methods(
        Sharded(stage) if stage else Whole(),
        Exact(every_microstep=every_microstep),
        Bmuf() if grid.blocks > 1 else None,
    )
    setting = Setting(
        grid,
        nodes,
        one_unit(parameters, grid.partition),
        collectives.get(family),
        microsteps=microsteps,
        exact=exact,
        every_microstep=every_microstep,
    )
    return formulas.table(methods, setting, states)


def printed(text):
    """Return the bytes of every row, by its label; a label that comes again gets a dash."""
    found = {}
    for line in text.splitlines():
        row = re.fullmatch(r"  (\S.*?)  +\S.*?([\d,]+) bytes.*", line)
        if row:
            label = row[1]
            while label in found:
                label += "'"
            found[label] = int(row[2].replace(",", ""))
    return found


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("n, p, k, s", [(4, 4, 2, 1), (8, 4, 2, 4), (8, 8, 2, 3), (16, 8, 4, 2)])
def test_rows_are_the_published_formulas(n, p, k, s, stage):
    parameters, replicas, m = 240 * p, n // p, 2
    v = 4 * parameters
    given = {"microsteps": s, "family": "hierarchical", "states": m}
    rows = printed(table(Grid(1, replicas, p), Nodes.of(n, k), parameters, stage, **given))

    assert rows["flat ring"] == v * (p - 1) // p
    assert rows["hierarchical"] == v * (p - k) // p
    gathers = {1: 1, 2: 1, 3: 2 * s}[stage]
    scatters = {1: 1, 2: s, 3: s}[stage]
    assert rows["all-gathers"] == gathers * v * (p - 1) // p
    assert rows["hop 1, reduce-scatters"] == scatters * v * (p - 1) // p
    if replicas > 1:
        assert rows["hop 2, all-reduces"] == 2 * (replicas - 1) * v // p // replicas
    # Into every node of every group, and along all p columns, whose ranks are on g nodes.
    into_nodes = n // k * (v * (p - k) // p)
    along_columns = p * 2 * (replicas - 1) * v // p
    assert rows["between nodes"] == (gathers + scatters) * into_nodes + along_columns
    assert rows["stage 1"] == v * 2 + m * v // p
    assert rows["stage 2"] == v + (1 + m) * v // p
    assert rows["stage 3"] == (2 + m) * v // p


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("p", [1, 4])
def test_the_formula_of_a_stage_gives_the_number_beside_it(p, exact):
    text = table(Grid(1, 4 // p, p), Nodes.of(4), 1000, 3 if p > 1 else 0, states=2, exact=exact)
    found = re.findall(r"^  stage (\d) +(V .*?)  +([\d,]+) bytes", text, re.M)
    assert [stage for stage, *_ in found] == (["0"] if p == 1 else ["1", "2", "3"])
    for _, formula, number in found:
        values = {"V": 4000, "m": 2, "p": p}
        assert eval(formula.replace("V ", "V * "), values) == int(number.replace(",", ""))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_stage_that_runs_is_marked_and_stage_3_alone_gathers_a_unit_at_a_time(stage):
    text = table(Grid(1, 1, 4), Nodes.of(4), 1000, stage)
    assert re.findall(r"stage (\d) .* <- this one", text) == [str(stage)]
    assert ("one unit at a time" in text) == (stage == 3)


def test_two_nodes_of_two_receive_a_half_instead_of_three_quarters():
    text = table(Grid(1, 1, 4), Nodes.of(4, 2), 1000, 3)
    assert re.search(r"flat ring .* 3,000 bytes = 3/4 V\n", text)
    assert re.search(r"hierarchical .* 2,000 bytes = 1/2 V, k = 2\n", text)


@pytest.mark.parametrize("grid", [Grid(1, 1, 4), Grid(1, 2, 4)])
def test_what_a_ring_brings_into_a_node_that_it_enters_more_than_once_is_counted(grid):
    text = table(grid, Nodes.dealt(grid.world, grid.world // 2), 1000, 3)
    assert re.search(r"flat ring +counted +6,000 bytes = 3/2 V\n", text)
    assert re.search(r"hierarchical +V \(p-k\)/p +2,000 bytes = 1/2 V, k = 2\n", text)


def test_micro_steps_do_not_multiply_the_second_hop_unless_asked_to():
    def hop2(**options):
        text = table(Grid(1, 2, 2), Nodes.of(4), 1000, 3, **options)
        return printed(text)["hop 2, all-reduces"]

    assert hop2(microsteps=1) == hop2(microsteps=4) == 2000
    assert hop2(microsteps=4, every_microstep=True) == 8000
    assert hop2(microsteps=4, exact=True) == 4000


def test_a_replica_on_every_rank_sends_one_allreduce_and_keeps_everything():
    rows = printed(table(Grid(1, 4, 1), Nodes.of(4), 1000, 0, microsteps=3))
    assert rows == {
        "all-reduces": 6000,
        "inside nodes": 24000,
        "between nodes": 0,
        "stage 0": 12000,
    }


def test_a_block_axis_adds_the_models():
    text = table(Grid(2, 2, 1), Nodes.of(4, 2), 1000, 0)
    # Two pairs all-reduce 2000 bytes each between two nodes; an all-gather inside each group.
    assert printed(text)["between nodes'"] == 8000
    assert printed(text)["inside nodes'"] == 8000


def test_what_is_gathered_is_padded_and_said_to_be():
    text = table(Grid(1, 1, 4), Nodes.of(4), 1001, 3)
    assert "P = 1,001 parameters and 3 of padding of 4 bytes: V = 4,016 bytes" in text
    assert "nothing: every partition group is inside one node" in text


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("-n 4 --microsteps 2", "--microsteps 2 needs --parameters N"),
        ("-n 4 --partition 2 --parameters 9 --zero-stage 0", "--zero-stage 0: must be 1, 2 or 3"),
        (
            "-n 6 --partition 3 --ranks-per-node 4 --parameters 9 --collectives hierarchical",
            "1, 2",
        ),
        ("-n 4 --parameters 9 --collectives native", "native state no cost"),
        ("-n 4 --strategy diloco --fragments 2 --parameters 9", "--fragments 2: --parameters"),
        ("-n 4 --parameters 9 --collectives rign", "rign"),
        ("-n 4 --parameters 9 --optimizer rign", "rign"),
    ],
)
def test_what_cannot_be_filled_in_is_refused(capsys, arguments, message):
    assert cli.main(["topology", *arguments.split()]) == 2
    out, error = capsys.readouterr()
    assert message in error and error.count("\n") == 1 and out == ""
