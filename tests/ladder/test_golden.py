"""Golden values: bundles are the same bytes everywhere, and a check calls wrong what is wrong."""

import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from witness import GOLDEN, differing

from refimpl.collectives.families import EXPLICIT
from refimpl.golden import (
    Reference,
    Report,
    bundle,
    cases,
    check,
    check_backend,
    npz,
    read,
    schema,
)
from refimpl.golden.bundle import Array, Rule
from refimpl.golden.cases import (
    ask,
    collectives,
    layers,
    network,
    onebit,
    optimizers,
    places,
    truth,
)
from refimpl.golden.compare import verdict
from refimpl.methods.strategies import STRATEGIES
from refimpl.support.errors import UserError

LADDER = list(cases.ladder())


def arrays():
    """Yield bundle, case, name and array of the whole ladder."""
    for one in LADDER:
        for case in one.cases:
            for name, array in case.arrays.items():
                yield one, case, name, array


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    for one in LADDER:
        one.write(folder)
    return folder


@pytest.fixture
def theirs(written, tmp_path):
    """A copy of one bundle that a test may spoil."""
    shutil.copytree(written / "blocks.bmuf", tmp_path / "theirs" / "blocks.bmuf")
    return tmp_path / "theirs"


def lines(folder, against=LADDER, pattern="blocks.bmuf"):
    return list(check.folders(folder, against, pattern))


def wrong(folder):
    return [str(line) for line in lines(folder) if not line.right]


def spoil(theirs, **changed):
    """Write their bundle again with arrays changed; None leaves one out."""
    file = theirs / "blocks.bmuf" / bundle.ARRAYS
    held = npz.read(file).arrays
    for name, value in changed.items():
        name = name.replace("__", "/").replace("_tiny", ".tiny")
        held[name] = value(held[name]) if callable(value) else value
        if value is None:
            del held[name]
    file.write_bytes(npz.npz(held))


# ------------------------------------------------------------------------------------- bundles


def test_every_manifest_is_what_the_schema_describes(written):
    for name in read.names(written):
        told = json.loads((written / name / bundle.MANIFEST).read_text())
        assert list(schema.mistakes(told)) == []


def test_the_schema_is_json_schema_to_a_validator_too(written):
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    for name in read.names(written):
        told = json.loads((written / name / bundle.MANIFEST).read_text())
        jsonschema.validate(told, schema.schema())
        told["cases"][0]["arrays"][-1].pop("why")
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(told, schema.schema())


@pytest.mark.parametrize(
    "spoiled, culprit",
    [
        (lambda m: m.pop("cases"), "cases is missing"),
        (lambda m: m.update(bundle=3), "at bundle: 3 is no string"),
        (lambda m: m.update(extra=1), "extra is not known"),
        (lambda m: m.update(rung=0), "at least 1"),
        (lambda m: m.update(cases=[]), "at least 1 items"),
        (lambda m: m["cases"][0]["arrays"][0].update(role="out"), "must be one of"),
        (
            lambda m: m["cases"][0]["arrays"][0].update(axes=[]),
            "initial of bmuf has axes '', not 'element'",
        ),
        (lambda m: m["cases"][0]["arrays"][0].update(shape=[2]), "and not <f4 .2,.: write the"),
        (lambda m: m["cases"][0]["arrays"][-1].pop("rule"), "rule is missing"),
        (lambda m: m["cases"][0]["arrays"][-1].update(rule="ulp"), "ulp is missing"),
        (lambda m: m["cases"][0]["arrays"][-1].update(sha256="00"), "must match"),
        (
            lambda m: m.update(format=2),
            "has format 2, this refimpl reads 1: take the refimpl that",
        ),
        (lambda m: m.pop("format"), "format is missing"),
        (lambda m: m.update(bundle="layers"), "says that it is layers: give its folder that name"),
    ],
)
def test_a_manifest_against_the_schema_is_refused(theirs, spoiled, culprit):
    file = theirs / "blocks.bmuf" / bundle.MANIFEST
    told = json.loads(file.read_text())
    spoiled(told)
    file.write_text(json.dumps(told))
    with pytest.raises(UserError, match=culprit):
        read.load(file.parent)


