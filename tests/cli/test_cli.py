"""The command line, as a person meets it: what it prints, writes, refuses, and exits with."""

import io
import json
import os
import shutil
import subprocess
import sys
import threading

import idx_files
import numpy as np
import pytest
from launch import CHECKOUT, MPIEXEC, SURROUNDINGS, launched, needs_mpiexec
from loopback import spawn

from refimpl import cli
from refimpl.cli import base
from refimpl.run import reopen
from refimpl.run.folder import RunFolder
from refimpl.run.reopen import Finished
from refimpl.support.errors import UserError
from refimpl.world import agree


@pytest.mark.parametrize(
    "arguments, culprit, remedy",
    [
        ([], "COMMAND", "--help"),
        (["trian"], "trian", "train"),
        (["train", "mlp", "--lr", "fast"], "'fast'", "positive number"),
        (["train", "mlp", "--batch", "0"], "'0'", "at least 1"),
        (["train", "mlp", "--set", "hidden"], "'hidden'", "NAME=VALUE"),
        (["train", "mlp", "--bogus"], "--bogus", "--help"),
        (["topology", "-n", "8", "--partition", "3"], "partition groups of 3", "[1, 2, 4, 8]"),
        (["topology", "-n", "0"], "'0'", "at least 1"),
        (["explain", "rign"], "rign", "ring"),
        (["explain", "ring", "--svg", "ring.png"], "ring.png", ".svg"),
        (["explain", "rign", "--svg", "r.svg"], "rign", "ring"),
        (["explain", "topk", "--svg", "r.svg"], "topk", "leave --svg out"),
        (["explain", "ddp", "-k", "2"], "ddp", "leave -k 2 out"),
        (["explain", "zero3", "-p", "17"], "17", "-p from 1 to 16"),
        (["topology", "-n", "300", "--svg", "t.svg"], "300 workers", "at most 256 ranks"),
        (["topology", "-n", "4", "--svg", "t.svg", "--parameters", "9"], "--svg", "--parameters"),
        (["timeline", "nowhere.pftrace"], "nowhere.pftrace", "No such file"),
        (["report", "x", "--out", "report.pdf"], "report.pdf", ".png or .svg"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_culprit_and_the_remedy(
    capsys, arguments, culprit, remedy
):
    assert cli.main(arguments) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1 and error.startswith("refimpl: error: ")
    assert culprit in error and remedy in error


def test_help_names_every_command_and_exits_with_success(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("train", "decode", "topology", "explain", "simulate", "bench", "data"):
        assert f"\n    {command} " in text


def test_topology_and_explain_start_no_mpi():
    code = (
        "import sys; from refimpl.cli import main; "
        "main(['topology', '-n', '4', '--partition', '2']); main(['explain', 'ring']); "
        "assert 'mpi4py.MPI' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "4 ranks = 2 members x 2 shards" in run.stdout and "step" in run.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run of the image model on one rank, and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = launched(
        1, "train", "mlp", "--steps", 20, "--set", "hidden=16", "--out", folder, "--json"
    )
    assert run.returncode == 0, run.stderr
    return folder, run


def test_a_run_leaves_its_summary_metrics_config_and_model(finished):
    folder, run = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert json.loads(run.stdout) == summary
    assert summary["strategy"] == "serial" and summary["world_size"] == 1
    assert summary["steps"] == 20 and summary["frames"] == 20 * 32
    assert set(summary) >= {
        "model",
        "partition",
        "gtc_group",
        "blocks",
        "seconds",
        "frames_per_second",
        "loss",
        "frame_error_rate",
        "parameters",
        "parameters_sha256",
        "ledger",
        "max_state_bytes_per_rank",
    }
    assert set(summary["frame_error_rate"]) == {"dev", "test"}
    assert 10e6 < summary["max_resident_bytes_per_rank"] < 120e6
    none = {"messages": 0, "bytes": 0}
    assert summary["ledger"] == {"intra": none, "inter": none}
    assert summary["max_state_bytes_per_rank"] == 3 * 4 * summary["parameters"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines][-1] == 20
    with np.load(folder / "model.npz") as model:
        assert sum(model[name].size for name in model.files) == summary["parameters"]
    assert json.loads((folder / "config.json").read_text())["options"] == {"hidden": "16"}
    assert "def build" in (folder / "model.py").read_text()


def test_resident_memory_is_not_that_of_whoever_started_the_process():
    child = "from refimpl.run.trainer import peak_resident; print(peak_resident())"
    parent = (
        "import subprocess, sys; held = b'x' * 300_000_000; "
        f"subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    )
    run = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True)
    assert 10e6 < int(run.stdout) < 200e6, run.stderr


def test_a_finished_run_can_be_scored_on_other_data(finished, tmp_path):
    from refimpl.tasks.images import toy

    images, labels = toy.images("test", 0, 500)
    idx_files.write(tmp_path / "t10k-images-idx3-ubyte", images)
    idx_files.write(tmp_path / "t10k-labels-idx1-ubyte", labels)
    folder, _ = finished
    run = launched(1, "evaluate", folder, "--data", tmp_path, "--json")
    assert run.returncode == 0, run.stderr
    summary = json.loads((folder / "summary.json").read_text())
    scores = json.loads(run.stdout)[str(tmp_path)]
    assert scores["frame_error_rate"] == summary["frame_error_rate"]["test"]


def test_a_finished_run_is_scored_on_its_own_data_unless_others_are_given(finished, capsys):
    folder, _ = finished
    assert cli.main(["evaluate", str(folder), "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    summary = json.loads((folder / "summary.json").read_text())
    errors = {name: score["frame_error_rate"] for name, score in scores.items()}
    assert errors == summary["frame_error_rate"]


def an_npz(**arrays):
    """The bytes of an npz file of these arrays."""
    np.savez(file := io.BytesIO(), **arrays)
    return file.getvalue()


def edited(change, **more):
    """The change of a model file by one of its arrays, and by some more."""

    def damage(text):
        arrays = dict(np.load(io.BytesIO(text)))
        arrays["digits.weight"] = change(arrays["digits.weight"])
        return an_npz(**arrays, **more)

    return damage


def compressed(text):
    np.savez_compressed(file := io.BytesIO(), **np.load(io.BytesIO(text)))
    return file.getvalue()


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("task.npz", lambda text: an_npz(), "cannot read .*task.npz: its plain part"),
        (
            "task.npz",
            lambda text: an_npz(plain='{"a": 1}'),
            "task.npz: no image value 'a': there are inputs",
        ),
        ("config.json", lambda text: b"{", "cannot read .*config.json: Expecting"),
        ("config.json", lambda text: b"[]", "cannot read .*config.json: a JSON object is needed"),
        ("config.json", lambda text: b"{}", "config.json: run value model is missing"),
        ("config.json", lambda text: text.replace(b'"float32"', b'"f99"'), "f99: .* float32, fl"),
        ("config.json", lambda text: text.replace(b'"lr": 0.1', b'"lr": "x"'), "lr is 'x'"),
        ("config.json", lambda text: text.replace(b'"lr": 0.1', b'"lr": NaN'), "--lr nan: must"),
        (
            "config.json",
            lambda text: text.replace(b'"lr": 0.1', b'"lr": 1' + b"0" * 400),
            "--lr 1",
        ),
        ("config.json", lambda text: text.replace(b'"lr"', b'"rate"'), "no recipe value 'rate'"),
        ("config.json", lambda text: text.replace(b'"seed"', b'"sed"'), "no run value 'sed'"),
        ("config.json", lambda text: text.replace(b'"seed": 0', b'"seed": true'), "seed is True"),
        ("config.json", lambda text: text.replace(b'"seed": 0', b'"seed": -4'), "--seed -4: give"),
        ("config.json", lambda text: text.replace(b'"16"', b"[16]"), "options is {'hidden': .16"),
        ("config.json", lambda text: text.replace(b'"serial"', b'"x"'), "json: no strategy 'x'"),
        (
            "config.json",
            lambda text: text.replace(b'"settings": {}', b'"settings": {"bands": 3}'),
            "config.json: no images setting 'bands'",
        ),
        ("config.json", lambda text: b"[" * 10**6, "cannot read .*config.json: it is nested too"),
        ("config.json", lambda text: b'{"a":' * 10**6, "cannot read .*config.json: it is nested"),
        ("config.json", lambda text: b'{"a": 1' + b"0" * 5000 + b"}", "cannot read .*config"),
        ("model.py", lambda text: None, "cannot read .*model.py: .*No such file"),
        ("model.py", lambda text: b"def", "model.py, line 1: SyntaxError"),
        ("model.npz", lambda text: text[:100], "cannot read .*model.npz: File is not a zip"),
        ("model.npz", lambda text: b"", "cannot read .*model.npz"),
        ("model.npz", edited(lambda w: w * np.nan), "digits.weight holds a number that is"),
        ("model.npz", edited(lambda w: w + np.inf), "digits.weight holds a number that is"),
        ("model.npz", edited(lambda w: w.astype(complex)), "no digits.weight of float32: train"),
        ("model.npz", edited(lambda w: w.astype("f8")), "no digits.weight of float32: train"),
        ("model.npz", edited(lambda w: w.astype(">f4")), "no digits.weight of float32: train"),
        ("model.npz", edited(lambda w: w > 0), "no digits.weight of float32: train"),
        ("model.npz", edited(lambda w: w.astype(str)), "no digits.weight of float32: train"),
        ("model.npz", edited(lambda w: w.T), r"no digits.weight of \(16, 10\): train again"),
        ("model.npz", edited(lambda w: w.ravel()), r"no digits.weight of \(16, 10\): train again"),
        ("model.npz", edited(lambda w: w.astype(object)), "which only pickle can read"),
        ("model.npz", edited(lambda w: w, more=1), "no layer has a parameter 'more'"),
        ("model.npz", lambda text: compressed(text), "is compressed or there twice"),
        (
            "model.npz",
            lambda text: text.replace(b"(16, 10)", b"(1600000, 1000000)"),
            "cannot read",
        ),
        ("task.npz", lambda text: text[:-50], "cannot read .*task.npz"),
        ("task.npz", lambda text: None, "cannot read .*task.npz: .*No such file"),
    ],
)
def test_a_damaged_run_is_refused_with_the_file(finished, tmp_path, name, damage, message):
    folder = tmp_path / "run"
    shutil.copytree(finished[0], folder)
    content = damage((folder / name).read_bytes())
    assert content != (folder / name).read_bytes()
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)

    def body(comm):
        with pytest.raises(UserError, match=message) as error:
            Finished.open(comm, folder)
        return str(error.value)

    (text,) = spawn((0,), body)
    assert name in text and "\n" not in text


def test_a_run_that_is_another_on_one_rank_is_refused(finished, monkeypatch):
    folder, _ = finished
    ranks, real, compared = {}, RunFolder.model_text, []

    def model_text(self):
        return real(self) + "# mine" * ranks[threading.get_ident()]

    def same(comm, values):
        compared.append(values)
        agree.same(comm, values)

    monkeypatch.setattr(RunFolder, "model_text", model_text)
    monkeypatch.setattr(reopen, "same", same)

    def body(comm):
        ranks[threading.get_ident()] = comm.rank
        with pytest.raises(UserError, match=f"digest of {folder}/model.py is .* on rank 0 but"):
            Finished.open(comm, folder)

    spawn((0, 0), body)
    assert {f"the digest of {folder / name}" for name in ("task.npz", "model.npz")} <= set(
        compared[0]
    )


def test_a_run_folder_is_never_written_over(finished):
    folder, _ = finished
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run = launched(1, "train", "mlp", "--steps", 1, "--out", folder)
    assert run.returncode == 2 and "is not empty" in run.stderr and "Traceback" not in run.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@needs_mpiexec
def test_exact_training_from_the_command_line_ends_with_serials_bits(tmp_path):
    digests = {}
    common = ("train", "mlp", "--steps", 3, "--set", "hidden=8", "--reduction", "exact", "--json")
    for ranks, algorithm in ((1, "ring"), (2, "halving-doubling"), (3, "native")):
        run = launched(
            ranks,
            *common,
            "--microsteps",
            6 // ranks,
            "--collectives",
            algorithm,
            "--out",
            tmp_path / str(ranks),
        )
        assert run.returncode == 0, run.stderr
        digests[ranks] = json.loads(run.stdout)["parameters_sha256"]
    assert len(set(digests.values())) == 1, digests


@needs_mpiexec
def test_a_rank_that_fails_alone_ends_the_job_with_its_traceback(tmp_path):
    model = tmp_path / "bad.py"
    model.write_text(
        "from refimpl import nn\nfrom refimpl.run.config import Recipe\n"
        "class Faulty(nn.Affine):\n"
        "    def forward(self, x):\n"
        "        from mpi4py import MPI\n"
        "        if MPI.COMM_WORLD.rank == 1: raise RuntimeError('a bug on one rank')\n"
        "        return super().forward(x)\n"
        "def build(seed, inputs, classes):\n"
        "    return nn.Sequential(Faulty('a', inputs, classes, seed))\n"
        "def recipe(): return Recipe(task='images', epochs=1, lr=0.1)\n"
    )
    run = launched(2, "train", model, "--out", tmp_path / "run", timeout=60)
    assert run.returncode != 0
    assert "RuntimeError: a bug on one rank" in run.stderr
    assert not (tmp_path / "run" / "summary.json").exists()


@needs_mpiexec
def test_a_mistake_that_serial_meets_alone_ends_a_comparison_on_all_ranks(tmp_path):
    options = ["--strategies", "serial,ddp", "--data", tmp_path / "none"]
    run = launched(2, "compare", "mlp", *options, timeout=60)
    assert run.returncode == 2
    assert run.stderr.count("refimpl: error: ") == 1 and str(tmp_path / "none") in run.stderr


@needs_mpiexec
def test_one_line_for_all_ranks_and_exit_code_2(tmp_path):
    run = launched(2, "train", "mlp", "--strategy", "mics", "--partition", 3)
    assert run.returncode == 2
    assert run.stderr.count("refimpl: error: ") == 1 and "Traceback" not in run.stderr
    assert "partition groups of 3" in run.stderr


def test_training_takes_the_simplest_row_with_the_lengths_that_are_given(tmp_path):
    run = launched(1, "train", "mlp", "--partition", 3, cwd=tmp_path)  # mics, not serial
    assert run.returncode == 2 and "1 rank into partition groups of 3" in run.stderr


def test_a_run_that_begins_nothing_leaves_no_folder(tmp_path):
    run = launched(1, "train", "mlp", "--batch", 10**8, cwd=tmp_path)
    assert run.returncode == 2, run.stderr
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    "asked, step, remedy",
    [("4", {}, "MPIEXEC"), ("four", {}, "four"), ("4", {"SLURM_STEP_ID": "0"}, "SLURM_MPI_TYPE")],
)
def test_worlds_of_one_are_one_line_with_the_cure_for_this_launcher(
    monkeypatch, tmp_path, asked, step, remedy
):
    monkeypatch.setenv("REFIMPL_RANKS", asked)
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    said = []
    for rank in "01":
        monkeypatch.setenv("SLURM_PROCID", rank)
        said.append(launched(1, "train", "mlp", "--steps", 1, cwd=tmp_path))
    assert [run.returncode for run in said] == [2, 0]  # srun's is the highest
    (line,) = "".join(run.stderr + run.stdout for run in said).splitlines()
    assert "this world has 1" in line and remedy in line


@needs_mpiexec
@pytest.mark.parametrize("ranks", [1, 3])
def test_a_mistake_on_all_ranks_is_one_line_and_the_exit_code_is_rank_0s_alone(tmp_path, ranks):
    codes = tmp_path / "codes"
    note = f'"$@"; code=$?; echo $code >>{codes}; exit $code'
    words = ["sh", "-c", note, "sh", sys.executable, "-m", "mpi4py", "-m", "refimpl"]
    run = subprocess.run(
        [*MPIEXEC, "-n", str(ranks), *words, "train", "mlp", "--batch", str(10**8)],
        env=SURROUNDINGS | os.environ | {"PYTHONPATH": str(CHECKOUT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1 or "prterun" in run.stderr
    assert codes.read_text().split()[-1] == "2"
    assert sorted(codes.read_text().split()) == ["0"] * (ranks - 1) + ["2"]


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=needs_mpiexec)])
def test_a_mistake_after_mpi_has_started_is_one_line_and_nothing_of_mpis_own(tmp_path, ranks):
    """Also where somebody's exception has several lines."""
    (tmp_path / "net.py").write_text("raise ValueError('one\\n\\n  two\\r\\nthree')\n")
    run = launched(ranks, "train", "net.py", cwd=tmp_path, timeout=60)
    said = "refimpl: error: model file net.py, line 1: ValueError: one two three\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", said)


@pytest.mark.parametrize("letters", ["utf-8", "ascii", "cp1252"])
def test_what_standard_output_has_no_letters_for_is_escaped(monkeypatch, letters):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), letters))
    base.show("wrote \udcff.svg")
    assert sys.stdout.buffer.getvalue() == b"wrote \\udcff.svg\n"
