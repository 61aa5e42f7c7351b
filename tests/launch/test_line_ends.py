"""A checkout of git for Windows, whose files a shell and the golden checks read."""

import shutil
import subprocess

import pytest
from place import CHECKOUT


def test_checkout_of_git_for_windows_has_line_ends_that_a_shell_reads(tmp_path):
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no clone, or no git")
    asked = ["check-attr", "eol", "--", "run_mpi.sh", ".ci/run", "models/mlp.py"]
    said = subprocess.run(["git", "-C", CHECKOUT, *asked], capture_output=True, text=True).stdout
    assert [line.rpartition(": ")[2] for line in said.splitlines()] == ["lf"] * 3


def test_a_checkout_of_git_for_windows_has_the_same_bytes(tmp_path):
    if not (CHECKOUT / ".git").exists():
        pytest.skip("not a clone")
    clone = ["git", "clone", "-q", "-c", "core.autocrlf=true", CHECKOUT, tmp_path / "clone"]
    subprocess.run(clone, check=True)
    texts = ("run_mpi.sh", "setup.cfg", ".ci/run", "tests/golden/acoustic/manifest.json")
    for name in texts:
        assert b"\r" not in (tmp_path / "clone" / name).read_bytes(), name
