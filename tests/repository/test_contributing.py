"""The recipes of CONTRIBUTING.md, walked through with the toy examples that stand there."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from launch import launched

from refimpl import cli
from refimpl.golden import cases, npz
from refimpl.run.modelfile import ModelFile
from refimpl.support.errors import UserError

TOP = Path(__file__).resolve().parents[2]
TEXT = (TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
TOYS = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))
MODEL, CASE = "models/narrow.py", "refimpl/golden/cases/majority.py"


def module_of(path):
    """Return the module that a recipe's text makes."""
    module = ModuleType(Path(path).stem)
    exec(compile(TOYS[path], path, "exec"), vars(module))
    return module


def test_there_is_a_toy_for_each_of_these_recipes():
    assert set(TOYS) == {MODEL, CASE}


def test_a_model_is_one_file_that_trains_and_has_options(tmp_path):
    file = tmp_path / "narrow.py"
    file.write_text(TOYS[MODEL])
    train = ["train", file, "--steps", 3, "--out"]
    run = launched(1, *train, tmp_path / "run", "--set", "hidden=8")
    assert run.returncode == 0, run.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["parameters"] == 784 * 8 + 8 + 8 * 10 + 10
    refused = launched(1, *train, tmp_path / "other", "--set", "width=8")
    assert refused.returncode == 2 and "no option 'width': it has hidden" in refused.stderr


def test_two_layers_of_one_name_are_refused():
    text = TOYS[MODEL].replace('"digits"', '"hidden"')
    with pytest.raises(UserError, match="two layers are named 'hidden'"):
        ModelFile.parse("narrow", text, MODEL).build(0, 784, 10, {})


def test_a_golden_case_is_one_file_and_two_entries(tmp_path, monkeypatch, capsys):
    module = module_of(CASE)
    monkeypatch.setattr(cases, "MODULES", (cases.bmuf, module))  # all others take half a minute
    monkeypatch.setattr(cases, "OPERATIONS", (*cases.OPERATIONS, module.majority))
    golden, theirs, only = tmp_path / "golden", tmp_path / "theirs", "compression.majority/*"

    assert cli.main(["golden", "list", "--cases", only]) == 0
    assert "compression.majority/tiny" in capsys.readouterr().out
    assert cli.main(["golden", "write", "--cases", only, str(golden)]) == 0
    (folder,) = golden.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["arrays.npz", "manifest.json"]
    arrays = npz.read(folder / "arrays.npz").arrays
    assert arrays["tiny/result"].tolist() == [1.0, -1.0, -1.0]

    answers = {name: value for name, value in arrays.items() if name.endswith("/result")}
    (theirs / folder.name).mkdir(parents=True)
    check = ["golden", "check", str(theirs), "--against", str(golden)]
    np.savez(theirs / folder.name / "arrays.npz", **answers)
    assert cli.main(check) == 0
    answers["tiny/result"][1] = 1
    np.savez(theirs / folder.name / "arrays.npz", **answers)
    assert cli.main(check) == 1
    assert "first broken rung: 2, compression: compression.majority/tiny/result" in (
        capsys.readouterr().out
    )


def test_files_and_folders_that_it_names_are_there():
    named = re.findall(r"`((?:refimpl|models|tests|docs|\.ci)/[\w/.]*\w)", TEXT)
    named += re.findall(r"\]\(([^)#:]+)\)", TEXT)
    missing = {name for name in named if not (TOP / name).exists()} - set(TOYS)
    assert not missing and len(named) > 20


def test_every_file_of_more_than_300_lines_is_listed_and_no_other():
    listed = re.findall(r"^\| `(refimpl/[\w/]+\.py)` \| \S.* \|$", TEXT, re.MULTILINE)
    long = [
        path.relative_to(TOP).as_posix()
        for path in (TOP / "refimpl").rglob("*.py")
        if len(path.read_text(encoding="utf-8").splitlines()) > 300
    ]
    assert sorted(listed) == sorted(long)


def test_folders_of_tests_are_all_told():
    beside = set(re.findall(r"`tests/(\w+)`", TEXT))
    rooms = {path.parent.name for path in (TOP / "refimpl").glob("*/__init__.py")}
    folders = {p.name for p in (TOP / "tests").iterdir() if p.is_dir()} - {"__pycache__"}
    assert folders <= beside | rooms


def test_durations_are_summed_by_folder(tmp_path):
    report = tmp_path / "tests.xml"
    case = '<testcase classname="tests.nn.test_{}" name="test_x" time="{}"/>'
    report.write_text(f"<s>{case.format('a', 1.5)}{case.format('b', 2.5)}</s>")
    script = TOP / "tests" / "helpers" / "durations.py"
    run = subprocess.run([sys.executable, script, report], capture_output=True, text=True)
    assert "| `tests/nn` | 2 | 4 |" in run.stdout, run.stderr
