"""The preset of the published speed-ups: closed forms, what is fitted, what no cost explains."""

import doctest
import json
import math

import pytest

from benchmarks.published import speedups
from benchmarks.published.interspeech2019 import INTERSPEECH2019 as PAPER
from benchmarks.published.quantities import KINDS
from benchmarks.published.speedups import PUBLISHED, Step, fit, rows, shapes, slowest, step, vary
from refimpl.cli import main


def test_sessions_are_true_and_every_number_has_a_known_kind():
    assert doctest.testmod(speedups).failed == 0
    assert {q.kind for q in PAPER.quantities()} <= set(KINDS)
    assert all(q.source for q in PAPER.quantities())


@pytest.mark.parametrize("n", [32, 128])
def test_messages_take_what_the_closed_forms_say(n):
    alpha, beta = PAPER.inter_alpha.value, 1 / PAPER.inter_bandwidth.value
    model = 4 * PAPER.parameters.value
    message = 24 + 4 * round(PAPER.parameters.value * PAPER.density.value)
    gather = (n - 1) * (2 * alpha + (8 + message) * beta)  # lengths, then messages
    mean = 2 * (n - 1) * (alpha + model / n * beta)
    assert step(PAPER, "gtc", n).exchange == pytest.approx(gather, rel=1e-3)
    assert step(PAPER, "ddp", n).exchange == pytest.approx(mean, rel=1e-3)
    assert step(PAPER, "bmuf", n).models == pytest.approx(mean / 50, rel=1e-3)


def test_the_hybrid_waits_for_its_group_and_sends_an_eighth_of_models_from_every_gpu():
    one, group = step(PAPER, "gtc-bmuf", 128), step(PAPER, "gtc", 8)
    assert (one.encode, one.exchange, one.decode) == group[1:4]
    assert group.waiting < one.waiting < step(PAPER, "gtc", 128).waiting
    assert one.models < step(PAPER, "bmuf", 128).models


def test_the_slowest_of_two_is_known_in_closed_form():
    mean, deviation = slowest(2)
    assert mean == pytest.approx(1 / math.sqrt(math.pi), abs=1e-5)
    assert deviation == pytest.approx(math.sqrt(1 - 1 / math.pi), abs=1e-5)


def test_one_number_is_fitted_and_the_order_of_methods_is_predicted():
    found = {(m, n): speed for m, n, _, speed in rows(PAPER, PAPER.ranks, fit(PAPER))}
    assert found["gtc", 32] == pytest.approx(26, rel=1e-9)
    assert {found[method, 1] for method in speedups.METHODS} == {1}
    for n in (32, 64):
        by_model = sorted(PUBLISHED, key=lambda method: found[method, n])
        assert by_model == sorted(PUBLISHED, key=lambda method: PUBLISHED[method][n])
    assert found["gtc-bmuf", 128] < found["bmuf", 128]  # published the other way round


def test_no_assumption_that_is_varied_makes_gtc_slower_on_more_workers():
    assert not any(row.falls for row in vary(PAPER) if row.c is not None)


def test_curves_through_the_ends_meet_the_middle_of_gtc_and_bmuf_and_miss_the_hybrids():
    ends = {one.method: one for one in shapes() if one.fixed == (32, 128)}
    for method, one in ends.items():
        for n in (32, 128):
            assert one.at[n] == pytest.approx(PUBLISHED[method][n])
    miss = {method: one.at[64] / PUBLISHED[method][64] - 1 for method, one in ends.items()}
    assert abs(miss["gtc"]) < 0.01 and abs(miss["bmuf"]) < 0.01 and miss["gtc-bmuf"] > 0.3


def test_plain_data_and_refusals(capsys):
    assert main(["plan", "--preset", "interspeech2019", "--ranks", "1,16", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {(row["workers"], row["status"]) for row in found["rows"]} == {
        (1, ""),
        (16, "predicted"),
    }
    c = found["fitted"]["compute_seconds"]
    for row in found["rows"]:
        seconds = c + sum(row[name] for name in Step._fields)
        assert row["speedup"] == pytest.approx(row["workers"] * c / seconds)
    assert main(["plan", "--preset", "interspeech2019", "--ranks", "12"]) == 2
    assert "multiple of 8" in capsys.readouterr().err
