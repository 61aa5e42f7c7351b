"""Tables of chapters say what the code declares: options, strategies, states, events, refusals."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from jobs import images
from loopback import spawn
from tables import HEAD, option_table, strategy_table

from refimpl import collectives
from refimpl.methods import strategies, traffic
from refimpl.methods.protocol import Setting
from refimpl.methods.strategies import Methods, strategy
from refimpl.nn.flat import one_unit
from refimpl.run.config import Recipe, Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.trainer import Trainer
from refimpl.state.tree import PLACEMENTS
from refimpl.support.errors import UserError
from refimpl.tasks import table as tasks
from refimpl.world.events import KINDS
from refimpl.world.topology import Grid, Nodes

TOP = Path(__file__).resolve().parents[2]
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in TOP.glob("docs/*.md")}
METHODS = [one for one in strategies.methods() if one.options()]


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one.__name__)
def test_a_chapter_has_the_table_of_a_methods_options(method):
    table = option_table(method)
    assert any(table in text for text in TEXTS.values()), f"no chapter has\n\n{table}"


def test_chapters_have_no_other_tables_of_options():
    known = "".join(map(option_table, METHODS))
    rows = [
        row
        for text in TEXTS.values()
        for table in re.findall(rf"^{re.escape(HEAD)}((?:\|.*\n)*)", text, re.MULTILINE)
        for row in table.splitlines(keepends=True)
    ]
    assert len(rows) >= len(strategies.options())
    assert [row for row in rows if row not in known] == []


def test_the_chapter_on_topology_has_the_table_of_strategies():
    assert strategy_table() in TEXTS["topology.md"], f"it has not\n\n{strategy_table()}"


# ------------------------------------------------------------------------------------ the state

STATES = TEXTS["checkpoints.md"].partition("## A checkpoint")[0]
STATE = {
    path: placement
    for paths, placement in re.findall(
        r"^\| ((?:`[\w/*]+`(?:, )?)+) \| `(\w+)` \| [^|]+ \|$",
        STATES,
        re.MULTILINE,
    )
    for path in re.findall(r"`([\w/*]+)`", paths)
}
MODEL = """
from refimpl import nn
def build(seed, inputs, classes):
    return nn.Sequential(nn.Affine("only", inputs, classes, seed))
def recipe():
    raise NotImplementedError
"""


def states(name, ranks, optimizer, schedule="constant", **methods):
    """Return the tree of a run on so many ranks, before its first step."""
    recipe = Recipe("images", 1, 0.1, batch=4, optimizer=optimizer, schedule=schedule)
    run = Run("only.py", recipe, strategy=name, methods=methods)
    model = ModelFile.parse("only", MODEL, "only.py")

    def body(comm):
        return Trainer(comm, run, model, say=lambda text: None).state()

    return spawn((0,) * ranks, body)[0]


@pytest.fixture(scope="module")
def trees():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "prepare", lambda *given: images())
        return some_states()


def some_states():
    return [
        states("zero3", 2, "adam", "newbob"),
        states("gtc-bmuf", 2, "momentum", gtc_group=1, block_mean="frames"),
        states("gtc", 2, "sgd", momentum_correction=0.5),
        states("onebit", 2, "sgd", onebit_mask=True, gtc_warmup=1),
        states("diloco", 2, "adamw", fragment_delay=1),
    ]


def test_the_table_of_states_has_all_that_runs_have_with_its_placement(trees):
    for path, leaf in (item for tree in trees for item in tree.items()):
        path = path.replace("epoch/saved/", "replica/")
        rows = [placement for row, placement in STATE.items() if fnmatch(path, row)]
        assert leaf.placement in rows, path
        assert len(rows) == 1 or path in STATE, path


def test_the_table_of_states_has_nothing_else(trees):
    paths = {path for tree in trees for path in tree}
    assert any(path.startswith("epoch/saved/") for path in paths)
    unmet = {row for row in STATE if not any(fnmatch(path, row) for path in paths)}
    assert unmet == {"task/*"}  # images have nothing that changes


def test_every_placement_is_told():
    told = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", STATES, re.MULTILINE)
    assert tuple(told) == PLACEMENTS


# ----------------------------------------------------------------------------------- the events


def test_every_kind_of_events_is_told():
    told = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", TEXTS["events.md"], re.MULTILINE)
    assert tuple(told) == KINDS


def test_every_name_of_an_event_is_told():
    files = set((TOP / "refimpl").rglob("*.py")) - {TOP / "refimpl/world/events.py"}
    code = "".join(path.read_text(encoding="utf-8") for path in files)
    named = re.findall(r'events\.(?:during\("\w+", |tell\()f?"([\w ]+)', code)
    assert len(named) >= 8
    assert [name for name in named if f"`{name.strip()}" not in TEXTS["events.md"]] == []


def test_every_purpose_is_told():
    code = "".join(
        path.read_text(encoding="utf-8")
        for room in ("collectives", "methods", "tasks", "run")
        for path in (TOP / "refimpl" / room).glob("**/*.py")
        if "bench" not in path.parts
    )
    purposes = set(re.findall(r'(?:purpose\(|PURPOSE = |purpose: str = )"(\w+)"', code))
    assert {"parameters", "gradients", "models", "norm", "control"} <= purposes
    assert [one for one in purposes if f"| `{one}` |" not in TEXTS["events.md"]] == []


# --------------------------------------------------------------------------------- the refusals


def uneven():
    hierarchical = collectives.get("hierarchical")
    setting = Setting(Grid(1, 2, 3), Nodes.of(6, 4), one_unit(9, 3), hierarchical)
    methods = Methods(strategies.Sharded())
    traffic.check(methods, setting)


def refusals():
    """Yield the words of what chapters say is refused."""
    for refused in (
        lambda: strategy("gtc").check({"block_steps": 5}),
        lambda: strategy("mics").grid(8, {}),
        lambda: strategy("mics").grid(8, {"partition": 3}),
        uneven,
    ):
        with pytest.raises(UserError) as error:
            refused()
        yield str(error.value)


@pytest.mark.parametrize("chapter", ["training.md", "topology.md"])
def test_refusals_that_a_chapter_quotes_are_made_in_these_words(chapter):
    quoted = re.findall(r"^    refimpl: error: (.*)$", TEXTS[chapter], re.MULTILINE)
    assert quoted and set(quoted) <= set(refusals())
