"""Solutions to the exercises of docs/golden.md: bugs in the template, found by the ladder."""

from pathlib import Path
from types import SimpleNamespace

from refimpl.golden import check_backend, read

TOP = Path(__file__).resolve().parents[2]
TEMPLATE = (TOP / "refimpl/golden/adapters/golden.py").read_text("utf-8")  # of `golden template`


def first_red_line(right, wrong, name):
    """Return the first broken array of the template with one change, and all of them."""
    assert TEMPLATE.count(right) == 1
    backend = {"__name__": "theirs"}
    exec(TEMPLATE.replace(right, wrong), backend)
    bundle = read.load(TOP / "tests/golden" / name)
    offered = SimpleNamespace(**backend["OPERATIONS"])
    report = check_backend(offered, [bundle], say=lambda line: None)
    return report.first.name if report.first else None, [
        line.name for line in report.lines if not line.right
    ]


def exercise_1():
    """The tiny case, made for paper, has a gradient of exactly tau, and one that comes to it."""
    first, _ = first_red_line("residual > tau", "residual >= tau", "compression.gtc")
    assert first.startswith("compression.gtc/encode.tiny/")


def exercise_2():
    """The numbers of the other cases are such that no sum is rounded; these say in which order."""
    loop = "for step in range(2, p + 1)"
    _, wrong = first_red_line(loop, "for step in range(p, 1, -1)", "collectives.ring")
    assert {name.split("/")[1] for name in wrong} == {f"allreduce.n{p}.order" for p in (3, 4, 8)}