@pytest.mark.parametrize(
    "content, culprit",
    [
        (b"", "is no JSON"),
        (b"\xff\xfe{}", "is no JSON"),
        (b"[]", "is no object"),
        (b"{", "is no JSON"),
        (None, "it is not a file"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_refused(theirs, content, culprit):
    file = theirs / "blocks.bmuf" / bundle.MANIFEST
    file.unlink()
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(UserError, match=culprit):
        check.loaded(theirs)


def test_a_bundle_is_read_as_it_was_written(written):
    for want in LADDER:
        got = read.load(written / want.name)
        assert got.manifest() == want.manifest()
        for name, value in want.values().items():
            np.testing.assert_array_equal(got.values()[name], value, strict=True)


def test_numpy_reads_our_archives_and_we_read_numpys(tmp_path):
    held = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "c": np.array(0.5)}
    (tmp_path / "ours.npz").write_bytes(npz.npz(held))
    np.savez_compressed(tmp_path / "theirs.npz", **{"a/b": held["a/b"], "c": held["c"]})
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as ours:
        theirs = npz.read(tmp_path / "theirs.npz")
        for name, value in held.items():
            np.testing.assert_array_equal(ours[name], value, strict=True)
            np.testing.assert_array_equal(theirs.arrays[name], value, strict=True)


def test_data_of_a_member_begin_at_a_multiple_of_64_bytes():
    for shape in [(), (3,), (10, 20, 30, 40)]:
        value = np.zeros(shape, np.float32)
        assert (len(npz.npy(value)) - value.nbytes) % 64 == 0


def test_the_chapters_words_are_enough_to_read_an_archive(written):
    """By hand, as in C++ or Rust: the central directory, local headers, .npy, numbers."""
    for one in LADDER:
        content = (written / one.name / bundle.ARRAYS).read_bytes()
        members, start = struct.unpack_from("<HxxxxI", content, len(content) - 22 + 10)
        values = one.values()
        assert members == len(values)
        for name, value in values.items():
            length, extra, _, at = struct.unpack_from("<HHH8xI", content, start + 28)
            assert content[start + 46 : start + 46 + length].decode() == f"{name}.npy"
            start += 46 + length + extra
            npy = at + 30 + sum(struct.unpack_from("<HH", content, at + 26))
            (header,) = struct.unpack_from("<H", content, npy + 8)
            shape = content[npy + 10 : npy + 10 + header].decode().partition("'shape': (")[2]
            axes = [int(n) for n in shape.partition(")")[0].split(",") if n.strip()]
            data = npy + 10 + header
            assert axes == list(value.shape)
            assert content[data : data + value.nbytes] == npz.little(value).tobytes(), name


def test_names_are_unique_and_every_case_requires_something():
    names = [f"{one.name}/{case.name}" for one in LADDER for case in one.cases]
    assert len(names) == len(set(names))
    for one in LADDER:
        for case in one.cases:
            assert any(a.role == "output" for a in case.arrays.values()), case.name


def test_a_new_row_or_family_changes_no_other_bundle():
    """A bundle's place depends on its name alone, and every committed one has its own."""
    assert {one.name: one.place for one in LADDER} == places.PLACES
    assert len({one.order for one in LADDER}) == len(LADDER)
    assert set(collectives.FAMILIES) == {family.name for family in EXPLICIT}


def test_every_operation_has_a_case_and_says_what_it_is():
    asked = {case.operation for one in LADDER for case in one.cases}
    assert asked == {operation.__name__ for operation in cases.OPERATIONS}
    assert all(operation.__doc__ for operation in cases.OPERATIONS)


# --------------------------------------------------------------------------------------- check


def test_what_was_written_is_right(written):
    found = list(check.folders(written, check.loaded(written)))
    assert all(line.right for line in found)
    assert len(found) == sum(1 for _ in arrays())


def test_the_reference_passes_its_own_ladder(written, capsys):
    report = check_backend(Reference(), written)
    assert report.right and report.skipped == []


def test_inputs_and_details_may_be_left_out_but_no_output(written, tmp_path):
    for one in LADDER:
        target = tmp_path / one.name
        target.mkdir()
        held = {
            f"{case.name}/{name}": array.value
            for case in one.cases
            for name, array in case.arrays.items()
            if array.role == "output"
        }
        (target / bundle.ARRAYS).write_bytes(npz.npz(held))
    assert all(line.right for line in check.folders(tmp_path, LADDER))


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"nbm_tiny__start": None}, ["WRONG blocks.bmuf/nbm.tiny/start: missing"]),
        (
            {"nbm_tiny__velocity": np.zeros(1)},
            ["WRONG blocks.bmuf/nbm.tiny/velocity: extra: the case has no such array"],
        ),
        (
            {"sbm_tiny__model": np.zeros(1)},
            ["WRONG blocks.bmuf/sbm.tiny/model: extra: the bundle has no such case"],
        ),
        (
            {"nbm_tiny__start": lambda a: a[:2]},
            ["WRONG blocks.bmuf/nbm.tiny/start: has shape (2, 1), wanted (3, 1)"],
        ),
        (
            {"nbm_tiny__start": lambda a: a.astype(np.float64)},
            ["WRONG blocks.bmuf/nbm.tiny/start: has dtype <f8, wanted <f4"],
        ),
        (
            {"nbm_tiny__start": lambda a: a * np.array([[1], [np.nan], [2]], np.float32)},
            [
                "WRONG blocks.bmuf/nbm.tiny/start: 2 of 3 differ, from block 1 on, 1 of them NaN, "
                "the first NaN at [block 1, element 0]: have nan (nan), "
                "want 0x1.a000000000000p+2 (6.5)"
            ],
        ),
        (
            {"cbm_tiny__initial": lambda a: -a},
            [
                "WRONG blocks.bmuf/cbm.tiny/initial: 1 of 1 differ, in the sign of a zero, the "
                "first at [element 0]: have -0x0.0p+0 (-0.0), want 0x0.0p+0 (0.0) (input)"
            ],
        ),
    ],
)
def test_what_is_wrong_is_said(theirs, changed, said):
    spoil(theirs, **changed)
    assert wrong(theirs) == said


