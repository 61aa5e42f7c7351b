"""A run that is killed goes on as if nothing had been, to the bit; or on other ranks."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import idx_files
import jobs
import numpy as np
import pytest
from jobs import Killed, killed, newest, resumed, run_of, whole
from launch import CHECKOUT, MPIEXEC, SURROUNDINGS, launched, needs_mpiexec
from loopback import spawn
from rows import EVERY, FEW, Case

from refimpl import cli
from refimpl.collectives.cost import Link, Links
from refimpl.run import saving
from refimpl.state import checkpoint
from refimpl.state.checkpoint import Checkpoint
from refimpl.state.digest import parameters_digest
from refimpl.support import files
from refimpl.support.errors import Stopped, UserError
from refimpl.tasks import table as tasks

CASES = {case.name: case for case in EVERY}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tasks, "prepare", lambda *given: jobs.images())


@pytest.mark.parametrize("case", FEW, ids=str)
def test_a_run_killed_inside_an_epoch_and_a_block_ends_as_if_it_had_not_been(case, tmp_path):
    run = run_of(case, reduction="exact")
    want = whole(tmp_path / "whole", run, case.world)
    killed(tmp_path / "killed", run, case.world, after=8)
    assert newest(tmp_path / "killed") == 8
    assert resumed(tmp_path / "killed", case.world) == want


def test_the_links_that_auto_chooses_by_are_part_of_the_run(tmp_path):
    """A message that costs nothing makes auto take the ring, which adds in another order."""
    links = Links(Link(0.0, 1.0), Link(0.0, 1.0), gamma=1.0).plain()
    usual = run_of(CASES["ddp"], collectives="auto")
    run = replace(usual, links=links)
    want = whole(tmp_path / "whole", run, 4)
    killed(tmp_path / "killed", run, 4, after=8)
    assert json.loads((tmp_path / "killed" / "config.json").read_text())["links"] == links
    assert resumed(tmp_path / "killed", 4) == want
    assert whole(tmp_path / "usual", usual, 4) != want
    spawn((0,) * 4, lambda comm: jobs.again(comm, tmp_path / "whole", collectives="ring"))


@pytest.mark.parametrize("after", [1, 6, 7, 11])
def test_wherever_it_is_killed(after, tmp_path):
    """Before the first checkpoint is complete, at an epoch's end, before the last step."""
    case = CASES["gtc-bmuf"]
    run = run_of(case, recipe={"optimizer": "adam"})
    want = whole(tmp_path / "whole", run, case.world, steps=3)
    killed(tmp_path / "killed", run, case.world, after, steps=3)
    assert newest(tmp_path / "killed") == after // 3 * 3
    assert resumed(tmp_path / "killed", case.world) == want


def test_in_every_single_write_and_removal(monkeypatch, tmp_path):
    """Each file operation of a saving run fails once, as a kill would have it."""
    run = run_of(CASES["serial"])
    want, calls = whole(tmp_path / "whole", run, 1, keep=1), Counter()
    fatal = None

    def wrapped(name, real):
        def call(*given, **named):
            calls["all"] += 1
            if calls["all"] == fatal:
                raise Killed(name)
            return real(*given, **named)

        return call

    for module, name in (
        (files.os, "replace"),
        (files.os, "fsync"),
        (os, "unlink"),
        (os, "rmdir"),
        (os, "mkdir"),
    ):
        monkeypatch.setattr(module, name, wrapped(name, getattr(module, name)))
    whole(tmp_path / "counted", run, 1, keep=1)
    total, begun = calls["all"], 0
    assert total > 20
    for fatal in range(1, total + 1, 2):
        calls.clear()
        path = tmp_path / str(fatal)
        jobs.trained(lambda comm, path=path: jobs.job(comm, path, run, keep=1), 1)
        number, fatal = fatal, None
        for _, folder in checkpoint.steps(path / "checkpoints"):
            Checkpoint(folder).verify()
        if (path / "config.json").exists() and not (path / "summary.json").exists():
            assert resumed(path, 1) == want, number
            begun += 1
    assert begun > total // 4


