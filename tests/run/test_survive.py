"""A run whose ranks die goes on with the others, with the bits of one that was stopped there."""

import json
import re

import jobs
import numpy as np
import pytest
from jobs import left, run_of
from rows import EVERY, Case

from refimpl.run.survive import Survivors
from refimpl.state import checkpoint
from refimpl.support.errors import Lost, UserError
from refimpl.tasks import table as tasks
from refimpl.world.events import Listener
from refimpl.world.threads import Dead, Gone, spawn

CASES = {case.name: case for case in EVERY}
MICS = Case("mics", 8, (("partition", 2),))
MICS_BMUF = Case("mics-bmuf", 8, (("partition", 2),))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tasks, "prepare", lambda *given: jobs.images())


class Doom(Listener):
    """Kills its rank at the n-th message or computation since a step began; of step 0, ever."""

    kinds = frozenset({"send", "receive", "compute", "wait", "phase"})

    def __init__(self, step, event, how=Dead):
        self.step, self.event, self.how = step, event, how

    def begin(self, event):
        if event[:2] == ("phase", "step"):
            self.step -= 1
        if self.step <= 0:
            self.event -= 1
            if self.event < 0:
                raise self.how


def shared_by(case, micro_batches=24, **changes):
    """Return a run of eight steps, which share so many micro-batches of one example."""
    micro = {"batch": 24 // micro_batches, **changes.pop("recipe", {})}
    return run_of(case, micro_batches, recipe=micro, **{"reduction": "exact"} | changes)


def survived(path, run, world, dooms=(), survivors=Survivors, **habits):
    """Train on ranks that die as ``dooms`` says, rank: (step, event); return what was said.

    Or rank: (step, event, death), where steps count from the death before, the first being 1.
    """
    said = []

    class Doomed(survivors):
        deaths = 0

        def _regrouped(self, say):
            self.deaths += 1
            now = super()._regrouped(say)
            if now is not None:
                self.doom(now.comm, self.deaths)
            return now

        def doom(self, comm, deaths):
            step, event, *later = dict(dooms).get(self.rank, (0, 0, -1))
            if (later or [0])[0] == deaths:
                comm.events.add(Doom(step, event))

    def body(comm):
        doomed = Doomed(jobs.job(comm, path, run, **{"steps": None} | habits))
        doomed.rank = comm.rank
        doomed.doom(comm, 0)
        return doomed.train(said.append)

    spawn((0,) * world, body)
    return said


def after(said):
    """Return the steps after which the ranks went on."""
    return [int(found[1]) for line in said if (found := re.search(r"on after step (\d+)", line))]


def stopped(path, run, world, *stops):
    """Stop a run after so many steps, then resume it on so many ranks, ...; return what's left."""
    jobs.killed(path, run, world, stops[0][0], steps=1)
    for (_, ranks), (step, _) in zip(stops, [*stops[1:], (None, 0)], strict=True):
        found = jobs.resumed(path, ranks, step)
    return found


def forget(path, *ranks):
    """Set what is the dead ranks' own to zero in the newest checkpoint."""
    folder = checkpoint.steps(path / "checkpoints")[-1][1]
    saved = checkpoint.Checkpoint(folder)
    parts = []
    for rank in range(saved.grid.world):
        place, tree = saved.grid.place(rank), {}
        for (name, at), one in (saved.arrays | saved.values).items():
            if at == place:
                value = one["value"] if "value" in one else np.array(saved.array(name, at))
                if rank in ranks and isinstance(value, np.ndarray) and "gradient" in name:
                    value = np.zeros_like(value)
                tree[name] = checkpoint.Leaf(value, one["placement"])
        parts.append(checkpoint.write_part(folder, rank, place, tree))
    told = json.loads((folder / "manifest.json").read_text())
    head = {name: told[name] for name in ("step", "config", "grid")}
    checkpoint.complete(folder, head, saved.layout, parts)


@pytest.mark.parametrize(
    ("case", "doom", "then"),
    [
        (CASES["ddp"], {1: (6, 2)}, 3),
        (CASES["ddp"], {0: (3, 9)}, 3),
        (MICS, {3: (6, 5)}, 6),
        (MICS, {0: (7, 20)}, 6),
        (Case("bmuf", 3, ()), {1: (6, 3)}, 2),
        (MICS_BMUF, {2: (5, 1)}, 6),
        (MICS_BMUF, {0: (8, 5)}, 6),
    ],
    ids=str,
)
def test_it_goes_on_with_the_bits_of_a_run_that_was_stopped_there(case, doom, then, tmp_path):
    run = shared_by(case)
    said = survived(tmp_path / "run", run, case.world, doom)
    (step,) = after(said)
    died = f"rank {next(iter(doom))} died: going on after step {step} with {then} ranks"
    assert died in " ".join(said)
    want = stopped(tmp_path / "stopped", run, case.world, (step, then))
    assert left(tmp_path / "run") == want


@pytest.mark.parametrize("event", range(0, 161, 40))
def test_whenever_a_rank_dies(event, tmp_path):
    """In set-up, in steps, in evaluation, while the model is written."""
    run = shared_by(CASES["ddp"], 12, steps=3)
    want = jobs.whole(tmp_path / "whole", run, 4)[0]["parameters_sha256"]
    said = survived(tmp_path / "run", run, 4, {event % 3: (0, event)})
    assert ("died" in " ".join(said)) == (event < 160)
    assert left(tmp_path / "run")[0]["parameters_sha256"] == want


@pytest.mark.parametrize("name", ["gtc", "onebit"])
def test_what_a_dead_rank_alone_had_is_lost_and_it_is_said_how_much(name, tmp_path):
    case = CASES[name]
    run = shared_by(case, 12)
    said = survived(tmp_path / "run", run, 4, {2: (4, 5)})
    assert after(said) == [3]
    jobs.killed(tmp_path / "stopped", run, 4, 3, steps=1)
    saved = checkpoint.Checkpoint(checkpoint.steps(tmp_path / "stopped/checkpoints")[-1][1])
    owed = [
        (path, saved.array(path, place))
        for path, place in sorted(saved.arrays)
        if place == saved.grid.place(2) and path.startswith("replica/gradient")
    ]
    numbers, norm = sum(a.size for _, a in owed), np.sqrt(sum(np.dot(a, a) for _, a in owed))
    assert norm > 0
    names = ", ".join(path for path, _ in owed)
    assert f"lost: {names} of the dead, {numbers} numbers of norm {norm:.3g}" in said
    forget(tmp_path / "stopped", 2)
    assert left(tmp_path / "run") == jobs.resumed(tmp_path / "stopped", 3)


def test_two_deaths_one_after_the_other(tmp_path):
    run = shared_by(CASES["ddp"], 12)
    said = survived(tmp_path / "run", run, 4, {1: (3, 4), 3: (4, 2, 1)})
    assert after(said) == [2, 5]
    want = stopped(tmp_path / "stopped", run, 4, (2, 3), (5, 2))
    assert left(tmp_path / "run") == want
    assert jobs.told(tmp_path / "run")["resumed"] == [2, 5]


@pytest.mark.parametrize("phase", ["_send", "_clear", "_told"])
def test_a_death_while_the_others_go_on_after_a_death(phase, tmp_path):
    class Doomed(Survivors):
        """The first rank dies while it sends, reads folders, or speaks."""

    def dies(self, *given):
        if self.names[0] == 0 and self.ranks.comm.rank == 0:
            raise Dead
        return getattr(Survivors, phase)(self, *given)

    setattr(Doomed, phase, dies)
    run = shared_by(MICS)
    said = survived(tmp_path / "run", run, 8, {5: (4, 3)}, survivors=Doomed)
    assert after(said) == [3] and "6 ranks = 3 members x 2 shards" in " ".join(said)
    want = stopped(tmp_path / "stopped", run, 8, (3, 6))
    assert left(tmp_path / "run") == want


def test_who_waits_takes_a_place_after_the_next_death(tmp_path):
    run = shared_by(CASES["ddp"], 8)  # 3 ranks cannot share 8
    said = survived(tmp_path / "run", run, 4, {0: (3, 4), 1: (3, 2, 1)})
    assert after(said) == [2, 4]
    assert "2 ranks = 2 members, 4 micro-steps each; 1 more waits" in " ".join(said)
    assert left(tmp_path / "run") == stopped(tmp_path / "stopped", run, 4, (2, 2))


def test_ranks_of_two_broken_workers_become_a_whole_one(tmp_path):
    case = Case("mics", 4, (("partition", 2),))
    run = shared_by(case, 8)
    survived(tmp_path / "run", run, 4, {0: (4, 3), 3: (4, 3)})
    want = jobs.whole(tmp_path / "whole", run, 4)[0]["parameters_sha256"]
    found = left(tmp_path / "run")[0]
    assert (found["world_size"], found["parameters_sha256"]) == (2, want)


def test_a_shard_that_nobody_else_holds_comes_from_the_last_checkpoint(tmp_path):
    case = Case("zero3", 4, ())
    run = shared_by(case, 12)
    said = survived(tmp_path / "run", run, 4, {1: (7, 3)}, steps=4)
    assert after(said) == [4]
    assert any("nobody else holds shard 1 of replica/partition/" in line for line in said)
    assert left(tmp_path / "run") == stopped(tmp_path / "stopped", run, 4, (4, 3))
    with pytest.raises(Lost, match="rank 1 died: nobody else holds shard 1 of .*checkpoint"):
        survived(tmp_path / "none", run, 4, {1: (7, 3)})
    assert jobs.told(tmp_path / "none")["state"] != "finished"


def test_blocks_that_are_two_cannot_become_one(tmp_path):
    case = Case("bmuf", 2, ())
    with pytest.raises(Lost, match="cannot be shared by 1 ranks or fewer"):
        survived(tmp_path / "run", shared_by(case, 8), 2, {1: (6, 3)})


def test_an_error_like_that_of_a_death_where_nobody_died_ends_the_run_on_all(tmp_path):
    ended = []

    def body(comm):
        if comm.rank == 1:
            comm.events.add(Doom(3, 2, Gone))
        try:
            Survivors(jobs.job(comm, tmp_path / "run", run)).train(lambda text: None)
        except Gone:
            ended.append(comm.rank)

    run = shared_by(CASES["ddp"], 12)
    spawn((0,) * 4, body)
    assert sorted(ended) == [0, 1, 2, 3]


def test_an_error_of_one_rank_is_raised_on_all_that_live(tmp_path):
    def body(comm):
        survivors = Survivors(jobs.job(comm, tmp_path / "run", shared_by(CASES["ddp"], 12)))
        with pytest.raises(UserError, match="the disk of rank 2"):
            survivors._common(UserError("the disk of rank 2") if comm.rank == 2 else {})

    spawn((0,) * 4, body)


@pytest.mark.parametrize("case", [CASES["ddp"], MICS_BMUF], ids=str)
def test_where_nobody_dies_nothing_is_changed(case, tmp_path):
    run = shared_by(case, reduction="float")
    survived(tmp_path / "run", run, case.world)
    assert left(tmp_path / "run") == jobs.whole(tmp_path / "whole", run, case.world)


def test_checkpoints_of_steps_that_are_taken_again_are_removed(tmp_path):
    case = Case("bmuf", 3, ())
    run = shared_by(case)
    seen = []

    class Watched(Survivors):
        def _clear(self, part, saved):
            folder = self.job.path / "checkpoints"
            before = [step for step, _ in checkpoint.steps(folder)]
            super()._clear(part, saved)
            part.barrier()
            seen.append((before, [step for step, _ in checkpoint.steps(folder)]))

    said = survived(tmp_path / "run", run, 3, {1: (7, 3)}, survivors=Watched, steps=2, keep=9)
    assert after(said) == [4] and ([2, 4, 6], [2, 4]) in seen
    assert jobs.newest(tmp_path / "run") == 8
