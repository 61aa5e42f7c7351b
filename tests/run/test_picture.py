"""What a report draws is what runs have written, inside of an epoch too."""

import json

import pytest

from refimpl.run import picture
from refimpl.run.folder import METRICS, STEPS, RunFolder
from refimpl.run.picture import Curves, Series
from refimpl.run.timeline import Piece, Timeline
from refimpl.support.errors import UserError


def count(nbytes):
    return {"messages": 1, "bytes": nbytes}


@pytest.fixture
def folder(tmp_path):
    """Return the folder of a run of one epoch, four steps of 10 frames in 2 s, each logged."""
    found = RunFolder.create(tmp_path / "run", {"recipe": {"task": "acoustic"}}, "")
    told = {"density": 0.5, "residual": 2.0}
    sent = {"intra": count(400), "inter": count(800)}
    dev = {"loss": 1.0, "frame_error_rate": 0.25, "frames": 5}
    line = {"step": 4, "frames": 40, "loss": 3.0, "dev": dev, "seconds": 2.0, "compression": told}
    found.log(line | {"blocks": {"synchronised": 1, "block_update_norm": 7.0}})
    for step in range(1, 5):
        more = {"compression": told | {"density": step / 10}} if step > 1 else {}
        found.log_step({"step": step, "loss": 5.0 - step, **more})
    summary = {"steps": 4, "frames": 40, "strategy": "gtc-bmuf", "world_size": 2, "ledger": sent}
    found.finish(summary, {})
    return found


def test_a_run_of_one_epoch_has_a_value_for_every_logged_step(folder):
    run = Curves.of(folder)
    assert run.loss == Series([10, 20, 30, 40], [4, 3, 2, 1])
    assert run.time(run.loss.at) == [0.5, 1.0, 1.5, 2.0]
    assert run.numbers == {
        "density": Series([20, 30, 40], [0.2, 0.3, 0.4]),
        "residual": Series([20, 30, 40], [2, 2, 2]),
        "block_update_norm": Series([40], [7]),
    }
    assert run.bytes_per_step == {"intra": 100, "inter": 200}


def test_a_run_without_a_log_of_steps_has_one_for_every_epoch(folder):
    (folder.path / STEPS).unlink()
    run = Curves.of(folder)
    assert run.loss == Series([40], [3]) and run.numbers["density"] == Series([40], [0.5])
    assert json.loads((folder.path / METRICS).read_text())["step"] == 4


@pytest.mark.parametrize("name, begins", [("r.png", b"\x89PNG"), ("r.svg", b"<?xml")])
def test_a_report_is_what_its_name_says_and_the_same_every_time(folder, tmp_path, name, begins):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra [plot])")
    picture.require_matplotlib()
    ranks = [[Piece("compute", "a", 0, 5, 0, "", (), ())], []]
    trace = Timeline("t", (1, 1), 10, ranks, ["node 0"] * 2)
    contents = []
    for _ in range(2):
        picture.runs([folder, folder], tmp_path / name, [trace])
        contents.append((tmp_path / name).read_bytes())
    assert contents[0].startswith(begins) and contents[0] == contents[1]
    before = contents[0]

    class Full:
        def savefig(self, file, **given):
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=f"cannot write .*{name}: No space left on device"):
        picture.save(Full(), tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert {file.name for file in tmp_path.iterdir()} == {"run", name}
