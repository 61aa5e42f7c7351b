"""What README says at its top is so: which strategies end with whose bits, and the table."""

import re
from pathlib import Path

import pytest
import tiny
from loopback import spawn

from refimpl.methods.block.bmuf import Bmuf
from refimpl.methods.block.diloco import DiLoCo
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.gradient.gtc.method import Threshold
from refimpl.methods.gradient.onebit.method import OneBit
from refimpl.methods.gradient.topk.method import TopK
from refimpl.methods.partition.stages import Whole
from refimpl.methods.strategies import STRATEGIES
from refimpl.world.topology import Nodes

TOP = Path(__file__).resolve().parents[2]
TEXT = (TOP / "README.md").read_text(encoding="utf-8")

EXACT = {
    "ddp": {},
    "zero1": {"partition": 4, "stage": 1},
    "zero2": {"partition": 4, "stage": 2},
    "zero3": {"partition": 4, "stage": 3},
    "mics": {"partition": 2, "stage": 3},
}
GTC = {"gradient": Threshold(tau=0.5)}
BMUF = {"block": Bmuf(steps=2)}
OTHER = {
    "gtc": GTC,
    "onebit": {"gradient": OneBit()},
    "bmuf": {"gtc_group": 1, **BMUF},
    "gtc-bmuf": {"gtc_group": 2, **GTC, **BMUF},
    "topk": {"gradient": TopK(most=2, length=8)},
    "diloco": {"gtc_group": 1, "block": DiLoCo(steps=2)},
}


def digest(ranks, ranks_per_node=None, **options):
    """Return the digest of a model after five exact steps, which all ranks must have."""
    nodes = Nodes.of(ranks, ranks_per_node).node
    trained = spawn(nodes, lambda comm: tiny.trained(comm, steps=5, **options))
    (one,) = {rank.digest for rank in trained}
    return one


@pytest.fixture(scope="module")
def serial():
    return digest(1)


@pytest.mark.parametrize("name", EXACT)
def test_where_things_are_computed_does_not_change_a_bit(name, serial):
    assert digest(4, **EXACT[name]) == serial


@pytest.mark.parametrize("name", OTHER)
def test_what_compresses_or_averages_is_not_serial_but_repeats_itself(name, serial):
    options = OTHER[name]
    here = digest(4, **options)
    assert here != serial
    assert here == digest(4, ranks_per_node=2, algorithm="halving-doubling", **options)
    assert here != digest(8, **options)
    if name not in ("onebit", "topk"):  # what is sent of a chunk depends on where it ends
        assert here == digest(8, partition=2, stage=3, **options)


def table():
    """Return the strategies of the table: name -> its six cells."""
    rows = {}
    for line in re.findall(r"^\| `.*\|$", TEXT, re.MULTILINE):
        names, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for name in re.findall(r"`([\w-]+)`", names):
            rows[name] = cells
    return rows


def test_the_table_lists_every_strategy_in_the_order_of_the_code():
    assert list(table()) == list(STRATEGIES)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_row_has_the_shape_that_the_strategy_cuts(name):
    p, g, b, *_ = table()[name]
    n = 1 if name == "serial" else 8
    given = {"n": n, "p": 2, "g": 2}
    shape = [
        eval(cell.replace("(p g)", "(p * g)").replace("/", "//"), {}, given) for cell in (p, g, b)
    ]
    lengths = {"partition": ("p", 2), "gtc_group": ("g", 2)}
    given = {key: n for key, (letter, n) in lengths.items() if letter in (p, g)}
    grid = STRATEGIES[name].grid(n, given)
    assert shape == [grid.partition, grid.gradient, grid.blocks]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_row_names_the_methods_of_the_strategy(name):
    row = STRATEGIES[name]
    _, _, _, partition, gradient, block = table()[name]
    stages = re.findall(r"\d", partition)
    if row.partition is Whole:
        assert not partition
    else:
        assert str(row.preset.get("zero_stage", 3)) in stages
        assert ("--zero-stage" in partition) == ("zero_stage" not in row.preset)
    alone = row.lengths.split()[1] == "1"
    words = {Exact: "" if alone else "exact", Threshold: "GTC", OneBit: "one bit", TopK: "top-k"}
    word = words[row.gradient]
    assert gradient.startswith(word) and bool(word) == bool(gradient)
    assert block.startswith({None: "", Bmuf: "BMUF", DiLoCo: "DiLoCo"}[row.block])
    assert bool(block) == (row.block is not None)