def test_content_is_on_the_disk_before_its_name_and_the_manifest_is_last(monkeypatch, tmp_path):
    order, replace, fsync = [], os.replace, os.fsync

    def replacing(source, target):
        order.append(("name", os.path.basename(target)))
        replace(source, target)

    def syncing(opened):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{opened}"))
        order.append(("sync", name))
        fsync(opened)

    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("nothing tells here which file is synced")
    monkeypatch.setattr(os, "replace", replacing)
    monkeypatch.setattr(os, "fsync", syncing)
    whole(tmp_path / "run", run_of(CASES["serial"], steps=4), 1)
    parts = [(kind, name) for kind, name in order if "rank" in name or "manifest" in name]
    kinds = [kind for kind, _ in parts]
    assert kinds == ["sync", "name"] * (len(parts) // 2) and len(parts) >= 4
    named = [name for kind, name in parts if kind == "name"]
    assert named == ["rank-00000.npz", "manifest.json"] * (len(named) // 2)
    after = order[order.index(("name", "manifest.json")) :][1:3]
    assert after == [("sync", "step-000004"), ("sync", "checkpoints")]


def test_a_thread_writes_the_same_bytes(tmp_path):
    case, wrote = CASES["mics-gtc"], {}
    for background in (True, False):
        path = tmp_path / str(background)
        whole(path, run_of(case), case.world, background=background, keep=9)
        wrote[background] = {
            file.relative_to(path): file.read_bytes() for file in path.rglob("rank-*")
        }
    assert wrote[True] == wrote[False] and len(wrote[True]) == 3 * case.world


def exact_run(world, strategy, **given):
    case = Case(strategy, world, tuple(given.items()))
    return jobs.with_epochs(run_of(case, 24, reduction="exact"), 4)


def test_exact_runs_end_with_serials_bits_whatever_grids_they_went_through(tmp_path):
    want = whole(tmp_path / "serial", exact_run(1, "serial"), 1)[0]["parameters_sha256"]
    path = tmp_path / "run"
    killed(path, exact_run(8, "mics", partition=4), 8, after=2, steps=1)
    for world, strategy, methods in (
        (2, "zero3", {}),
        (1, "serial", {}),
        (6, "mics", {"partition": 3}),
    ):
        step = newest(path)
        resumed(path, world, step + 1, strategy=strategy, methods=methods)
        assert newest(path) == step + 1
    end = resumed(path, 4, strategy="zero1", methods={})[0]
    assert end["parameters_sha256"] == want and end["world_size"] == 4


def test_what_cannot_be_meant_is_refused_in_words(tmp_path):
    path, case = tmp_path / "run", CASES["bmuf"]
    killed(path, run_of(case, recipe={"methods": {"block_steps": 3}}), 4, after=5, steps=1)
    gtc = tmp_path / "gtc"
    killed(gtc, run_of(CASES["gtc"]), 4, after=2, steps=1)
    for where, ranks, given, said in (
        (path, 2, {}, r"another in each of 4 blocks, and 2 blocks cannot go on"),
        (path, 3, {}, r"8 micro-batches, which 3 ranks cannot share"),
        (path, 4, {"recipe": {"lr": 0.1}}, r"--lr was 0.5 and is given as 0.1: leave it out"),
        (path, 4, {"seed": 4}, r"--seed was 0 and is given as 4"),
        (path, 4, {"methods": {"block_steps": 2}}, "--block-steps was None and is given as 2"),
        (path, 1, {}, "block_update.* would be lost"),
        (gtc, 4, {"strategy": "ddp", "methods": {}}, "gradient/residual.* would be lost"),
        (gtc, 4, {"strategy": "onebit", "methods": {}}, "has no replica/gradient/owned, which"),
        (tmp_path, 4, {}, "was never begun"),
    ):
        with pytest.raises(UserError, match=said):
            resumed(where, ranks, **given)


def test_some_of_what_a_model_was_set_to_can_be_given_again(tmp_path):
    run = replace(run_of(CASES["serial"]), options={"depth": "1", "hidden": "8"})

    def given(comm, **options):
        changes = {"recipe": {}, "methods": {}, "options": options}
        return jobs.job(comm, tmp_path, run).changed(changes).run

    assert spawn((0,), lambda comm: given(comm, hidden="8")) == [run]
    with pytest.raises(UserError, match="--set hidden was 8 and is given as 9"):
        spawn((0,), lambda comm: given(comm, hidden="9"))


def test_blocks_that_were_averaged_can_become_others(tmp_path):
    path, case = tmp_path / "run", CASES["bmuf"]
    run = run_of(case, recipe={"methods": {"block_steps": 3}})
    killed(path, run, 4, after=4, steps=3)
    assert newest(path) == 3
    ends = resumed(path, 2)
    assert ends[0]["world_size"] == 2 and ends[0]["blocks"] == 2
    again = tmp_path / "again"
    killed(again, run, 4, after=4, steps=3)
    assert resumed(again, 2)[0]["parameters_sha256"] == ends[0]["parameters_sha256"]


def test_inside_a_warm_start_and_there_in_other_blocks(tmp_path):
    """It goes on over the border as without a stop; all of it warm is serial, wherever."""
    for steps, world in ((5, 4), (99, 2)):
        recipe, path = {"methods": {"warm_start": steps}}, tmp_path / str(steps)
        run = run_of(CASES["bmuf"], recipe=recipe, reduction="exact")
        killed(path, run, 4, after=4)
        assert newest(path) == 4
        end = resumed(path, world)
        name, ranks = ("bmuf", 4) if world == 4 else ("serial", 1)
        whole_run = run_of(CASES[name], recipe=recipe, reduction="exact")
        want = whole(tmp_path / f"{steps} {name}", whole_run, ranks)
        assert end == want or world != 4
        assert end[0]["parameters_sha256"] == want[0]["parameters_sha256"]


def test_a_damaged_byte_is_refused_or_means_nothing(tmp_path):
    path = tmp_path / "run"
    killed(path, run_of(CASES["zero3"]), 4, after=2, steps=1)
    folder = checkpoint.steps(path / "checkpoints")[-1][1]

    def content():
        saved = Checkpoint(folder)
        saved.verify()
        return {
            **{key: saved.array(*key).tobytes() for key in saved.arrays},
            **{key: repr(saved.value(*key)) for key in saved.values},
        }

    want, refused, meant = content(), 0, 0
    for name in ("manifest.json", "rank-00002.npz"):
        whole = (folder / name).read_bytes()
        for at in range(0, len(whole), 31):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << at % 8
            (folder / name).write_bytes(damaged)
            try:
                assert content() == want, (name, at)
                meant += 1
            except UserError as error:
                assert str(folder) in str(error)
                refused += 1
        (folder / name).write_bytes(whole)
    assert refused > 4 * meant


@pytest.mark.parametrize("end", [False, True])
def test_a_checkpoint_that_cannot_be_written_is_one_line_and_others_stay(
    end, monkeypatch, tmp_path
):
    case, said, real = CASES["zero3"], [], checkpoint.save_arrays

    def full(path, arrays, durable=False):
        if "step-000008" in str(path) and path.name == "rank-00001.npz":
            raise OSError(28, "No space left on device", str(path))
        real(path, arrays, durable)

    monkeypatch.setattr(checkpoint, "save_arrays", full)
    path = tmp_path / "run"

    def body(comm):
        jobs.job(comm, path, run_of(case), end=end).train(said.append)

    if end:
        with pytest.raises(UserError, match=r"no checkpoint after step 8: .*No space left.*room"):
            spawn((0,) * case.world, body)
        assert newest(path) == 4
    else:
        spawn((0,) * case.world, body)
        (line,) = [line for line in said if line.startswith("warning")]
        assert "no checkpoint after step 8" in line and "the run goes on" in line
        assert newest(path) == 12 and (path / "summary.json").exists()


def test_a_signal_to_one_rank_ends_the_run_with_a_checkpoint(monkeypatch, tmp_path):
    case, path = CASES["mics-bmuf"], tmp_path / "run"
    run = run_of(case)
    want = whole(tmp_path / "whole", run, case.world)
    monkeypatch.setattr(saving, "PAUSE", 0)

    class Signalled(saving.Checkpoints):
        def between(self, step, state):
            if step == 5 and self.comm.rank == 2:
                self.watch._note(15, None)
            super().between(step, state)

    def body(comm):
        jobs.job(comm, path, run, steps=100).train(lambda text: None, Signalled)

    with pytest.raises(Stopped, match=r"stopped by SIGTERM after step 5; go on with: .*--resume"):
        spawn((0,) * case.world, body)
    assert newest(path) == 5
    assert jobs.told(path)["state"] == "stopped"
    assert resumed(path, case.world) == want


@pytest.mark.parametrize("at, said", [(5, "goes back to step 4"), (3, "begins anew")])
def test_a_signal_where_nothing_can_be_saved_is_told_so(at, said, monkeypatch, tmp_path):
    monkeypatch.setattr(saving, "PAUSE", 0)
    real = checkpoint.save_arrays

    def full(path, arrays, durable=False):
        if f"step-{at:06d}" in str(path):
            raise OSError(28, "No space left on device", str(path))
        real(path, arrays, durable)

    class Signalled(saving.Checkpoints):
        def between(self, step, state):
            if step == at:
                self.watch._note(15, None)
            super().between(step, state)

    monkeypatch.setattr(checkpoint, "save_arrays", full)
    with pytest.raises(UserError, match=rf"SIGTERM after step {at}, .*not saved.*{said}") as told:
        jobs.trained(
            lambda comm: jobs.job(comm, tmp_path / "run", run_of(CASES["ddp"])), 4, Signalled
        )
    assert told.value.code == 2 and jobs.told(tmp_path / "run")["state"] == "failed"


def test_a_checkpoint_is_due_when_the_first_ranks_clock_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(saving, "PAUSE", 0)
    case = CASES["ddp"]
    for seconds, want in ((1e-9, 3), (1e9, 0)):
        path = tmp_path / str(want)
        killed(path, run_of(case), case.world, 3, steps=None, seconds=seconds)
        assert newest(path) == want


def test_old_checkpoints_leave(tmp_path):
    whole(tmp_path / "run", run_of(CASES["serial"]), 1, steps=2, keep=3)
    assert [step for step, _ in checkpoint.steps(tmp_path / "run/checkpoints")] == [8, 10, 12]


def test_an_old_checkpoint_that_cannot_leave_takes_nothing_from_the_new_one(tmp_path):
    path, said = tmp_path / "run", []

    def body(comm):
        jobs.job(comm, path, run_of(CASES["serial"]), keep=1, end=True).train(said.append, Blocked)

    class Blocked(saving.Checkpoints):
        def between(self, step, state):
            super().between(step, state)
            if step == 4:
                (self.folder / "step-000004" / "mine").mkdir()

    spawn((0,), body)
    (line,) = [line for line in said if line.startswith("warning")]
    assert "step-000004 cannot be removed" in line
    assert newest(path) == 12 and jobs.told(path)["state"] == "finished"


def test_how_many_ranks_could_go_on_is_told(tmp_path, capsys):
    path = tmp_path / "run"
    killed(path, exact_run(8, "mics", partition=4), 8, after=2, steps=1)
    for most, want in (([], "4"), (["--fewer-than", "13"], "12"), (["--fewer-than", "4"], "")):
        code = cli.main(["checkpoint", "ranks", str(path), *most])
        said, error = capsys.readouterr()
        assert (said.strip(), code) == (want, 0 if want else 2)
        assert bool(error) == (not want)


def test_a_finished_run_can_be_made_longer(tmp_path):
    case = CASES["ddp"]
    longer = {"recipe": {"epochs": 3}}
    run = run_of(case)
    want = whole(tmp_path / "long", jobs.with_epochs(run, 3), case.world)
    whole(tmp_path / "run", run, case.world)
    assert resumed(tmp_path / "run", case.world, **longer) == want


def edited(file, **values):
    """Set values in a file that holds an object; return the bytes that it had."""
    had = file.read_bytes()
    file.write_text(json.dumps(json.loads(had) | values) + "\n")
    return had


def test_a_finished_run_stays_as_it_is_where_it_cannot_go_on(tmp_path):
    path = tmp_path / "run"
    whole(path, run_of(CASES["serial"], steps=2), 1)
    for name, values, given, said in (
        ("state.json", {}, {"steps": 4}, "ended after 2 steps, inside an epoch of 6"),
        ("steps.jsonl", {"step": "2"}, {}, r"steps.jsonl: step is '2' in .*: remove that line"),
        ("state.json", {"resumed": 3}, {}, r"state.json: resumed is 3: give a list"),
        ("state.json", {"habits": [4]}, {}, r"state.json: no checkpoint habit in \[4\]: a JSON"),
        ("state.json", {"habits": {"steps": "5"}}, {}, "checkpoints' steps is '5': its type"),
        ("state.json", {"habits": {"steps": 0}}, {}, "checkpoints' steps is 0: give 1 or more"),
        ("state.json", {"habits": {"seconds": -1}}, {}, "seconds is -1: give more than 0"),
        ("state.json", {"habits": {"keep": 0}}, {}, "checkpoints' keep is 0: give 1"),
        ("state.json", {"log_every": "x"}, {}, "state.json: log_every is 'x': give 0 or more"),
    ):
        had = edited(path / name, **values)
        before = {file: file.read_bytes() for file in path.iterdir() if file.is_file()}
        with pytest.raises(UserError, match=said):
            resumed(path, 1, **given)
        after = {file: file.read_bytes() for file in path.iterdir() if file.is_file()}
        assert after == before and path / "summary.json" in after
        (path / name).write_bytes(had)
    assert resumed(path, 1)[0]["steps"] == 2


def test_numpy_alone_reads_a_checkpoint_as_the_chapter_does(tmp_path, capsys, monkeypatch):
    path, case = tmp_path / "run", CASES["mics"]
    want = whole(path, run_of(case), case.world)[0]
    folder = checkpoint.steps(path / "checkpoints")[-1][1]
    chapter = (CHECKOUT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", chapter, re.DOTALL)
    monkeypatch.setattr(sys, "argv", ["reader", str(folder)])
    exec(example, {})
    said = [line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines()]
    model = files.load_arrays(path / "model.npz")
    assert said == [
        [f"{name} {list(value.shape)}", repr(float(np.abs(value).ravel().sum()))]
        for name, value in model.items()
    ]
    for kind in "npz", "safetensors":
        assert cli.main(["checkpoint", "convert", str(path), str(tmp_path / f"m.{kind}")]) == 0
    again = files.load_arrays(tmp_path / "m.npz")
    assert parameters_digest(again) == want["parameters_sha256"]
    content = (tmp_path / "m.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    for name, one in json.loads(content[8 : 8 + size]).items():
        start, end = (8 + size + place for place in one["data_offsets"])
        assert one["dtype"] == "F32" and one["shape"] == list(model[name].shape)
        assert content[start:end] == model[name].tobytes()
    assert end == len(content)


def test_what_checkpoints_a_run_has_and_whether_they_are_whole(tmp_path, capsys):
    path, case = tmp_path / "step-run", CASES["gtc"]
    whole(path, run_of(case), case.world)
    assert cli.main(["checkpoint", "show", str(path)]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["step", "8", "12"] and "4 ranks" in rows[1]
    (folder,) = path.glob("checkpoints/*12")
    assert cli.main(["checkpoint", "show", str(folder)]) == 0
    (line,) = re.findall(r"^replica/gradient/residual .*$", capsys.readouterr().out, re.M)
    assert line.split()[1:] == ["own", "<f4", *" + ".join(["61"] * 4).split()]
    assert cli.main(["checkpoint", "verify", str(path)]) == 0
    capsys.readouterr()
    file = folder / "rank-00002.npz"
    file.write_bytes(file.read_bytes().replace(b"\x00\x00", b"\x00\x01", 40))
    assert cli.main(["checkpoint", "verify", str(path)]) == 2
    assert str(folder) in capsys.readouterr().err
    for where, said in ((tmp_path / "x", "no folder"), (tmp_path, "no complete checkpoint")):
        assert cli.main(["checkpoint", "show", str(where)]) == 2
        assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of 96 images to train on and as many to test, as MNIST's files have them."""
    folder, rng = tmp_path_factory.mktemp("idx"), np.random.default_rng(0)
    for stem in "train", "t10k":
        idx_files.write(
            folder / f"{stem}-images-idx3-ubyte", rng.integers(0, 256, (96, 2, 3), np.uint8)
        )
        idx_files.write(folder / f"{stem}-labels-idx1-ubyte", rng.integers(0, 9, 96, np.uint8))
    (folder / "net.py").write_text(jobs.MODEL.replace('"images", 1', '"images", 400'))
    return folder


def words(data, out, *more):
    options = ["--data", data, "--steps", "400", "--batch", "4", "--reduction", "exact"]
    return ["train", data / "net.py", *options, "--out", out, *more]


@pytest.fixture(scope="module")
def undisturbed(data):
    run = launched(1, *words(data, data / "serial", "--microsteps", "2"))
    assert run.returncode == 0, run.stderr
    return json.loads((data / "serial/summary.json").read_text())["parameters_sha256"]


@needs_mpiexec
@pytest.mark.parametrize("how", ["SIGUSR1", "SIGKILL"])
def test_real_ranks_that_are_stopped_or_killed_go_on(how, data, undisturbed, tmp_path):
    """SIGUSR1 to one of them saves first; after SIGKILL the last checkpoint stands."""
    out = tmp_path / "run"
    more = ["--strategy", "mics", "--partition", "2", "--checkpoint-every", "30"]
    command = [*MPIEXEC, "-n", "2", sys.executable, "-m", "mpi4py", "-m", "refimpl"]
    run = subprocess.Popen(
        list(map(str, [*command, *words(data, out, *more)])),
        env=SURROUNDINGS | os.environ,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    for _ in range(5000):
        if newest(out) >= 30:
            break
        time.sleep(0.01)
    os.kill(jobs.told(out)["process"], getattr(signal, how))
    error = run.communicate(timeout=100)[1].decode()
    if how == "SIGUSR1":
        assert run.returncode == 75 and f"go on with: refimpl train --resume {out}" in error
        assert "stopped by SIGUSR1 after step" in error
    assert run.returncode != 0 and newest(out) < 400
    ended = launched(2, "train", "--resume", out)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((out / "summary.json").read_text())["parameters_sha256"] == undisturbed
