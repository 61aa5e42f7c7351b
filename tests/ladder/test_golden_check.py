"""How a check is asked for: which cases, what may fail, what is loosened, and what is written."""

import json
import shutil
import zipfile
from xml.etree import ElementTree

import numpy as np
import pytest
from witness import GOLDEN

from refimpl import cli
from refimpl.golden import cases, container, npz, read, select
from refimpl.golden.bundle import ARRAYS, MANIFEST, TENSORS, Array, Rule, digest
from refimpl.golden.compare import verdict
from refimpl.support.errors import UserError
from refimpl.support.safetensors import load_safetensors, save_safetensors

BUNDLES = [read.load(GOLDEN / name) for name in ("blocks.bmuf", "layers")]


# ---------------------------------------------------------------------------------- which cases


@pytest.mark.parametrize(
    "globs, found",
    [
        (["layers/relu", "*/tanh"], ["layers/relu", "layers/tanh"]),
        (["!blocks.bmuf", "layers/[rst]*", "!*/s*"], ["layers/relu", "layers/tanh"]),
        (["!blocks.bmuf", "!*/[as]*"], ["layers/relu", "layers/tanh"]),
        ("*/relu", ["layers/relu"]),
    ],
)
def test_of_several_globs_one_has_to_match_and_those_with_a_mark_take_away(globs, found):
    chosen = select.chosen(BUNDLES, globs)
    assert [f"{one.name}/{case.name}" for one in chosen for case in one.cases] == found


@pytest.mark.parametrize(
    "globs, said",
    [
        (["layers", "layer"], "no case matches 'layer': see"),
        (["layers", "!relu"], "no case matches 'relu': see"),
        (["layers", "!*"], r"no case is left without '\*'"),
    ],
)
def test_a_glob_that_matches_nothing_is_refused(globs, said):
    with pytest.raises(UserError, match=said):
        select.chosen(BUNDLES, globs)


def test_bundles_that_train_are_computed_where_a_glob_may_mean_them(monkeypatch):
    asked = []
    for module in cases.MODULES:
        monkeypatch.setattr(module, "bundles", lambda module=module: asked.append(module) or ())
    for globs, trained in (["layers", "blocks.*"], 0), (["layers", "one-step.*"], 2), ("!x", 2):
        list(cases.ladder(globs))
        assert len(set(cases.TRAINED) & set(asked)) == trained
        asked.clear()