def test_a_bundle_that_nobody_knows_is_extra(theirs):
    shutil.copytree(theirs / "blocks.bmuf", theirs / "blocks.sbmuf")
    found = [str(line) for line in lines(theirs, pattern="blocks.*bmuf") if not line.right]
    assert found == ["WRONG blocks.sbmuf: extra: there is no such bundle"]


def test_a_truncated_archive_is_called_truncated(theirs):
    file = theirs / "blocks.bmuf" / bundle.ARRAYS
    file.write_bytes(file.read_bytes()[:-100])
    (said,) = wrong(theirs)
    assert "arrays.npz is truncated" in said


@pytest.mark.parametrize(
    "content, said",
    [(None, "is missing"), (b"", "is empty"), (b"\x93NUMPY...", "is not a zip archive")],
)
def test_a_file_that_is_no_archive_is_called_what_it_is(theirs, content, said):
    file = theirs / "blocks.bmuf" / bundle.ARRAYS
    file.unlink() if content is None else file.write_bytes(content)
    assert said in wrong(theirs)[0]


def test_an_archive_with_a_broken_directory_is_called_corrupt(theirs):
    file = theirs / "blocks.bmuf" / bundle.ARRAYS
    content = bytearray(file.read_bytes())
    content[content.rindex(b"PK\x01\x02")] ^= 1
    file.write_bytes(content)
    (said,) = wrong(theirs)
    assert "arrays.npz is corrupt" in said


