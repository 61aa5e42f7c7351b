"""benchmarks/published: what is fitted and what is predicted, and `refimpl plan --preset`."""

import doctest
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.published import pieces, presets
from benchmarks.published.calibrate import evaluate, fit
from benchmarks.published.comparison import evaluate_preset
from benchmarks.published.quantities import KINDS
from benchmarks.published.sensitivity import vary
from benchmarks.published.text import preset_text
from refimpl.cli import main

CHECKOUT = Path(__file__).resolve().parents[2]

PAPER = presets.P4D_100B


@pytest.fixture(scope="module")
def paper():
    return evaluate_preset(PAPER, (128, 256, 512))


def tflops(evaluated, run):
    return [row.tflops for row in evaluated.rows if row.run.name == run]


def test_fitted_numbers_reproduce_the_points_they_are_fitted_to(paper):
    zero3, mics = tflops(paper, "zero3"), tflops(paper, "mics")
    assert (zero3[0], zero3[2], mics[0]) == pytest.approx((62 / 0.72, 62, 170 / 0.994), rel=1e-9)
    assert paper.fitted.error < 1e-9
    assert paper.fitted.latency * 12 == pytest.approx(160e-6, rel=0.02)
    assert 0.09 < paper.fitted.overlap < 0.12


def test_what_was_not_fitted_follows_from_the_fit_and_from_what_was_chosen(paper):
    zero3, mics = tflops(paper, "zero3"), tflops(paper, "mics")
    assert zero3[1] == pytest.approx(76.1, abs=0.1)
    assert mics[2] / mics[0] == pytest.approx(0.9933, abs=2e-4)
    every = tflops(paper, "mics, hop 2 in every micro-step")
    assert every[2] / every[0] == pytest.approx(0.974, abs=5e-4)


def test_only_points_that_went_into_the_fit_are_called_fitted(paper):
    fitted = {(row.run.name, row.ranks) for row in paper.rows if row.status == "fitted"}
    assert fitted == {("zero3", 128), ("zero3", 512), ("mics", 128)}
    assert all((row.status == "what if") == row.run.what_if for row in paper.rows)


def test_nothing_that_hangs_on_a_choice_is_called_predicted(paper):
    chosen = {q.what.split(",")[0] for q in PAPER.quantities() if q.kind == "chosen"}
    assert chosen == {"b", "M", "Bx"}
    assert {row.status for row in paper.rows} == {"fitted", "conditional", "what if"}
    for preset in (presets.P4D_50B, presets.P3DN_10B):
        assert not preset.chosen
        assert "conditional" not in {row.status for row in evaluate_preset(preset).rows}
    # b and Bx were chosen so that the messages of mics are hidden, M for the 99.4 %.
    rows = {(row.label, row.value): row for row in vary(PAPER)}
    assert rows["b", 1].tflops["mics"][0] < 100 and rows["Bx GB/s", 30].tflops["mics"][0] < 160
    few, many = rows["M", 1].tflops["mics"]
    assert many / few < 0.98


def test_with_w_for_gathers_only_reduce_scatters_are_waited_for(paper):
    rows = {row.run.name: row for row in paper.rows if row.ranks == 128}
    both, gathers = rows["mics"], rows["mics, w for gathers only"]
    assert gathers.split._replace(hidden=0) == both.split._replace(hidden=0)
    assert gathers.split.hidden == gathers.split.gather < gathers.split.compute
    assert gathers.split.step == pytest.approx(both.split.step + both.split.reduce_scatter)
    assert f"{gathers.tflops:.0f} TFLOPS in place of {both.tflops:.0f}" in " ".join(PAPER.reading)


def test_a_run_that_was_not_fitted_is_missed_as_far_as_the_reading_says():
    check = evaluate_preset(presets.P4D_50B)
    by = {(row.run.name, row.ranks): row for row in check.rows}
    before, after = by["zero3 before", 64], by["zero3 after", 256]
    assert before.tflops / before.published.tflops == pytest.approx(1.26, abs=0.01)
    assert after.tflops / after.published.tflops == pytest.approx(1.07, abs=0.01)
    text = " ".join(PAPER.reading)
    assert "26 %" in text and "7 %" in text


def test_figures_in_the_reading_are_those_of_the_tables(paper):
    text = " ".join(PAPER.reading)
    rows = {(v.label, v.value): v.tflops["mics"] for v in vary(PAPER)}
    for m in (1, 4, 8):
        few, many = rows["M", m]
        assert f"{100 * many / few:.1f} %" in text
    assert f"{rows['Bx GB/s', 30][0]:.0f} TFLOPS" in text
    split = {row.run.name: row.split for row in paper.rows if row.ranks == 128}
    for run in ("mics", "mics, flat ring"):
        assert f"{split[run].gather + split[run].reduce_scatter:.1f} s" in text
    assert rows["b", 1][0] == pytest.approx(170 / 2, rel=0.1)  # "about half"
    zero3 = tflops(paper, "zero3, coalesced, overlapped")
    assert min(zero3) == pytest.approx(max(zero3))


