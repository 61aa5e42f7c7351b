"""benchmarks/cluster: its arithmetic, what it refuses and, on request, that it leaves nothing."""

import doctest
import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.partition.stages import Sharded
from refimpl.methods.protocol import Setting
from refimpl.methods.strategies import Methods
from refimpl.nn.flat import Layout
from refimpl.plan.model import perceptron
from refimpl.run.bench.network import network
from refimpl.world.topology import Grid, Nodes

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "cluster"
QUICK = [sys.executable, str(FOLDER), "--quick"]


@pytest.fixture(scope="module")
def report():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("report")
        for name in ("report", "messages"):
            del sys.modules[name]


def figure(seconds, ledger=0.0, hosts=2):
    share = ledger / hosts
    return {
        "seconds": list(seconds),
        "ledger": ledger,
        "entered": [share] * hosts,
        "left": [share * 1.01] * hosts,
    }


def links(intra=(0.0, 0.0), inter=(0.001, 4e-8)):
    """Return the figures that links of this alpha and beta give; additions take no time."""
    figures = {"add": figure([0.0, 0.0])}
    for name, (alpha, beta) in {"intra": intra, "inter": inter}.items():
        for size, (nbytes, times) in {"small": (1 << 10, 8), "large": (1 << 20, 3)}.items():
            figures[f"{name} {size}"] = figure([times * (alpha + nbytes * beta)] * 3)
    return figures


def test_sessions_of_the_report_are_true(report):
    found = doctest.testmod(report)
    assert found.attempted and not found.failed


def test_alpha_and_beta_are_found_again(report):
    run = {"figures": links(intra=(2e-6, 1e-10), inter=(3e-4, 4e-8))}
    (intra, inter, gamma, _), close = report.links_of(run), pytest.approx
    assert (intra.alpha, intra.beta) == (close(2e-6), close(1e-10))
    assert (inter.alpha, inter.beta, gamma) == (close(3e-4), close(4e-8), 0.0)


def test_collectives_stand_beside_the_predicted_time_and_volume(report):
    nbytes = 1 << 20
    figures = links()
    for operation in ("allgather", "reduce_scatter"):
        figures[f"{operation} ring"] = figure([0.04, 0.03, 0.06], 1.5 * nbytes)
        figures[f"{operation} hierarchical"] = figure([0.02, 0.02, 0.02], 1.0 * nbytes)
    run = {"hosts": 2, "ranks_per_host": 2, "figures": figures}
    row, _ = report.collective_rows(run, nbytes)
    flat, two = row["ring"], row["hierarchical"]
    # By hand: 3 steps of one block over the link; 1 step in which 2 ranks send a block each.
    assert flat["predicted"] == pytest.approx(3 * (1e-3 + nbytes / 4 * 4e-8))
    assert two["predicted"] == pytest.approx(1e-3 + nbytes / 2 * 4e-8)
    assert (flat["fraction"], flat["counted"], two["fraction"]) == (0.75, 0.75, 0.5)
    assert flat["seconds"] == 0.04
    assert flat["deviation"] == pytest.approx(flat["predicted"] / 0.04 - 1)
    assert row["ratio"] == pytest.approx(2.0)
    assert row["volume_ratio"] == 1.5
    assert flat["overhead"] == pytest.approx(0.01)
    head, line = report.collective_text([row]).splitlines()
    assert line.split()[:6] == ["2", "x", "2", "all-gather", "40.0", "34.5"]
    assert line.split()[-2:] == ["0.750", "0.500"] and len(line) == len(head)


METHODS = {
    "zero3": {"partition": 8, "family": "ring", "every_microstep": False},
    "zero3, hierarchical": {"partition": 8, "family": "hierarchical", "every_microstep": False},
    "mics, every micro-step": {"partition": 2, "family": "ring", "every_microstep": True},
    "mics, two-hop": {"partition": 2, "family": "ring", "every_microstep": False},
}


@pytest.mark.parametrize("name", METHODS)
def test_without_latency_a_step_takes_the_bytes_that_leave_a_host(report, name):
    # The schedule of the prediction and the closed formulas of the ledger say the same.
    method, widths = METHODS[name], (40, 64, 64, 8)
    job = {"widths": widths, "batch": 4, "microsteps": 4}
    run = {"hosts": 4, "ranks_per_host": 2, "figures": links(inter=(0.0, 1.0))}
    net = network(widths)
    every = method["every_microstep"]
    setting = Setting(
        Grid.cut(8, method["partition"]),
        Nodes.of(8, 2),
        Layout(net.units, method["partition"]),
        collectives.get(method["family"]),
        microsteps=4,
        every_microstep=every,
    )
    methods = Methods(Sharded(3), Exact(every_microstep=every))
    sent = traffic.sent(traffic.step_calls(methods, setting))
    leaving = sum(links["inter"].bytes for links in sent.values()) / 4
    # Blocks of unequal length: a step is as slow as its longest.
    assert report.sending(run, job, method) == pytest.approx(leaving, rel=0.02)
    assert sum(perceptron(widths)) == net.units[0].size + net.units[1].size + net.units[2].size


