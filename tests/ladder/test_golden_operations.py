"""Operations as data: one declaration each, exported, and every case is as it says."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from witness import GOLDEN

from refimpl import cli
from refimpl.golden import OPERATIONS, operations, read, schema
from refimpl.golden.cases import ask, layers
from refimpl.golden.operations.declared import Operation, Setting, given, out

CHAPTER = (GOLDEN.parents[1] / "docs" / "golden.md").read_text(encoding="utf-8")
WRITE = "from refimpl.golden import operations as o; o.FILE.write_text(o.exported())"


def test_the_exported_file_is_what_the_declarations_say():
    same = operations.FILE.read_text("utf-8") == operations.exported()
    assert same, f'out of date: python -c "{WRITE}"'


def test_every_operation_of_the_ladder_is_declared_in_its_order_and_no_other():
    told = json.loads(operations.exported())["operations"]
    assert tuple(told) == tuple(operations.DECLARED) == OPERATIONS
    for one in told.values():
        assert one["text"] and one["equation"] and one["outputs"]


def test_the_chapter_has_the_table_of_operations():
    assert operations.table() in CHAPTER, f"it has not\n\n{operations.table()}"


def test_what_must_come_out_of_some_cases_only_does_come_out_of_some():
    """Else it would be there always, or never; and a default that no case leaves out is none."""
    cases = [case for name in read.names(GOLDEN) for case in read.manifest(GOLDEN / name)["cases"]]
    for one in operations.DECLARED.values():
        asked = [case for case in cases if case["operation"] == one.name]
        for values in one.arrays:
            there = [
                any(values.pattern.fullmatch(array["name"]) for array in case["arrays"])
                for case in asked
            ]
            assert any(there), (one.name, values.name)
            assert values.role == "detail" or all(there) != bool(values.when), values


def a_case():
    return read.manifest(GOLDEN / "compression.gtc")["cases"][0]


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda case: case["settings"].update(tau="0.5"), "at settings.tau: '0.5' is no number"),
        (lambda case: case["settings"].update(eta=1), "at settings: eta is not known"),
        (lambda case: case["settings"].clear(), "at settings: tau is missing"),
        (lambda case: case["arrays"].pop(0), "gradient of gtc_encode is missing"),
        (lambda case: case["arrays"][0].update(name="g"), "gtc_encode has no array g"),
        (lambda case: case["arrays"][0].update(role="detail"), "has role 'detail', not 'input'"),
        (lambda case: case["arrays"][0].update(dtype="<f8"), "has dtype '<f8', not '<f4'"),
        (lambda case: case["arrays"][0].update(axes=["step"]), "has axes 'step', not 'step eleme"),
    ],
)
def test_a_case_that_is_not_as_declared_is_told(spoil, said):
    case = a_case()
    assert list(operations.mistakes(case)) == []
    spoil(case)
    assert any(said in mistake for mistake in operations.mistakes(case))


def test_a_case_that_is_not_as_declared_is_neither_made_nor_read(tmp_path, capsys):
    x = np.zeros((1, 1), np.float32)
    with pytest.raises(AssertionError, match="refimpl/golden/operations.*settings: leak"):
        inputs = {"x": (x, "row element"), "dy": (x, "row element")}
        answers = dict.fromkeys(("y", "dx"), ask.Answer("row element", ask.EXACT))
        ask.case("leaky", layers.relu, "", {"leak": 0.1}, inputs, answers)
    one = read.load(GOLDEN / "blocks.bmuf")
    changed = replace(one.cases[0], settings=one.cases[0].settings | {"eta": "half"})
    replace(one, cases=(changed,)).write(tmp_path)
    assert cli.main(["golden", "check", str(tmp_path), "--against", str(tmp_path)]) == 2
    assert "at settings.eta: 'half' is no number or null" in capsys.readouterr().err


def test_settings_are_json_schemas_to_a_validator_too():
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    told = json.loads(operations.exported())["operations"]
    case = a_case()
    jsonschema.validate(case["settings"], told[case["operation"]]["settings"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"tau": "0.5"}, told[case["operation"]]["settings"])


def test_an_operation_is_described(capsys):
    assert cli.main(["golden", "describe", "gtc_adapt"]) == 0
    told = capsys.readouterr().out
    assert "tau rounded to float32" in told and "    target: number\n" in told
    assert re.search(r"\ngiven:\n    entries \(step\) <i8\n", told)
    assert cli.main(["golden", "describe", "gtc-adapt"]) == 2
    assert "no operation 'gtc-adapt': choose one of affine, align, " in capsys.readouterr().err


def test_a_declaration_may_leave_settings_and_dtypes_open():
    one = Operation(
        "toy",
        "Twice.",
        "y = 2 x",
        (given("x{i}", "<f4 or <f8", "element", "any"), out("y", "<f8", "element", "twice", "so")),
        (Setting("k", "integer", "a number", 1),),
    )
    array = {"name": "x3", "role": "input", "dtype": "<f8", "axes": ["element"]}
    assert list(one.mistakes({"settings": {}, "arrays": [array]})) == []
    assert list(schema.broken({"k": 1.5}, one.schema, "s")) == ["at s.k: 1.5 is no integer"]
    assert one.lines() == ["y = 2 x"]