def test_only_the_product_of_calls_and_latency_is_identified():
    # Up to the overhead of the calls themselves, 8.4 us each.
    products = [q * fit(PAPER.varied("calls", q)).latency for q in (6, 12, 24, 36)]
    assert products == pytest.approx([products[0]] * 4, rel=0.01)


def test_a_fit_out_of_range_stops_at_the_end_of_it_and_says_how_far_it_misses():
    off = fit(PAPER.varied("batch", 3))
    assert off.overlap == 0 and 0.03 < off.error < 0.1


def test_sensitivity_varies_every_assumption_and_marks_the_base():
    rows = vary(PAPER)
    assert {row.label for row in rows} >= {"b", "M", "p", "q alpha x", "Bx GB/s", "w zero3"}
    for label in ("b", "M", "p", "q alpha x", "Bx GB/s", "w mics"):
        assert [row.base for row in rows if row.label == label].count(True) == 1
    assert [row.fits for row in rows if row.label == "p"] == [False, True, True]
    base = fit(PAPER)
    for row in rows:
        if row.base:
            mics = [evaluate(PAPER, PAPER.run("mics"), n, base)[1] for n in (128, 512)]
            assert row.tflops["mics"] == pytest.approx(tuple(mics))


def test_changed_assumptions_are_fitted_again_to_the_same_points():
    rows = {(row.label, row.value): row for row in vary(PAPER)}
    assert rows["b", 1].fitted.overlap == pytest.approx(0.95, abs=0.01)
    assert rows["b", 3].fitted.error > 0.05
    for label, value in (("b", 1), ("M", 1), ("p", 64), ("Bx GB/s", 30)):
        assert rows[label, value].tflops["zero3"] == pytest.approx((62 / 0.72, 62))
    assert rows["q alpha x", 1.25].tflops["zero3"][1] < 60  # set, so it misses


def test_smaller_global_batch_leaves_fewer_microsteps():
    assert [presets.P3DN_10B.microsteps_on(n) for n in (16, 64, 128)] == [64, 16, 8]


@pytest.mark.parametrize("preset", presets.PRESETS.values(), ids=lambda preset: preset.name)
def test_every_number_has_a_known_kind_and_stands_under_it(preset):
    text = preset_text(evaluate_preset(preset))
    lines = text.splitlines()
    for quantity in preset.quantities():
        assert quantity.source or quantity.kind == "recalled"
        start = lines.index(KINDS[quantity.kind].upper())
        section = lines[start + 1 : lines.index("", start)]
        assert any(quantity.what in line for line in section)
    for heading in ("FITTED", "RESULTS", "SENSITIVITY", "HOW TO READ THIS", "SOURCES"):
        assert any(line.startswith(heading) for line in lines)


def test_sessions_of_the_modules_are_true():
    found = doctest.testmod(pieces)
    assert found.attempted and not found.failed


# --- the command ---------------------------------------------------------------------------


def test_json_holds_inputs_fit_rows_and_sensitivity(capsys):
    code = main(["plan", "--preset", "p4d-100b", "--ranks", "128,1024", "--json"])
    data = json.loads(capsys.readouterr().out)
    assert code == 0 and {row["ranks"] for row in data["rows"]} == {128, 1024}
    assert {q["kind"] for q in data["inputs"]} <= set(KINDS)
    assert data["fitted"]["error"] < 1e-9 and data["sensitivity"] and data["reading"]
    first = data["rows"][0]
    assert first["published"]["source"].startswith("blog") and first["status"] == "fitted"


def program(*words, cwd=CHECKOUT, path=CHECKOUT):
    """Run Python in another process, with this path."""
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": str(path)},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_no_mpi_is_started():
    done = program(
        "-c",
        "import sys; from refimpl.cli import main; main(['plan', '--preset', 'p4d-50b']);"
        "sys.exit('mpi4py.MPI' in sys.modules)",
    )
    assert done.returncode == 0 and "FITTED" in done.stdout


def test_the_package_runs_by_itself_and_says_the_same():
    alone = program("-m", "benchmarks.published", "p4d-50b")
    command = program("-m", "refimpl", "plan", "--preset", "p4d-50b")
    assert alone.returncode == 0 and alone.stdout == command.stdout
    assert "FITTED" in alone.stdout


def test_what_else_is_called_benchmarks_is_not_taken_for_it(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    both = f"{tmp_path}{os.pathsep}{CHECKOUT}"
    done = program("-m", "refimpl", "plan", "--preset", "p4d-50b", cwd=tmp_path, path=both)
    assert done.returncode == 0 and "FITTED" in done.stdout, done.stderr


def test_without_a_checkout_it_says_in_one_line_where_presets_are(tmp_path):
    shutil.copytree(CHECKOUT / "refimpl", tmp_path / "refimpl")
    done = program("-m", "refimpl", "plan", "--preset", "p4d-50b", cwd=tmp_path, path=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "not installed with the package" in done.stderr and "a checkout" in done.stderr
