"""Ranks dealt out to nodes in turn: it is said, with the remedy, and `--map by-node` mends it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from loopback import spawn

from refimpl import cli
from refimpl.run.config import Recipe, Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.report import scattered_text
from refimpl.run.trainer import Trainer
from refimpl.support.errors import UserError
from refimpl.tasks import table as tasks
from refimpl.tasks.images.task import ImageExamples, ImageTask
from refimpl.world.topology import Grid, Nodes, divisors, scattered

DEALT, TOGETHER = (0, 1, 0, 1), (0, 0, 1, 1)
RECIPE = Recipe(task="images", epochs=1, lr=0.1, batch=4, microsteps=2)
RUN = Run("net", RECIPE, steps=3, strategy="mics", methods={"partition": 2}, reduction="exact")
NET = """
from refimpl import nn

def build(seed, inputs, classes):
    hidden, out = nn.Affine("a", inputs, 8, seed), nn.Affine("b", 8, classes, seed)
    return nn.Sequential(hidden, nn.Tanh(), out)

def recipe(): ...
"""


@pytest.fixture
def small(monkeypatch):
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (96, 2, 3)).astype(np.uint8), rng.integers(0, 3, 96)
    names = ("train", "dev", "test")

    def own(*given):
        return ImageTask(6, {name: ImageExamples(*data) for name in names})

    monkeypatch.setattr(tasks, "prepare", own)


def trained(nodes, run=RUN):
    """Return the summary of rank 0, what it said first, and the order of the run's ranks."""
    said = []

    def body(comm):
        say = said.append if comm.rank == 0 else None
        with Trainer(comm, run, ModelFile.parse("net", NET, "net.py"), say) as trainer:
            return trainer.train(), trainer.groups.world.members

    summary, order = spawn(nodes, body)[0]
    return summary, said[0], order


def test_ranks_renumbered_by_node_send_what_ranks_placed_by_node_do_to_the_same_bits(small):
    apart, warned, _ = trained(DEALT)
    together, silent, _ = trained(TOGETHER)
    mended, said, order = trained(DEALT, replace(RUN, map="by-node"))
    assert order == (0, 2, 1, 3)
    digests = {one["parameters_sha256"] for one in (apart, together, mended)}
    assert len(digests) == 1
    assert mended["ledger"] == together["ledger"]
    assert mended["ledger"]["inter"]["bytes"] < apart["ledger"]["inter"]["bytes"] / 2
    assert (
        "\nwarning: 2 of 2 partition groups are on more nodes than need be, {0, 1} on 2" in warned
    )
    assert "warning" not in silent + said
    assert "on 2 nodes, ranks renumbered by node (mics)" in said


@pytest.mark.parametrize("nodes", [DEALT, TOGETHER, (1, 1, 0, 0), (1, 0, 0, 1), (2, 0, 2, 1)])
def test_by_node_is_the_stated_order_made_once_and_keeps_the_ledger(nodes):
    def body(comm):
        part = comm.by_node()
        assert part is comm.by_node() and part.ledger is comm.ledger
        assert part.members == tuple(Nodes(nodes).order())
        assert part.nodes == Nodes(nodes).ordered().node
        assert part.members[0] == 0
        comm.free()
        return part is comm

    stays = spawn(nodes, body)
    assert set(stays) == {nodes in (TOGETHER, (1, 1, 0, 0))}


def test_groups_are_torn_apart_where_the_order_by_node_would_mend_it():
    for p in divisors(12):
        for k in (2, 3, 4, 5, 12):
            assert scattered(Grid.cut(12, p), Nodes.of(12, k))[1] == []
    assert len(scattered(Grid.cut(12, 2), Nodes.dealt(12, 4))[1]) == 6
    assert len(scattered(Grid.cut(12, 6), Nodes.dealt(12, 2))[1]) == 2  # on 6 nodes, not 3
    assert scattered(Grid.cut(12, 12), Nodes.dealt(12, 4))[1] == []
    assert scattered(Grid.cut(12, gradient=3), Nodes.dealt(12, 3))[0] == "gradient"
    assert len(scattered(Grid.cut(12, gradient=3), Nodes.dealt(12, 3))[1]) == 4


@pytest.mark.parametrize(
    "launcher, remedy",
    [
        ({"OMPI_COMM_WORLD_RANK": "0", "SLURM_STEP_ID": "0"}, "give mpiexec --map-by slot,"),
        ({"MPI_LOCALNRANKS": "2", "PMI_RANK": "0"}, "give mpiexec -ppn 2,"),
        ({"SLURM_STEP_ID": "0", "PMI_RANK": "0"}, "give SLURM_DISTRIBUTION=block (srun "),
        ({}, "give the launcher's block placement, or --map by-node"),
    ],
)
def test_the_remedy_is_the_launchers_own(launcher, remedy):
    assert remedy in scattered_text(Grid(1, 2, 2), Nodes(DEALT), launcher)


def test_topology_warns_of_ranks_that_are_dealt_out_and_draws_the_other_order(capsys):
    base = ["topology", "-n", "8", "--partition", "2", "--ranks-per-node", "4"]
    assert cli.main(base) == 0
    block = capsys.readouterr().out
    assert cli.main([*base, "--placement", "cyclic"]) == 0
    cyclic = capsys.readouterr().out
    assert cli.main([*base, "--placement", "cyclic", "--map", "by-node"]) == 0
    assert capsys.readouterr().out == block and "warning" not in block
    assert "warning: 4 of 4 partition groups" in cyclic
    assert cli.main([*base, "--map", "node"]) == 2
    assert "--map node: choose one of by-node, by-rank" in capsys.readouterr().err


def test_the_order_is_recorded_and_another_one_is_refused(small):
    assert json.loads(json.dumps(replace(RUN, map="by-node").to_dict()))["map"] == "by-node"
    with pytest.raises(UserError, match="--map sideways: choose one of by-node, by-rank"):
        replace(RUN, map="sideways").check_values()