def steps_run(mics, silent=0.5):
    run = {"hosts": 4, "ranks_per_host": 2, "figures": links()}
    job = {"widths": (40, 64, 8), "batch": 4, "microsteps": 4, "methods": METHODS}
    for name in METHODS:
        seconds = {"zero3": 3.0, "mics, two-hop": mics}.get(name, 2.0)
        run["figures"][name] = figure([seconds] * 3, 4e6, hosts=4)
        run["figures"][f"{name}, silent"] = figure([silent] * 3, hosts=4)
    return run, job


def test_a_predicted_step_is_its_computing_and_its_messages(report):
    run, job = steps_run(mics=1.0)
    row = next(r for r in report.step_rows(run, job) if r["method"] == "mics, two-hop")
    assert row["ratio"] == pytest.approx(3.0)
    assert row["computing"] == 0.5
    assert row["predicted"] == pytest.approx(
        0.5 + report.sending(run, job, METHODS["mics, two-hop"])
    )
    assert row["simulated"] == pytest.approx(row["predicted"], rel=0.02)
    assert row["megabytes"] == 1.0


@pytest.mark.parametrize("mics, holds", [(1.0, True), (1.1, False)])
def test_verdict_on_the_headline_can_be_no(report, mics, holds):
    rows = report.step_rows(*steps_run(mics))
    headline, *_ = report.verdicts([], rows, full=True)
    assert headline["holds"] is holds


def test_worst_deviation_and_overhead_decide(report):
    good = {"method": "mics, two-hop", "ratio": 3.0, "deviation": 0.1, "overhead": 0.01}
    late = good | {"method": "zero3", "deviation": -0.21}
    loud = good | {"method": "zero3", "overhead": 0.11}

    def holds(*rows):
        return [verdict["holds"] for verdict in report.verdicts([], list(rows), full=True)]

    assert holds(good) == [True, True, True]
    assert holds(good, late) == [True, False, True]
    assert holds(good, loud) == [True, True, False]
    assert "MISSED" in report.verdict_text(report.verdicts([], [loud, good], full=True))


def test_steps_are_printed_one_line_each(report):
    text = report.step_text(report.step_rows(*steps_run(1.0)))
    assert len(text.splitlines()) == 1 + len(METHODS)
    assert math.isclose(float(text.splitlines()[-1].split()[-1]), 3.0)


@pytest.mark.parametrize("script", [FOLDER, FOLDER / "slurm.py"], ids=lambda path: path.name)
def test_without_root_it_says_so_in_one_line_and_ends_with_2(script):
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("no setpriv to give up root with")
        command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, str(script)]
    else:
        command = [sys.executable, str(script)]
    run = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
    if "Permission denied" in run.stderr:
        pytest.skip("nobody cannot read this checkout")
    assert run.returncode == 2, run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert "needs root" in run.stderr


def left_behind():
    """Return what a box would leave: names of namespaces, and links."""
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
    return names, [line.split()[1] for line in links.splitlines()]


on_request = pytest.mark.skipif(
    os.environ.get("REFIMPL_TEST_CLUSTER") != "1",
    reason="makes network namespaces: set REFIMPL_TEST_CLUSTER=1, as root, with MPICH",
)


@on_request
def test_interfaces_count_what_the_ledger_says_and_nothing_is_left(tmp_path):
    before = left_behind()
    figures = tmp_path / "figures.json"
    subprocess.run([*QUICK, "--json", str(figures)], check=True, timeout=120)
    result = json.loads(figures.read_text())
    counted = next(v for v in result["verdicts"] if "byte counter" in v["what"])
    assert counted["holds"], counted
    assert {row["operation"] for row in result["collectives"]} == {"allgather", "reduce_scatter"}
    assert left_behind() == before


@on_request
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_takes_all_of_it_down(tmp_path, number):
    before = left_behind()
    figures = str(tmp_path / "figures.json")  # also the mark by which its processes are known
    started = subprocess.Popen(
        [*QUICK, "--json", figures], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for line in started.stdout:
        if line.startswith("measuring"):
            break
    time.sleep(1.5)
    started.send_signal(number)
    assert started.wait(20) in (-number, 128 + number)

    def alive():
        return [p for p in Path("/proc").glob("[0-9]*") if figures in words_of(p)]

    deadline = time.monotonic() + 10
    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive()
    assert left_behind() == before
    assert started.stdout.read() is not None  # end of file: no rank holds the pipe


def words_of(process):
    try:
        return (process / "cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
