"""What `bench` prints, from figures that were not measured."""

from refimpl import cli
from refimpl.cli import bench
from refimpl.collectives.auto import ASSUMED
from refimpl.run.bench import collectives, gtc, links, step


def row(operation, nbytes, **ratio):
    figures = {"operation": operation, "bytes": nbytes, "dtype": "float32", "ranks": 2, "nodes": 1}
    return {**figures, "auto": next(iter(ratio)), "seconds": {"native": 1e-3}, "ratio": ratio} | {
        "best": {"native": 1.0} | dict.fromkeys(ratio, 2.0)
    }


def test_each_operation_has_a_table_with_a_row_for_each_size():
    rows = [row("allreduce", 1 << 10, ring=1.5, tree=1.2), row("allreduce", 1 << 20, ring=0.5)]
    first, second, near = collectives.table([*rows, row("reduce", 1 << 20, tree=2)]).split("\n\n")
    title, head, small, large = first.splitlines()
    assert title.startswith("allreduce, float32, 2 ranks on 1 node: ")
    assert small.split() == ["1", "KiB", "1.000", "ms", "1.50", "1.20", "ring", "1.25"]
    assert large.split()[:5] == ["1", "MiB", "1.000", "ms", "0.50"]
    assert len(head) == len(small) == len(large) and head.endswith("auto takes  to the best")
    assert second.startswith("reduce,") and "2.00" in second
    assert near.endswith("in 2 of 3 rows by medians, in 3 by the least times")


def test_a_step_stands_beside_its_parts():
    seconds = {"products": 0.01, "all-reduce": 0.002, "step": 0.015}
    text = step.table(
        {"ranks": 1, "widths": [3, 2], "batch": 4, "collective": "ring", "parameters": 8}
        | {"seconds": seconds, "ratio": 1.25, "ratio_quartiles": [1.2, 1.3]}
    )
    assert text.splitlines() == [
        "1 rank, 3-2, batch 4 per rank, ring all-reduce of 8 float32",
        "  products    10.00 ms",
        "  all-reduce   2.00 ms",
        "  step        15.00 ms",
        "  step / (products + all-reduce) = 1.250 (quartiles 1.200, 1.300)",
    ]


def test_traffic_is_compared_with_ddps():
    sent = {"intra": 400.0, "inter": 400.0}, {"intra": 6.0, "inter": 4.0}, {"intra": 6, "inter": 2}
    names = ("ddp", "gtc", "gtc-bmuf")
    result = {"model": "mlp", "ranks": 4, "nodes": 2}
    text = gtc.traffic_table(result | {"bytes_per_step": dict(zip(names, sent, strict=True))})
    assert text.splitlines()[2].split() == ["gtc", "6", "intra", "4", "inter", "1/80", "of", "ddp"]
    assert text.endswith("gtc-bmuf / gtc, between nodes = 0.50")


def test_links_are_measured_in_as_many_rounds_as_were_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(links, "measure", lambda comm, **more: asked.append(more) or ASSUMED)
    for words in ([], ["--repeats", "3"]):
        bench.KINDS["links"](None, cli.parser().parse_args(["bench", "links", *words]))
    assert asked == [{}, {"repeats": 3}]
