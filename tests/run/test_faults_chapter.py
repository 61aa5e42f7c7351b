"""The chapter on faults prints what really happens, to a run of the model that it shows."""

import json
import re

from launch import CHECKOUT, MPIEXEC, REFIMPL, launched, needs_mpiexec, ran

RANK = "refimpl/support/rank.sh"
CHAPTER = (CHECKOUT / "docs" / "faults.md").read_text(encoding="utf-8")


def deadly(folder):
    """Write the model of the chapter, which stops or kills rank 1 in step 3."""
    (text,) = re.findall(r"^```python\n(import os\n.*?)^```", CHAPTER, re.DOTALL | re.MULTILINE)
    path = folder / "deadly.py"
    path.write_text(text)
    return path


def shown(name):
    """Return the output of this name that the chapter shows."""
    return re.search(rf"^```output {name}\n(.*?)^```", CHAPTER, re.DOTALL | re.MULTILINE)[1]


def alike(text):
    """Return an output without what another run has otherwise."""
    for pattern in (
        r"(?<=rank )\d(?= has waited)",
        r"\d+\.\d(?= )",
        r"(?<=--patience )[\d.]+",
        r"(?<=process )\d+(?= on )",
        r"(?<= on )[\w.-]+(?=\)| was)",
        r"[\d,]+(?= B of)",
        r"(?<=message )\d",
        r"(?<=run in )\S+",
    ):
        text = re.sub(pattern, "#", text)
    return text


@needs_mpiexec
def test_a_rank_that_is_stopped_is_named_and_the_job_ends(tmp_path):
    out = tmp_path / "run"
    run = launched(3, "train", deadly(tmp_path), "--steps", 9, "--patience", 0.4, "--out", out)
    assert run.returncode == 3, run.stderr
    table = (out / "flight.txt").read_text()
    assert f"refimpl: error: {table}" in run.stderr
    assert alike(f"refimpl: error: {table}") == alike(shown("hung"))
    state = json.loads((out / "state.json").read_text())
    assert state["state"] == "failed" and state["why"] == table.splitlines()[0]


@needs_mpiexec
def test_on_mpi_the_rank_that_was_killed_is_named_and_no_other(tmp_path):
    train = [*REFIMPL, "train", deadly(tmp_path), "--steps", "9", "--set", "signal_name=SIGKILL"]
    command = [*MPIEXEC, "-n", "3", "sh", CHECKOUT / RANK, *train, "--out", tmp_path / "run"]
    run = ran(command)
    assert run.returncode not in (0, 1, 2, 3, 4)
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("refimpl:")]
    assert alike(line + "\n") == alike(shown("killed"))
    assert line.endswith(f" in {tmp_path / 'run'}")
