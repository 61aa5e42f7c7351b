"""Full or closed things: one line that names them and the remedy, and nothing half-written."""

import json
import resource
import subprocess
import sys

import pytest
from launch import REFIMPL, launched, needs_mpiexec, ran

from refimpl.cli import base
from refimpl.support.errors import UserError

MODEL = """
import resource
from refimpl import nn
from refimpl.run.config import Recipe
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
def build(seed, inputs, classes):
    return nn.Sequential(nn.Affine("a", inputs, classes, seed))
def recipe():
    return Recipe(task="images", epochs=2, lr=0.1, batch=100)
"""


@needs_mpiexec
@pytest.mark.parametrize(
    "ranks, limit, name, more",
    [
        (1, 20_000, "model.npz", ()),  # 31 KB
        (2, 20_000, "model.npz", ()),
        (2, 2500, "steps.jsonl", ("--log-every", 1)),  # 15 lines of 200 bytes in an epoch
        (1, 200, "state.json", ()),
    ],
)
def test_a_disk_that_fills_while_a_run_is_written_is_told_on_all_ranks(
    tmp_path, ranks, limit, name, more
):
    (tmp_path / "net.py").write_text(MODEL.format(limit=limit))
    run = launched(ranks, "train", "net.py", "--out", "run", *more, cwd=tmp_path, timeout=100)
    assert run.returncode == 2, run.stderr
    said = f"refimpl: error: cannot write run/{name}: File too large: raise the limit on the size"
    assert run.stderr.startswith(said) and run.stderr.count("\n") == 1
    left = {path.name: path.read_text() for path in (tmp_path / "run").iterdir()}
    assert set(left) <= {"config.json", "metrics.jsonl", "model.py", "state.json", "steps.jsonl"}
    if name == "state.json":
        assert not left  # nothing was begun
    else:
        json.loads(left["config.json"])
    for line in left.get("steps.jsonl", "").splitlines(keepends=True):
        assert json.loads(line) and line.endswith("\n")


def shell(command, cwd=None):
    program = " ".join([*REFIMPL, command])
    return ran(["bash", "-c", program], cwd=cwd, timeout=60)


@pytest.mark.parametrize(
    "command, code, said",
    [
        ("topology -n 4 >&-", 2, "standard output is closed: give it a file, or /dev/null"),
        ("topology -n 4 >/dev/full", 2, "cannot write to standard output: No space left on dev"),
        ("topology -n 2000 | true; exit ${PIPESTATUS[0]}", 141, ""),
        ("topology -n 4 2>&- >/dev/null", 0, ""),
        ("train --help >/dev/full", 2, "cannot write to standard output: No space left on dev"),
        ("topology -n 0 2>&-", 2, ""),
        ("topology -n 0 >&- 2>&-", 2, ""),
        ("topology -n 0 2>/dev/full", 1, ""),
    ],
)
def test_a_stream_that_is_closed_or_full_is_no_success(command, code, said):
    run = shell(command)
    assert run.returncode == code, run.stderr
    assert said in run.stderr and run.stderr.count("\n") == bool(said)


LONG = "n" * 300


@pytest.mark.parametrize(
    "command",
    [
        f"train mlp --out {LONG}",
        f"train {LONG}.py",
        f"train mlp --data {LONG}",
        f"evaluate {LONG} --data .",
        f"compare mlp --json {LONG}",
        f"golden check {LONG}",
        f"golden write {LONG} --cases layers",
        f"report {LONG}",
        f"data synth {LONG}",
    ],
)
def test_a_name_that_is_too_long_is_one_line(tmp_path, command):
    run = shell(command, cwd=tmp_path)
    assert run.returncode == 2, run.stderr
    assert run.stderr.startswith("refimpl: error: ") and run.stderr.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("flag", ["f", "n", "v"])
def test_a_limit_that_an_mpi_would_die_of_is_named_before_it_starts(monkeypatch, capsys, flag):
    """MPICH, for one, dies without a word of ours, of shared memory or of a socket."""
    monkeypatch.setattr(base, "started", lambda: None)
    limited = {"f": resource.RLIMIT_FSIZE, "n": resource.RLIMIT_NOFILE, "v": resource.RLIMIT_AS}
    monkeypatch.setattr(
        base.resource, "getrlimit", lambda what: (50, 50) if what == limited[flag] else (-1, -1)
    )
    with pytest.raises(UserError, match=rf"is 50, and an MPI needs .* \(ulimit -{flag}\)$"):
        base.world()


def test_a_limit_on_open_files_is_named(tmp_path):
    code = (
        "import resource, sys; from refimpl import cli; import refimpl.cli.golden, "
        "refimpl.golden.cases, refimpl.golden.check; "
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); "
        "sys.exit(cli.main(['golden', 'check', '.', '--against', '.']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert "Too many open files: raise the limit on open files (ulimit -n)" in run.stderr
