"""Run folders are whole or not there."""

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from refimpl.run import claim
from refimpl.run import folder as runs
from refimpl.run.picture import Curves
from refimpl.support import files
from refimpl.support.errors import Diverged, UserError


def test_a_run_folder_comes_back_as_written(tmp_path):
    folder = runs.RunFolder.create(tmp_path / "run", {"a": 1}, "text")
    folder.log({"epoch": 1})
    folder.log({"epoch": 2})
    parameters = {"w.weight": np.arange(6.0, dtype=np.float32).reshape(2, 3)}
    state = {"classes": 3, "words": ["a", "b"], "mean": np.ones(4)}
    folder.save_model(parameters.items())
    folder.finish({"loss": 0.5}, state)

    again = runs.RunFolder.finished(tmp_path / "run")
    assert (again.config(), again.summary(), again.model_text()) == (
        {"a": 1},
        {"loss": 0.5},
        "text",
    )
    np.testing.assert_array_equal(again.parameters()["w.weight"], parameters["w.weight"])
    restored = again.task_state()
    assert restored.pop("mean").tolist() == [1, 1, 1, 1]
    assert restored == {"classes": 3, "words": ["a", "b"]}
    lines = (tmp_path / "run" / runs.METRICS).read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        runs.RunFolder.create(tmp_path, {}, "")
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_default_folders_of_one_moment_are_different(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claim.time, "strftime", lambda form: "NOW")
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    with ThreadPoolExecutor(24) as pool:
        made = list(pool.map(claim.default_folder, ["mlp"] * 24))
    assert {path.name for path in made} == {"mlp-NOW", *(f"mlp-NOW-{n}" for n in range(2, 25))}
    assert all(path.is_dir() for path in made)
    monkeypatch.setenv("SLURM_JOB_ID", "71")
    assert claim.default_folder("mlp").name == "mlp-NOW-71"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert claim.default_folder("mlp").name == "mlp-NOW-70_1"


def test_default_folder_that_cannot_be_made_is_refused_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").touch()
    with pytest.raises(UserError, match="--out"):
        claim.claim(None, "mlp")


def test_of_two_runs_that_found_one_empty_folder_one_gets_it(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "check_free", lambda path: None)
    runs.RunFolder.create(tmp_path, {"a": 1}, "")
    with pytest.raises(UserError, match="another run's"):
        runs.RunFolder.create(tmp_path, {"a": 2}, "")
    assert runs.RunFolder(tmp_path).config() == {"a": 1}


def test_a_requeued_job_begins_anew_in_its_own_unfinished_folder_only(tmp_path, monkeypatch):
    mine, other, done = tmp_path / "mine", tmp_path / "other", tmp_path / "done"
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    runs.RunFolder.create(other, {}, "")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    runs.RunFolder.create(mine, {}, "").log({"epoch": 1})
    runs.RunFolder.create(done, {}, "").finish({}, {})
    with pytest.raises(UserError, match="is not empty"):
        claim.claim(str(mine), "mlp")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    runs.RunFolder.create(claim.claim(str(mine), "mlp"), {"a": 1}, "")
    for path in (other, done):
        with pytest.raises(UserError, match="is not empty"):
            claim.claim(str(path), "mlp")


