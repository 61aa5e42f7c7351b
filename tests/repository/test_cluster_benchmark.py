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
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loopback import spawn

from refimpl import collectives
from refimpl.methods import traffic
from refimpl.methods.gradient.exact import Exact
from refimpl.methods.gradient.gtc.exchange import exchange
from refimpl.methods.gradient.gtc.threshold import Counts
from refimpl.methods.partition.stages import Sharded
from refimpl.methods.protocol import Setting
from refimpl.methods.strategies import Methods
from refimpl.nn.flat import Layout
from refimpl.plan.model import Cluster, Method, Model, perceptron, predict
from refimpl.run.bench.network import network
from refimpl.world.communicator import Communicator
from refimpl.world.threads import Post
from refimpl.world.topology import Grid, Nodes

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "cluster"
QUICK = [sys.executable, str(FOLDER), "--quick"]


@pytest.fixture(scope="module")
def modules():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        names = ("messages", "report", "speed", "training")
        yield {name: importlib.import_module(name) for name in names}
        for name in names:
            del sys.modules[name]


@pytest.fixture(scope="module")
def report(modules):
    return modules["report"]


@pytest.fixture(scope="module")
def speed(modules):
    return modules["speed"]


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


@pytest.mark.parametrize("name", ["report", "speed"])
def test_sessions_of_the_report_are_true(modules, name):
    found = doctest.testmod(modules[name])
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


# ------------------------------------------------------------------------- strategies that train

ALPHA, BETA, P = 0.001, 4e-8, 781_884


def trained(speed, hosts, k, **seconds):
    """Return a launch's job and figures: steps of so long, 1 s by default, twins' of 0.5 s.

    A step sends 3.2 MB between hosts, and twice that inside them.
    """
    job = next(j for j in speed.jobs(quick=False) if j["hosts"] == hosts)
    measured = {"hosts": hosts, "ranks_per_host": k, "figures": links(inter=(ALPHA, BETA))}
    measured["message_bytes"] = {}
    for name, n in job["steps"].items():
        twin = name.endswith("empty")
        took = 0.5 if twin else seconds.get(name.replace("-", "_"), 1.0)
        measured["figures"][name] = figure([n * took] * 15, 0.0 if twin else n * 3.2e6, hosts)
        measured["figures"][name]["inside"] = n * 6.4e6
        measured["message_bytes"][name] = [24_000.0 if "gtc" in name else 0.0] * hosts * k
    return job, measured


def test_bytes_of_strategies_take_what_is_worked_out_by_hand(speed):
    job, measured = trained(speed, 8, 1)
    ring = 14 * math.ceil(P / 8) * 4 * BETA  # of 8 ranks: reduce-scatter, all-gather
    mean = 6 * P / 8 * 4 * BETA  # of 4 groups, of the half that a member carries
    sent = (8 + 24_000) * BETA  # two ranks: the lengths, then a message to each
    by_hand = {
        "ddp": ring,
        "gtc": 7 * sent,
        "bmuf": ring / 50,
        "gtc-bmuf": sent + (mean + P / 2 * 4 * BETA) / 50,
    }
    for name, expected in by_hand.items():
        run, nbytes = speed.Run.from_dict(job["runs"][name]), measured["message_bytes"][name]
        assert speed.sending(run, measured, nbytes) == pytest.approx(expected, rel=1e-4), name


@pytest.mark.parametrize("hosts, k", [(4, 2), (8, 1)])
def test_bytes_of_mics_take_what_the_plan_says(report, speed, hosts, k):
    job, measured = trained(speed, hosts, k)
    run = speed.Run.from_dict(job["runs"]["mics"])
    run = replace(run, recipe=replace(run.recipe, clip=None))  # the plan knows no norm
    units = tuple(unit.size for unit in speed.network_of(run, speed.opened()).units)
    split = predict(
        Model(units, 1),
        Cluster(8, k, math.inf, report.links_of(measured).without_alpha()),
        Method(partition=2),
    )
    assert sum(units) == P
    assert speed.sending(run, measured, [0.0] * 8) == pytest.approx(split.step, rel=1e-3)


def test_rows_of_strategies_have_their_speed_their_bytes_and_a_prediction(speed):
    job, measured = trained(speed, 4, 2, ddp=2.0, bmuf=0.64)
    rows = {row["method"]: row for row in speed.rows(measured, job)}
    row, close = rows["bmuf"], pytest.approx
    assert (row["frames_per_second"], row["ratio"]) == (close(8 * 32 / 0.64), close(2.0 / 0.64))
    assert row["twin"] == 0.5
    assert row["predicted"] == close(0.5 + row["sending"])
    assert row["deviation"] == close(row["predicted"] / 0.64 - 1)
    assert (row["between"], row["inside"], row["overhead"]) == (12_500, 25_000, close(0.01))
    lines = speed.text(list(rows.values())).splitlines()
    assert len(lines) == 1 + 6 and lines[3].split()[:5] == ["4", "x", "2", "bmuf", "400"]


@pytest.mark.parametrize(
    "seconds, missed",
    [
        ({"ddp": 1.0, "gtc": 0.7, "bmuf": 0.55, "gtc_bmuf": 0.6}, []),
        ({"ddp": 1.0, "gtc": 1.1, "bmuf": 0.55, "gtc_bmuf": 0.6}, ["gtc"]),
        ({"ddp": 1.0, "gtc": 0.7, "bmuf": 0.8, "gtc_bmuf": 0.71}, ["gtc-bmuf", "bmuf"]),
    ],
)
def test_who_is_faster_can_be_missed(speed, seconds, missed):
    job, measured = trained(speed, 4, 2, **seconds)
    *faster, _, _ = speed.verdicts(speed.rows(measured, job), full=True)
    words = [verdict["what"].split()[3] for verdict in faster if not verdict["holds"]]
    assert len(faster) == 3 and words == missed


class Weighed(Post):
    """Messages on their way, and how long the arrays among them are."""

    def __init__(self, ranks):
        super().__init__(ranks)
        self.lengths = []

    def put(self, key, item):
        if isinstance(item, bytes):
            self.lengths.append(len(item))
        super().put(key, item)


def test_a_twin_hears_its_own_message_from_everybody_in_empty_ones(modules):
    def body(comm):
        hollow = modules["training"].Hollow(comm._transport)
        twin = Communicator.over(hollow, comm.members, comm.nodes).split(0)
        words, added = np.array([2 * comm.rank + 1], np.uint32), np.zeros(40, np.float32)
        exchange(twin, words, 0.5, Counts(40, 3), added)
        x = np.full(6, comm.rank, np.float32)
        collectives.get("ring").allreduce(twin, x)
        return added[comm.rank], added.sum(), x.tolist()

    post = Weighed(3)
    for rank, found in enumerate(spawn((0, 1, 1), body, post)):
        assert found == (1.5, 1.5, [3.0 * rank] * 6)
    assert post.lengths == [0] * 3 * (2 + 2 + 4)  # lengths, messages, an all-reduce


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
def test_all_strategies_are_timed_and_nothing_is_left(tmp_path):
    before, figures = left_behind(), tmp_path / "figures.json"
    subprocess.run([*QUICK, "--methods", "--json", str(figures)], check=True, timeout=300)
    rows = json.loads(figures.read_text())["speeds"]
    assert len(rows) == 6 and all(row["frames_per_second"] > 0 for row in rows)
    assert left_behind() == before


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
