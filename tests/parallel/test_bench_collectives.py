"""The benchmark's rows are the same on all ranks and complete.  No times are asserted."""

import json

import pytest

from refimpl.run.bench import collectives, links
from refimpl.world.communicator import Communicator


@pytest.mark.once
def test_rows_are_equal_on_all_ranks_and_plain_data(world):
    sizes = [0, 1024]
    rows = collectives.measure(world, sizes, repeats=1)
    assert len(rows) == len(sizes) * len(collectives.OPERATIONS)
    assert world.allgather_object(rows) == [rows] * world.size
    assert json.loads(json.dumps(rows)) == rows
    for row in rows:
        families = {family.name for family in collectives.timed(row["operation"], world.nodes)}
        assert {"native", row["auto"]} <= families
        assert set(row["seconds"]) == set(row["best"]) == set(row["ratio"]) == families
        assert row["ratio"]["native"] == 1
    assert "allreduce, float32" in collectives.table(rows)


def test_measured_links_are_equal_on_all_ranks(world):
    comm = Communicator(world.mpi, ranks_per_node=2)
    found = links.measure(comm, sizes=[64, 4096], repeats=2)
    assert comm.allgather_object(found) == [found] * comm.size
    assert comm.size == 1 or found.intra.alpha + found.intra.beta > 0