def test_an_archive_damaged_anywhere_is_no_traceback(theirs):
    """Cut at any length, or a bit turned in any place: said, or without effect on the arrays."""
    file = theirs / "blocks.bmuf" / bundle.ARRAYS
    whole, held = file.read_bytes(), npz.read(file).arrays
    for number in range(100):
        place = len(whole) * number // 100
        turned = bytearray(whole)
        turned[place] ^= 1 << number % 8
        for content in (whole[:place], turned):
            file.write_bytes(content)
            try:
                found = npz.read(file)
            except npz.Damaged:
                continue
            assert content is not whole[:place]
            for name, value in found.arrays.items():
                assert name not in held or value.tobytes() == held[name].tobytes()


def test_a_folder_in_an_archives_place_is_not_readable(theirs):
    file = theirs / "blocks.bmuf" / bundle.ARRAYS
    file.unlink()
    file.mkdir()
    (said,) = wrong(theirs)
    assert "arrays.npz is not a file" in said


def test_a_flipped_bit_names_its_array(theirs):
    file = theirs / "blocks.bmuf" / bundle.ARRAYS
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        member = archive.getinfo("nbm.tiny/model.npy")
    content[member.header_offset + 30 + len(member.filename) + 129] ^= 1
    file.write_bytes(content)
    (said,) = wrong(theirs)
    assert said.startswith("WRONG blocks.bmuf/nbm.tiny/model: unreadable: Bad CRC-32")


def test_pickles_are_not_opened(theirs):
    file = theirs / "blocks.bmuf" / bundle.ARRAYS
    np.savez(file, **{"nbm.tiny/model": np.array([{}], object)}, allow_pickle=True)
    said = [line for line in wrong(theirs) if "nbm.tiny/model" in line]
    assert "unreadable" in said[0] and "pickle" in said[0]


def test_a_damaged_reference_is_refused(theirs):
    spoil(theirs, nbm_tiny__start=lambda a: a + 1)
    with pytest.raises(UserError, match=r"array nbm.tiny/start is altered, its sha256 differs"):
        check.loaded(theirs)


def test_the_first_broken_rung_is_the_lowest(written, tmp_path):
    shutil.copytree(written, tmp_path / "theirs")
    for name in ("optimizers", "layers"):
        (tmp_path / "theirs" / name / bundle.ARRAYS).unlink()
    report = Report(list(check.folders(tmp_path / "theirs", LADDER)))
    assert not report.right
    assert report.summary().endswith("first broken rung: 4, layers: layers")


@pytest.mark.parametrize(
    "have, want, rule, right",
    [
        (1.0, 1.0, Rule("x"), True),
        (np.nextafter(np.float32(1), np.float32(2)), 1.0, Rule("x"), False),
        (np.nextafter(np.float32(1), np.float32(2)), 1.0, Rule("x", 1), True),
        (1.0 + 2**-22, 1.0, Rule("x", 1), False),
        (-0.0, 0.0, Rule("x"), False),
        (-0.0, 0.0, Rule("x", 1), True),
        (np.nan, 1.0, Rule("x", 1), False),
        (np.inf, 1.0, Rule("x", 100), False),
    ],
)
def test_rules(have, want, rule, right):
    want = Array("output", np.array([want, 0.5], np.float32), ("element",), rule)
    assert verdict(np.array([have, 0.5], np.float32), want).right == right


@pytest.mark.parametrize("rule", [Rule("x"), Rule("x", 1)])
@pytest.mark.parametrize("have", [2.0, np.nan])
def test_a_single_number_is_compared_too(rule, have):
    want = Array("output", np.array(1, np.float32), (), rule)
    assert verdict(np.array(1, np.float32), want).right
    found = verdict(np.array(have, np.float32), want)
    assert not found.right and "want 0x1.0000000000000p+0 (1.0)" in found.text


def test_an_ulp_is_one_of_the_largest_value():
    want = Array("output", np.array([1024, 1e-8], np.float32), ("element",), Rule("x", 1))
    assert verdict(np.array([1024, 1e-5], np.float32), want).right
    assert not verdict(np.array([1024, 1e-3], np.float32), want).right