# -------------------------------------------------------------------------- a backend with bugs


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Two bundles: reading all of them takes a second."""
    folder = tmp_path_factory.mktemp("golden")
    for one in BUNDLES:
        shutil.copytree(GOLDEN / one.name, folder / one.name)
    return folder


@pytest.fixture
def check(golden, tmp_path, monkeypatch, capsys):
    """Check answers to some of `layers`: half of one dw, and a y that is one ulp off.

    Gives what returns exit code, standard output by lines, and standard error.
    """
    monkeypatch.chdir(tmp_path)
    held = npz.read(golden / "layers" / "arrays.npz").arrays
    held = {name: a for name, a in held.items() if name.startswith(("affine", "relu", "tanh/x"))}
    held["affine.tiny/dw"] = held["affine.tiny/dw"] / 2
    held["affine.tiny/y"] = np.nextafter(held["affine.tiny/y"], np.float32(1e9))
    (tmp_path / "theirs" / "layers").mkdir(parents=True)
    (tmp_path / "theirs" / "layers" / "arrays.npz").write_bytes(npz.npz(held))

    def run(*options, known=None):
        if known is not None:
            (tmp_path / "known.txt").write_text(known)
            options += ("--expect-fail", "known.txt")
        words = ["golden", "check", "theirs", "--against", str(golden), "--only-answered"]
        code = cli.main([*words, *options])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return run


@pytest.fixture
def theirs(tmp_path):
    return tmp_path / "theirs" / "layers"


def red(lines):
    return [line.split(":")[0] for line in lines if line.startswith("WRONG")]


def test_what_is_not_answered_is_left_out_and_named(check):
    """An input that was given back is no answer."""
    code, lines, _ = check("--quiet")
    assert code == 1 and red(lines) == [
        "WRONG layers/affine.tiny/y",
        "WRONG layers/affine.tiny/dw",
    ]
    assert lines[-2].startswith("60 arrays of 8 cases, 2 wrong; left out: blocks.bmuf, layers/")
    assert "layers/tanh" in lines[-2] and lines[-1].endswith("4, layers: layers/affine.tiny/y")
    assert check("--cases", "layers/relu")[0] == 0


def test_a_case_that_is_answered_in_part_is_wrong(check, theirs):
    file = theirs / "arrays.npz"
    held = npz.read(file).arrays
    del held["relu/dx"]
    file.write_bytes(npz.npz(held))
    code, lines, _ = check("--cases", "*/relu", "--quiet")
    assert code == 1 and red(lines) == ["WRONG layers/relu/dx"]


def test_if_nothing_is_answered_there_is_nothing_to_compare(check):
    code, _, error = check("--cases", "blocks.bmuf")
    assert code == 2 and "theirs answers no case that is asked: nothing to compare" in error


def test_the_first_stops_after_the_first_case_that_is_wrong(check):
    code, lines, _ = check("--first")
    assert code == 1 and len(red(lines)) == 2
    assert lines[-2] == "8 arrays of 1 cases, 2 wrong; left out: blocks.bmuf"


def test_a_rule_is_loosened_where_a_glob_says_so_and_the_line_tells(check):
    code, lines, _ = check("--ulp", "layers/affine.tiny/y=1", "--ulp", "layers/relu=3")
    assert code == 1 and red(lines) == ["WRONG layers/affine.tiny/dw"]
    assert "ok    layers/affine.tiny/y: within 1 of 1 ulp by --ulp, the rule is bits" in lines
    assert "ok    layers/relu/y: within 0 of 3 ulp" in lines
    assert "60 arrays of 8 cases, 1 wrong, 1 right by --ulp only" in lines[-2]
    code, lines, _ = check("--ulp", "*/affine.*=9", "--quiet")
    assert "; allowed 9 ulp by --ulp, the rule is bits" in lines[0] and code == 1


def test_no_rule_becomes_stricter_and_integers_keep_theirs():
    bundles = select.loosened(BUNDLES, [("*", 1), ("layers", 2), ("layers/relu", 1)])
    for one, same in zip(bundles, BUNDLES, strict=True):
        for case, stated in zip(one.cases, same.cases, strict=True):
            for name, array in case.arrays.items():
                rule, was = array.rule, stated.arrays[name].rule
                if was is None or array.value.dtype.kind != "f":
                    assert rule == was
                else:
                    assert rule.ulp == max(was.ulp or 0, 2 if one.name == "layers" else 1)
                    assert rule.stated == (None if rule.ulp == was.ulp else was)


TINY, EXACT = "layers/affine.tiny", "layers/affine.exact.1x1x1"


@pytest.mark.parametrize(
    "known, code, wrong",
    [
        (f"{TINY}  # a mean\n\n# all\n", 0, []),
        (f"{TINY}/dw\n{TINY}/y\n", 0, []),
        ("*tiny/d[w]\n*/affine.tiny/y", 0, []),
        (f"{TINY}/dw", 1, [f"{TINY}/y"]),
        (f"{TINY}\n{TINY}/x", 0, []),  # named as a whole: enough
        (f"{TINY}/*", 1, [f"{TINY}/{name}" for name in ("x", "w", "b", "dy", "db", "dx")]),
        (f"{TINY}\n{EXACT}/y", 1, [f"{EXACT}/y"]),
        ("layers/affine.tiny\nlayers/tanh\nblocks.bmuf/nbm.tiny/model", 0, []),  # not answered
    ],
)
def test_what_is_expected_to_fail_may_and_must(check, known, code, wrong):
    found, lines, _ = check(known=known)
    assert (found, red(lines)) == (code, [f"WRONG {name}" for name in wrong])


def test_a_case_that_passes_unexpectedly_names_the_line_of_the_list(check):
    code, lines, _ = check("--quiet", known=f"{TINY}\nlayers/relu")
    said = ", but known.txt:2 expects it to fail: take that line out"
    assert code == 1 and len(red(lines)) == 4 and all(said in line for line in lines[:4])
    assert "60 arrays of 8 cases, 4 wrong, 2 wrong as expected" in lines[-2]
    assert lines[-1] == "first unexpected pass: layers/relu/x"


@pytest.mark.parametrize(
    "options, known, said",
    [
        ((), "layers\nlayer/relu", "known.txt: line 2: no case and no array matches 'layer/relu'"),
        (("--expect-fail", "nowhere.txt"), None, "cannot read nowhere.txt"),
        (("--ulp", "layers/affine.*/z=4"), None, "--ulp layers/affine.*/z=4: no array of floats"),
        (("--ulp", "layers"), None, "'layers' is not of the form GLOB=K"),
        (("--ulp", "layers=0"), None, "'0' is not a whole number of at least 1"),
        (("--report", "yaml", "x"), None, "--report yaml: give json or junit, and a file"),
        (("--report", "json", "no/x"), None, "--report no/x: there is no folder no; make it"),
    ],
)
def test_mistakes_are_one_line(check, tmp_path, options, known, said):
    code, lines, error = check(*options, known=known)
    assert code == 2 and not lines and said in error and error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"theirs", "known.txt"}


def test_reports_for_machines_say_what_the_lines_say(check, tmp_path):
    both = ("--report", "json", "r.json", "--report", "junit", "r.xml")
    code, lines, _ = check(*both, "--ulp", f"{TINY}/y=1", known=f"{TINY}/dw\n{EXACT}/y")
    told = json.loads((tmp_path / "r.json").read_text())
    assert code == 1 and not told["right"] and told["first"] == f"{EXACT}/y"
    words = {"right": "ok   ", "expected": "known"}
    assert lines[:-2] == [
        f"{words.get(one['state'], 'WRONG')} {one['bundle']}/{one['case']}/{one['array']}: "
        f"{one['text']}"
        for one in told["lines"]
    ]
    numbers = (told[name] for name in ("arrays", "cases", "wrong", "expected", "unexpected"))
    assert (*numbers, told["loose"]) == (60, 8, 1, 1, 1, 1)

    top = ElementTree.parse(tmp_path / "r.xml").getroot()
    tests = {f"{t.get('classname')}/{t.get('name')}": [*t] for t in top.iter("testcase")}
    assert [name for name, inside in tests.items() if not inside and "affine" not in name] == [
        "layers/relu"
    ]
    assert [child.tag for child in tests[TINY]] == ["skipped"]
    assert tests[EXACT][0].tag == "failure" and "known.txt:2" in tests[EXACT][0].get("message")
    assert {name for name, inside in tests.items() if inside and inside[0].text is None} == {
        name if "/" in name else f"{name}/all cases" for name in told["left_out"]
    }
    (suite,) = (one for one in top if one.get("name") == "layers")
    assert suite.get("failures") == "1" and suite.get("tests") == str(len(suite))


def test_a_name_that_xml_cannot_hold_is_spelled(check, theirs):
    file = theirs / "arrays.npz"
    file.write_bytes(npz.npz(npz.read(file).arrays | {"relu/\x01<": np.zeros(1)}))
    check("--report", "junit", "r.xml")
    assert "WRONG layers/relu/\\x01<: extra" in "".join(
        ElementTree.parse("r.xml").getroot().itertext()
    )


# ----------------------------------------------------------------------------------- containers


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(cases, "ladder", lambda **_: iter(BUNDLES))


def save(folder, arrays):
    forms = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    save_safetensors(folder / TENSORS, forms, arrays.items())


def test_a_bundle_is_written_in_both_containers_with_the_same_arrays(known, tmp_path, capsys):
    write = ["golden", "write", str(tmp_path / "golden"), "--cases", "layers"]
    assert cli.main([*write, "--container", "safetensors"]) == 0
    folder = tmp_path / "golden" / "layers"
    assert sorted(path.name for path in folder.iterdir()) == [ARRAYS, TENSORS, MANIFEST]
    for name in ARRAYS, MANIFEST:
        assert (folder / name).read_bytes() == (GOLDEN / "layers" / name).read_bytes()
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert f"arrays, {size:,} bytes" in capsys.readouterr().out

    found = load_safetensors(folder / TENSORS)
    told = read.manifest(folder)
    assert len(found) == sum(len(case["arrays"]) for case in told["cases"])
    for case in told["cases"]:
        for entry in case["arrays"]:
            assert digest(found[f"{case['name']}/{entry['name']}"]) == entry["sha256"]

    content = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(b"of another time")
    assert cli.main(write) == 0  # what is there is kept up
    assert (folder / TENSORS).read_bytes() == content
    (folder / ARRAYS).unlink()
    check = ["golden", "check", str(folder.parent), "--cases", "layers", "--quiet"]
    assert cli.main([*check, "--against", str(folder.parent)]) == cli.main(check) == 0


def test_answers_are_read_from_safetensors_and_of_two_files_both(check, theirs):
    npz_lines = check()[1]
    held = npz.read(theirs / ARRAYS).arrays
    save(theirs, held)
    assert check()[1] == npz_lines
    save(theirs, held | {"relu/y": held["relu/y"] + 1})
    code, lines, _ = check()
    said = "arrays.npz and arrays.safetensors differ in relu/y: take one of them away"
    assert code == 1 and lines[0] == f"WRONG layers: {said}"
    (theirs / ARRAYS).unlink()
    assert check("--cases", "layers/relu", "--quiet")[1][0].startswith("WRONG layers/relu/y: ")


def test_what_is_wrong_with_a_safetensors_file_is_said(check, theirs, monkeypatch):
    whole = npz.read(theirs / ARRAYS).arrays
    (theirs / ARRAYS).unlink()
    save(theirs, whole)
    content = (theirs / TENSORS).read_bytes()
    for spoiled, said in (
        (b"", "corrupt: its header claims 0 bytes and 0 follow"),
        (content[:-1], "corrupt: tanh/x of "),
        (content.replace(b'"F32"', b'"F16"', 1), "corrupt: affine.tiny/x of 12 bytes is said"),
    ):
        (theirs / TENSORS).write_bytes(spoiled)
        code, (line, *_), _ = check()
        assert code == 1 and line.startswith(f"WRONG layers: arrays.safetensors is {said}"), line
    monkeypatch.setattr(container, "MOST", 10)
    assert "is too large: at most 10 bytes are read" in check()[1][0]
    (theirs / TENSORS).unlink()
    (theirs / TENSORS).mkdir()
    assert check()[1][0] == "WRONG layers: arrays.safetensors is not a file"
    assert cli.main(["golden", "check", str(theirs), "--against", str(GOLDEN)]) == 2


def test_an_archive_with_entries_for_folders_is_read(check, theirs, tmp_path):
    """As `zip -r` makes it: members compressed, each folder a member."""
    lines = check()[1]
    with zipfile.ZipFile(theirs / ARRAYS) as archive:
        archive.extractall(tmp_path / "out")
    (theirs / ARRAYS).unlink()
    shutil.make_archive(str(theirs / "arrays"), "zip", tmp_path / "out")
    (theirs / "arrays.zip").rename(theirs / ARRAYS)
    with zipfile.ZipFile(theirs / ARRAYS) as archive:
        assert "relu/" in archive.namelist()
    assert check()[1] == lines


def test_a_single_number_may_have_an_axis_but_a_row_of_one_must():
    for want, have, right in ((), (1,), True), ((1,), (), False), ((), (1, 1), False):
        wanted = Array("output", np.full(want, 2, np.float32), ("element",) * len(want), Rule("x"))
        assert verdict(np.full(have, 2, np.float32), wanted).right == right
        assert not verdict(np.full(have, 3, np.float32), wanted).right