def test_a_run_without_summary_is_not_finished(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(UserError, match="is not finished"):
        runs.RunFolder.finished(tmp_path / "old")
    with pytest.raises(UserError, match="is not there"):
        runs.RunFolder.finished(tmp_path / "nowhere")


def state_of(path):
    return json.loads((path / runs.STATE).read_text())


def test_a_folder_tells_whether_its_run_runs_has_failed_or_is_finished(tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Diverged), runs.RunFolder.create(path, {}, "") as folder:
        assert state_of(path)["state"] == "running"
        with pytest.raises(UserError, match=f"is not finished: it still runs .*{os.getpid()}"):
            runs.RunFolder.finished(path)
        raise Diverged("in step 3,\nof course")
    assert state_of(path) == {"state": "failed", "why": "in step 3, of course"}
    with pytest.raises(UserError, match=r"run .*run has failed \(in step 3, of course\): give"):
        runs.RunFolder.finished(path)
    folder.finish({}, {})
    assert state_of(path) == {"state": "finished"} and runs.RunFolder.finished(path)


def test_who_goes_on_waits_a_moment_for_a_rank_that_its_launcher_has_left(tmp_path):
    runs.RunFolder.create(tmp_path / "run", {}, "")
    waits = [sys.executable, "-c", "input()"]
    with subprocess.Popen(waits, stdin=subprocess.PIPE) as other:
        told = state_of(tmp_path / "run") | {"process": other.pid, "since": None}
        if runs.since(other.pid):
            runs.write_json(tmp_path / "run" / runs.STATE, told | {"since": "before it"})
            runs.RunFolder.begun(tmp_path / "run", patience=0)
            told["since"] = runs.since(other.pid)
        runs.write_json(tmp_path / "run" / runs.STATE, told)
        with pytest.raises(UserError, match=rf"run still runs \(process {other.pid}\): wait"):
            runs.RunFolder.begun(tmp_path / "run", patience=0.1)
        reaper = threading.Thread(target=lambda: (other.stdin.write(b"\n"), other.communicate()))
        reaper.start()
        assert runs.RunFolder.begun(tmp_path / "run", patience=60).path == tmp_path / "run"
        reaper.join()


def test_a_run_that_was_killed_or_runs_elsewhere_is_told_so(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = runs.RunFolder.create(tmp_path / "run", {}, "").path
    told = state_of(path)
    runs.write_json(path / runs.STATE, told | {"process": gone.pid})
    with pytest.raises(UserError, match=f"it was killed .its process {gone.pid} is gone"):
        runs.RunFolder.finished(path)
    runs.write_json(path / runs.STATE, told | {"host": "elsewhere"})
    with pytest.raises(UserError, match="it runs on elsewhere, or was killed there"):
        runs.RunFolder.finished(path)


def test_a_failed_write_leaves_neither_half_a_file_nor_remains(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"old")

    def disk_full(file, array, **options):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", disk_full)
    with pytest.raises(UserError, match="^cannot write .*file: no space left on device: give"):
        runs.save_arrays(tmp_path / "file", [("a", np.ones(3))])
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize(
    "metrics, summary, message",
    [
        ('{"frames"', {}, "cannot read .*metrics.jsonl: Expecting"),
        ("[1]", {}, "cannot read .*metrics.jsonl: a JSON object is needed"),
        ("{}", {"steps": 1, "frames": 1}, "metrics.jsonl, .* or config.json .*'frames'"),
        ("", {"steps": 1, "strategy": "ddp"}, "metrics.jsonl, .* or config.json .*'world_size'"),
    ],
)
def test_a_damaged_run_is_not_drawn(tmp_path, metrics, summary, message):
    folder = runs.RunFolder.create(tmp_path / "run", {}, "")
    folder.finish(summary, {})
    (folder.path / runs.METRICS).write_text(metrics)
    with pytest.raises(UserError, match=message):
        Curves.of(folder)


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()), daemon=True)
    reader.start()
    runs.write_whole(pipe, b"whole")
    reader.join(timeout=20)
    assert heard == [b"whole"] and pipe.is_fifo()


@pytest.mark.parametrize(
    "name, message",
    [
        ("picture.jpg", "--plot .*picture.jpg: give a file whose name ends in .png"),
        ("folder.png", "--plot .*folder.png is a folder: give a file"),
        ("missing/picture.png", "there is no folder .*missing; make it"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, name, message):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match=message):
        files.check_file("--plot", str(tmp_path / name), ".png")
    files.check_file("--plot", str(tmp_path / "picture.png"), ".png")