# -------------------------------------------------------------------------- in the same process


@pytest.mark.parametrize(
    "answer, said",
    [
        (lambda x: [x], "relu raised TypeError: returned list, wanted a dict of arrays"),
        (lambda x: {"y": [[1.0], [2.0, 3.0]]}, "relu raised ValueError: "),
        (lambda x: {"y": x[:, :0]}, "has shape (4, 0), wanted (4, 6)"),
        (lambda x: {"y": x, 3: x}, "extra: the case has no such array"),
        (lambda x: {"y": {"x": x}}, "holds objects, wanted numbers"),
        (lambda x: 1 / 0, "relu raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_backend_that_answers_nonsense_is_wrong(answer, said):
    class Mine:
        def relu(self, inputs, settings):
            return answer(inputs["x"])

    told = []
    report = check_backend(Mine(), LADDER, "layers/relu", told.append)
    assert not report.right and any(said in line for line in told), told


def test_a_backend_cannot_spoil_the_question():
    class Mine:
        def optimizer(self, inputs, settings):
            outputs = Reference.optimizer(inputs, settings)
            settings["hyper"].clear()
            for value in inputs.values():
                value.fill(0)
            return outputs

    for _ in range(2):
        assert check_backend(Mine(), LADDER, "optimizers/*", lambda text: None).right


# -------------------------------------------------------------------------------------- values

ROUNDING_RULES = {ask.EXACT.why, onebit.SCALED.why}


def exact_cases():
    """Yield the operation, case and those outputs of which it is said that nothing is rounded."""
    operations = {operation.__name__: operation for operation in cases.OPERATIONS}
    for one in LADDER:
        for case in one.cases:
            names = {
                name
                for name, array in case.arrays.items()
                if array.rule is not None and array.rule.why in ROUNDING_RULES
            }
            if names and case.operation != "gtc_decode":
                yield operations[case.operation], case, names


def test_where_nothing_is_said_to_be_rounded_float64_gives_the_same():
    """So any order of summation, and any fused multiply-add, gives the same bits."""
    tried = 0
    for operation, case, names in exact_cases():
        doubled = operation(truth.doubles(case.inputs()), case.settings)
        for name in names & set(doubled):
            assert (doubled[name] == case.arrays[name].value).all(), (case.name, name)
            tried += 1
    assert tried > 500


def test_refimpls_own_float32_passes(monkeypatch):
    """Values are computed in float64 and rounded; what computes in float32 is near enough."""
    for module in (layers, optimizers, network):
        monkeypatch.setattr(module, "doubles", lambda inputs: inputs)
        monkeypatch.setattr(module, "all_rounded", in_float32)
    report = check_backend(Reference(), LADDER, ["layers", "optimizers", "*.network"])
    assert report.right and len(report.lines) > 100, report.first


def in_float32(outputs, sums=True):
    return {
        name: np.asarray(a, np.float32) if np.asarray(a).dtype.kind == "f" else np.asarray(a)
        for name, a in outputs.items()
    }


def test_every_exact_strategy_takes_serials_step_to_the_bit():
    models = {}
    for one in LADDER:
        if one.name.startswith("one-step.") and one.name.partition(".")[2] in EXACT:
            for case in one.cases:
                models[one.name, case.name] = case.arrays["model"].value.tobytes()
    assert len(models) == 1 + 4 * 4 + 5
    assert len(set(models.values())) == 1


EXACT = ("serial", "ddp", "zero1", "zero2", "zero3", "mics")


def test_messages_in_two_formats_and_residuals_of_exactly_tau_are_asked():
    (one,) = (one for one in LADDER if one.name == "ten-steps.gtc")
    sizes = {size for case in one.cases for size in case.arrays["message_size"].value.ravel()}
    assert len(sizes) > 1
    (gtc,) = (one for one in LADDER if one.name == "compression.gtc")
    (encode,) = (case for case in gtc.cases if case.name == "encode.steps")
    assert (np.abs(encode.arrays["residual_after"].value) == encode.settings["tau"]).any()


# ----------------------------------------------------------------- steps of which no two are alike


def trainings():
    for one in LADDER:
        yield from (case for case in one.cases if case.operation == "train_frames")


def test_every_row_is_clipped_in_some_steps_and_not_in_others():
    rows = set()
    for case in trainings():
        blocks, workers, _ = case.settings["grid"]
        most, frames = case.settings["clip"], case.arrays["frames"].value
        by_block = frames.reshape(len(frames), blocks, -1).sum(2)
        assert not (by_block & (by_block - 1) == 0).any(), "1 / frames would not be rounded"
        if most is None:
            continue
        assert (frames == 0).any(), "a micro-batch of nothing is one, too"
        rows.add(case.settings["strategy"])
        combined = case.arrays["combined"].value
        held = combined.reshape(len(frames), blocks, workers, -1)[:, :, 0]
        norms = np.linalg.norm(held, axis=2) / by_block
        assert norms[norms > 0].min() < most / 1.1 and norms.max() > most * 1.1
    assert rows == set(STRATEGIES)


def test_gtcs_threshold_is_no_dyadic_number_and_some_values_are_not_beyond_it():
    for case in trainings():
        if case.settings["gradient"] == "gtc":
            tau = case.settings["gtc"]["tau"]
            assert (tau * 2**10) % 1 != 0
            assert (case.arrays["combined"].value == 0).any(), case.name


# ----------------------------------------------------------------------- the committed bundles


def test_the_committed_bundles_are_written_again_byte_for_byte():
    """After a change of values that is meant: refimpl golden write tests/golden."""
    committed = {file.parent.name: file for file in GOLDEN.glob("*/manifest.json")}
    assert set(committed) == {one.name for one in LADDER}
    for one in LADDER:
        folder = GOLDEN / one.name
        assert (folder / bundle.ARRAYS).read_bytes() == npz.npz(one.values()), one.name
        assert (folder / bundle.MANIFEST).read_text() == bundle.text_of(one.manifest()), one.name


def test_the_committed_bundles_stay_small():
    assert sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file()) < 4_500_000


OLD_BLAS = {"OPENBLAS_CORETYPE": "Prescott"}
OTHER_BLAS = {"OPENBLAS_NUM_THREADS": "2", "OPENBLAS_CORETYPE": "Haswell"}
UMATH = sys.modules["numpy._core._multiarray_umath"]


def dispatched():
    """Return the features of processors that this NumPy uses where there are any."""
    return UMATH.__cpu_dispatch__


@pytest.mark.parametrize(
    "other",
    [
        {"NPY_DISABLE_CPU_FEATURES": " ".join(dispatched()), **OLD_BLAS},
        pytest.param(
            OTHER_BLAS,
            marks=pytest.mark.skipif(
                not UMATH.__cpu_features__.get("AVX2"), reason="no AVX2, which Haswell has"
            ),
        ),
    ],
    ids=["no-simd-old-blas", "other-blas"],
)
def test_another_processor_writes_the_same_bytes(tmp_path, other):
    """NumPy and its BLAS choose by the processor how they compute; here they are told to."""
    command = [sys.executable, "-W", "ignore", "-m", "refimpl", "golden", "write", str(tmp_path)]
    run = subprocess.run(
        command, cwd=GOLDEN.parents[1], env=os.environ | other, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert not differing(tmp_path)


def test_those_other_processors_do_compute_other_values():
    program = (
        "import numpy as np; from refimpl.golden import draw; x = draw.rough('x', (64, 64)); "
        "print((x @ x).tobytes().hex(), np.tanh(x).tobytes().hex())"
    )
    told = set()
    for other in ({}, {"NPY_DISABLE_CPU_FEATURES": " ".join(dispatched())}, OLD_BLAS):
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            cwd=GOLDEN.parents[1],
            env=os.environ | other,
            capture_output=True,
            text=True,
        )
        told.add(run.stdout)
    if len(told) == 1:
        pytest.skip("this processor, or this NumPy, knows only one way")
