"""Editions: the first one is there byte for byte, what came later says so, and one archive."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
from witness import GOLDEN

from refimpl import cli
from refimpl.golden import cases, check, editions, pack

LADDER = check.loaded(GOLDEN)
LAST = editions.last()


@pytest.fixture
def grown(monkeypatch):
    """The committed ladder with one case more in `layers`, in the middle; computing takes long."""
    (layers,) = (one for one in LADDER if one.name == "layers")
    new = replace(layers.cases[0], name="affine.of-tomorrow", text="a new one")
    layers = editions.dated(replace(layers, cases=(layers.cases[0], new, *layers.cases[1:])))
    ladder = [layers if one.name == "layers" else one for one in LADDER]
    monkeypatch.setattr(cases, "ladder", lambda **_: iter(ladder))


@pytest.mark.parametrize("number", range(1, LAST))
def test_a_closed_edition_is_there_byte_for_byte(number):
    """Who changes a value of it on purpose gives the case another name: then it is a new one."""
    told = editions.all_editions()[number - 1]["bundles"]
    assert editions.listing(editions.until(LADDER, number)) == told


def test_a_new_case_is_the_open_editions_and_an_old_edition_has_it_not(grown, tmp_path, capsys):
    golden = tmp_path / "golden"
    assert cli.main(["golden", "write", "--cases", "layers", str(golden)]) == 0
    told = json.loads((golden / "layers" / "manifest.json").read_text())
    assert told["edition"] == LAST
    assert [case["name"] for case in told["cases"] if "since" in case] == ["affine.of-tomorrow"]
    one = check.loaded(golden)
    assert check.loaded(golden)[0].manifest() == told

    old = tmp_path / "old"
    assert cli.main(["golden", "write", "--edition", "1", "--cases", "layers", str(old)]) == 0
    content = (old / "layers" / "manifest.json").read_bytes()
    listed = editions.all_editions()[0]["bundles"]["layers"]
    assert hashlib.sha256(content).hexdigest() == listed["manifest.json"]

    against = ["golden", "check", str(old), "--quiet", "--against", str(golden)]
    assert cli.main(against) == 1
    assert "affine.of-tomorrow/y: missing" in capsys.readouterr().out
    assert cli.main([*against, "--edition", "1"]) == 0
    assert one[0].cases[1].since == LAST


def test_the_list_of_changes_names_what_came_and_why(grown, monkeypatch, capsys):
    told = [*editions.all_editions()[:-1], {"text": "open", "changes": []}]
    monkeypatch.setattr(editions, "all_editions", lambda: told)
    assert cli.main(["golden", "editions"]) == 0
    out = capsys.readouterr().out
    assert f"edition {LAST}: " in out and "    layers/affine.of-tomorrow: a new one\n" in out
    told[-1]["changes"] = [{"cases": "layers/*.of-*", "why": "a bug passed"}]
    assert cli.main(["golden", "editions"]) == 0
    assert "    layers/affine.of-tomorrow: a bug passed\n" in capsys.readouterr().out


def test_every_reason_of_the_open_edition_is_one_of_a_case():
    found = [why for _, why in editions.changes(LAST, LADDER)]
    for told in editions.all_editions()[-1]["changes"]:
        assert told["why"] in found, told


@pytest.mark.parametrize("verb", [["list"], ["write", "golden"], ["pack", "golden.zip"]])
def test_an_edition_that_is_none_is_refused(grown, tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["golden", *verb, "--edition", "9"]) == 2
    said = f"edition 9: there are editions 1 to {LAST}, see `refimpl golden editions`"
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_an_edition_is_packed_into_one_archive_with_its_sums_and_licence(tmp_path, capsys):
    some = [one for one in LADDER if one.name in ("layers", "blocks.bmuf")]
    content = pack.packed(some, 1)
    assert content == pack.packed(some, 1)
    (tmp_path / "golden.zip").write_bytes(content)
    shutil.unpack_archive(tmp_path / "golden.zip", tmp_path)
    top = tmp_path / "refimpl-golden-1"
    sums = dict(line.split("  ")[::-1] for line in (top / "SHA256SUMS").read_text().splitlines())
    files = {str(file.relative_to(top)) for file in top.rglob("*") if file.is_file()}
    assert files == {*sums, "SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((top / name).read_bytes()).hexdigest() == digest
    assert "CC0 1.0 Universal" in (top / "LICENSE").read_text()
    assert {"schema.json", "operations.json", "layers/arrays.safetensors"} <= files
    assert cli.main(["golden", "check", str(top), "--against", str(top), "--quiet"]) == 0


def test_pack_writes_the_archive_or_says_why_not(grown, tmp_path, capsys, monkeypatch):
    assert cli.main(["golden", "pack", str(tmp_path / "golden.tar")]) == 2
    assert "give a file whose name ends in .zip" in capsys.readouterr().err
    monkeypatch.setattr(cases, "ladder", lambda **_: iter(LADDER[:2]))
    assert cli.main(["golden", "pack", "--edition", "1", str(tmp_path / "golden.zip")]) == 0
    assert "golden.zip: 2 bundles, " in capsys.readouterr().out
    assert (tmp_path / "golden.zip").read_bytes() == pack.packed(editions.until(LADDER[:2], 1), 1)
