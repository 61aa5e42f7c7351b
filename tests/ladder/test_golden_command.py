"""`refimpl golden`: what it writes, refuses and exits with, on one rank and on many."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from launch import MPIEXEC, SURROUNDINGS, launched, needs_mpiexec
from witness import GOLDEN, differing

from refimpl import cli
from refimpl.golden import bundle, cases, check

LADDER = check.loaded(GOLDEN)


@pytest.fixture(autouse=True)
def known(monkeypatch):
    """Computing the ladder takes seconds; here it is the committed one."""
    monkeypatch.setattr(cases, "ladder", lambda **_: iter(LADDER))


@pytest.fixture
def theirs(tmp_path):
    """A copy of one bundle that a test may spoil."""
    shutil.copytree(GOLDEN / "blocks.bmuf", tmp_path / "theirs" / "blocks.bmuf")
    return tmp_path / "theirs"


def test_write_list_and_check(tmp_path, capsys):
    folder = str(tmp_path / "golden")
    assert cli.main(["golden", "write", "--cases", "blocks.bmuf", folder]) == 0
    assert "blocks.bmuf: 12 cases" in capsys.readouterr().out
    assert cli.main(["golden", "list", "--cases", "*/nbm.tiny"]) == 0
    assert "blocks.bmuf/nbm.tiny: bmuf: " in capsys.readouterr().out
    assert cli.main(["golden", "check", folder, "--cases", "blocks.*/cbm*"]) == 0
    assert capsys.readouterr().out.endswith("30 arrays of 6 cases, 0 wrong\n")
    assert cli.main(["golden", "check", folder, "--against", folder, "--quiet"]) == 0
    assert capsys.readouterr().out == "60 arrays of 12 cases, 0 wrong\n"
    assert cli.main(["golden", "check", folder, "--quiet"]) == 1
    assert "first broken rung: 1, collectives: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["check", "NOWHERE"], "NOWHERE is not there: give one that holds BUNDLE/arrays.npz"),
        (["check", "FILE"], "FILE is not a folder: give one that holds"),
        (["check", ".", "--cases", "layer"], "no case matches 'layer': see `refimpl golden list`"),
        (["check", GOLDEN / "layers"], "layers holds arrays.npz itself: give the folder around"),
        (["check", ".", "--against", GOLDEN / "layers"], "holds arrays.npz itself: give the fold"),
        (["list", "--cases", "layer"], "no case matches 'layer'"),
        (["check", ".", "--against", "FILE"], "no golden bundles in FILE: write some with"),
        (["check", ".", "--against", "NOWHERE"], "no golden bundles"),
        (["write", "--cases", "nothing", "DIR"], "no case matches 'nothing'"),
        (["write", "FILE"], "FILE is not a folder: give a new or empty folder"),
        (["write", "FILE/golden"], "cannot write FILE/golden/collectives.ring: Not a"),
        (["write", "."], ". holds FILE, which is no golden bundle: give a new or empty folder"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    assert cli.main(["golden", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("refimpl: error: ") and said in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_a_bundle_is_not_replaced_by_a_part_of_it(theirs, capsys):
    before = {file: file.read_bytes() for file in theirs.rglob("*") if file.is_file()}
    assert cli.main(["golden", "write", "--cases", "blocks.bmuf/nbm.*", str(theirs)]) == 2
    assert "blocks.bmuf holds 6 other cases, which would be lost: give" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in theirs.rglob("*") if file.is_file()} == before


def test_a_damaged_bundle_is_written_again(theirs):
    manifest = theirs / "blocks.bmuf" / bundle.MANIFEST
    right = manifest.read_bytes()
    manifest.write_bytes(b"{")
    assert cli.main(["golden", "write", "--cases", "blocks.bmuf", str(theirs)]) == 0
    assert manifest.read_bytes() == right


def first(told):
    return told["cases"][0]["arrays"]


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda told: told.update(format=True), "manifest.json: at format: True must be 1"),
        (lambda told: told.update(format=1.0), "at format: 1.0 must be 1"),
        (lambda told: told.update(format=2), "has format 2, this refimpl reads 1"),
        (lambda told: told.update(rung=99), "at rung: 99 must be at most 8"),
        (lambda told: told.update(rung=1), "at rung: 1 is not the number of 'blocks', 3"),
        (lambda told: told.update(rung_name="x"), "at rung_name: 'x' must be one of"),
        (lambda told: told.update(place=10**400), "at place: 1000.* must be at most 1000000"),
        (lambda told: told["cases"].append(told["cases"][0]), "at cases: the name .* twice"),
        (
            lambda told: first(told).append(first(told)[0]),
            r"at cases\[0\].arrays: the name .* twice",
        ),
        (lambda told: first(told)[-1].update(ulp=10**400), r"ulp: 1000.* must be at most 1000000"),
        (
            lambda told: first(told)[0].update(shape=[10**30]),
            r"shape\[0\]: 1000.* must be at most",
        ),
        (
            lambda told: told["cases"][0]["settings"].update(x=float("nan")),
            "a number .* not finite",
        ),
        (lambda told: told["cases"][0]["settings"].update(x=-float("inf")), "that is not finite"),
        (lambda told: told.update(cases={}), "at cases: {} is no array"),
    ],
)
def test_a_manifest_that_was_edited_is_refused_by_the_place_in_it(theirs, capsys, change, said):
    manifest = theirs / "blocks.bmuf" / bundle.MANIFEST
    told = json.loads(manifest.read_text())
    change(told)
    manifest.write_text(json.dumps(told))
    assert cli.main(["golden", "check", str(theirs), "--against", str(theirs)]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1 and len(error) < 500, error


def test_a_manifest_without_end_is_refused(theirs, capsys):
    (theirs / "blocks.bmuf" / bundle.MANIFEST).write_text("[" * 10**6)
    assert cli.main(["golden", "check", str(theirs), "--against", str(theirs)]) == 2
    assert "manifest.json is no JSON: it is nested too deeply" in capsys.readouterr().err


@pytest.mark.parametrize("fits", [0, 1])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, capsys, fits):
    """And when there is room again, the same command goes on from there."""
    write = ["golden", "write", "--cases", "blocks.bmuf", str(tmp_path / "golden")]
    right, written = Path.write_bytes, []

    def filling(self, content):
        if len(written) < fits:
            written.append(self)
            return right(self, content)
        right(self, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", filling)
        assert cli.main(write) == 2
    assert "No space left on device: give another folder" in capsys.readouterr().err
    assert [file.name for file in tmp_path.rglob("*.*") if file.is_file()] == [
        bundle.MANIFEST for _ in written
    ]
    assert (tmp_path / "golden" / "blocks.bmuf").exists() == bool(written)
    assert cli.main(write) == 0
    assert all(line.right for line in check.folders(tmp_path / "golden", LADDER, "blocks.bmuf"))


@needs_mpiexec
def test_on_ranks_of_an_mpi_the_first_writes_the_same_bytes(tmp_path):
    run = launched(2, "golden", "write", tmp_path, timeout=300)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("blocks.bmuf: 12 cases") == 1
    assert not differing(tmp_path)


@needs_mpiexec
def test_on_ranks_of_an_mpi_a_mistake_is_told_once_and_what_is_wrong_fails_all(tmp_path):
    run = launched(2, "golden", "check", GOLDEN, "--against", GOLDEN, "--cases", "nothing")
    assert run.returncode != 0
    assert run.stderr.count("refimpl: error: no case matches 'nothing'") == 1
    run = launched(2, "golden", "check", tmp_path, "--against", GOLDEN, "--cases", "layers")
    assert run.returncode != 0
    assert run.stdout.count("WRONG layers: arrays.npz is missing") == 1


@needs_mpiexec
@pytest.mark.parametrize(
    "pattern, codes", [("nothing", [2, 0]), ("layers", [1, 1]), ("blocks.bmuf", [0, 0])]
)
def test_every_rank_ends_with_what_came_of_the_check_on_the_first(tmp_path, pattern, codes):
    """After a user's mistake only rank 0 brings the job its code; the others leave first."""
    (tmp_path / "layers").mkdir()
    shutil.copytree(GOLDEN / "blocks.bmuf", tmp_path / "blocks.bmuf")
    program = (
        "import sys; from pathlib import Path; "
        "from mpi4py import MPI; from refimpl.cli import main; "
        "folder, golden, pattern = sys.argv[1:]; rank = MPI.COMM_WORLD.rank; "
        "code = main(['golden', 'check', folder, '--against', golden, '--cases', pattern]); "
        "Path(folder, f'rank{rank}').write_text(str(code))"
    )
    command = [*MPIEXEC, "-n", "2", sys.executable, "-c", program, tmp_path, GOLDEN, pattern]
    subprocess.run(
        [str(word) for word in command],
        cwd=GOLDEN.parents[1],
        env=SURROUNDINGS | os.environ,
        stdin=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )
    assert [int((tmp_path / f"rank{rank}").read_text()) for rank in range(2)] == codes
