"""A rank that a signal kills is named by its parent, with the place that it has left."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import refimpl
from refimpl.run import place
from refimpl.world.events import Listener

RANK = Path(refimpl.__file__).parent / "support" / "rank.sh"


def parent(*words, **variables):
    return subprocess.run(
        ["sh", RANK, *words], capture_output=True, text=True, env=os.environ | variables
    )


@pytest.mark.parametrize("saves", [False, True])
def test_a_rank_that_is_killed_is_named_with_its_last_place(tmp_path, saves):
    program = (
        "import os; from pathlib import Path\n"
        "from refimpl.run.place import place; from refimpl.world.events import Events\n"
        f"events = Events(0); events.add(place(2, Path('runs/x'), {saves}))\n"
        "with events.during('phase', 'step'): os.kill(os.getpid(), 9)"
    )
    run = parent(sys.executable, "-c", program, PMI_RANK="5", TMPDIR=str(tmp_path))
    assert run.returncode == -9
    assert run.stderr == (
        f"refimpl: rank 5 on {os.uname().nodename} was killed by signal 9 (SIGKILL, perhaps for "
        "want of memory) at step 3 of the run in runs/x"
        f"{'; go on with: refimpl train --resume runs/x' if saves else ''}\n"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 130, 141, 143, 255])
def test_a_rank_that_leaves_is_left_alone(code):
    run = parent("sh", "-c", f"echo said >&2; exit {code}")
    assert (run.returncode, run.stderr) == (code, "said\n")


def test_without_a_place_to_write_it_is_named_all_the_same():
    words = ("sh", "-c", "kill -s SEGV $$")
    run = parent(*words, SLURM_PROCID="7", TMPDIR="/nowhere")
    assert run.returncode == -11
    assert re.fullmatch(
        r"refimpl: rank 7 on \S+ was killed by signal 11 \(SIGSEGV\)\n", run.stderr
    )


def test_a_descriptor_that_is_another_file_is_not_written_to(tmp_path):
    with (tmp_path / "other").open("w") as other:
        for told in (str(other.fileno()), "99", "no number"):
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("REFIMPL_PLACE", told)
                assert type(place.place(0, tmp_path)) is Listener
    assert (tmp_path / "other").read_text() == ""


def test_a_place_that_cannot_be_written_ends_no_run(tmp_path, monkeypatch):
    (tmp_path / "other").touch()
    with (tmp_path / "other").open() as other:  # not for writing
        (tmp_path / "other").unlink()
        monkeypatch.setenv("REFIMPL_PLACE", str(other.fileno()))
        told = place.place(0, tmp_path)
        told.count(("phase", "step"))
        assert isinstance(told, place.Place) and told.step == 1
