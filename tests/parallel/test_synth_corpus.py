"""A corpus written by many ranks together is the corpus written by one."""

import pytest

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic.synth import write_corpus

SIZES = {"speakers": {"train": 2, "dev": 1}, "utterances": {"train": 4, "dev": 3}}


def contents(directory):
    return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_ranks_together_write_what_one_writes_alone(world, folder):
    write_corpus(folder / "together", comm=world, **SIZES)
    alone = folder / f"alone-{world.rank}"
    write_corpus(alone, **SIZES)
    assert contents(folder / "together") == contents(alone)
    assert len(contents(alone)) == 7 + 2 * 5 + 2


def test_refusal_is_the_same_on_all_ranks_and_leaves_nothing(world, folder):
    if world.rank == 0:
        (folder / "taken").mkdir()
        (folder / "taken" / "file").touch()
    world.barrier()
    with pytest.raises(UserError, match="taken is there already"):
        write_corpus(folder / "taken", comm=world, **SIZES)
    world.barrier()
    assert sorted(p.name for p in folder.iterdir()) == ["taken"]
