"""A corpus written by many ranks together is the corpus written by one."""

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic.synth import write_corpus
from refimpl.world.threads import spawn

SIZES = {"speakers": {"train": 2, "dev": 1}, "utterances": {"train": 4, "dev": 3}}
NODES = (0, 0, 0)


def contents(directory):
    return {p.relative_to(directory): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_ranks_together_write_what_one_writes_alone(tmp_path):
    spawn(NODES, lambda comm: write_corpus(tmp_path / "together", comm=comm, **SIZES))
    write_corpus(tmp_path / "alone", **SIZES)
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    assert len(contents(tmp_path / "alone")) == 7 + 2 * 5 + 2


def test_refusal_is_the_same_on_all_ranks_and_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()

    def body(comm):
        try:
            write_corpus(tmp_path / "taken", comm=comm, **SIZES)
        except UserError as error:
            return str(error)

    (said,) = set(spawn(NODES, body))
    assert "taken is there already" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["taken"]
