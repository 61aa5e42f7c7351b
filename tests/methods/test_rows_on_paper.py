"""`refimpl topology` prints, for every row, what training of that shape sends."""

import re

import numpy as np
import pytest
import rows
import tiny
from rows import ALL, run

from refimpl import cli, nn
from refimpl.world.ledger import Count

ROW = re.compile(r"  (inside|between) nodes +([\d,]+) messages +([\d,]+) bytes")


def one_unit(dtype=np.float32):
    """A network whose parameters are one unit."""
    net = nn.Sequential(nn.Affine("all", tiny.WIDTHS[0], 37, seed=1))
    net.plan(tiny.BATCH, dtype)
    return net


PARAMETERS = ",".join("x".join(map(str, one.shape)) for one in one_unit().units[0].parameters)


def whole(case):
    """Tell whether a model of one unit can be trained."""
    return case.methods.block is None or case.methods.block.fragments == 1


def printed(case, *more, capsys):
    """Return what the command says that all ranks send: in a step, of a warm start, of a block."""
    words = ["topology", "-n", case.world, "--strategy", case.name, "--parameters", PARAMETERS]
    options = case.row.options()
    for key, value in case.shown.items():
        words += [options[key].flag] if value is True else [options[key].flag, value]
    words += more
    assert cli.main([str(word) for word in words]) == 0, words
    said = ROW.findall(capsys.readouterr().out)
    counts = [Count(*(int(x.replace(",", "")) for x in numbers)) for _, *numbers in said]
    links = ("intra", "inter")
    return [dict(zip(links, counts[i : i + 2], strict=True)) for i in range(0, len(counts), 2)]


def sent(phases):
    """Return what all ranks sent in a phase, by link."""
    total = dict.fromkeys(("intra", "inter"), Count())
    for links in rows.summed(phases).values():
        for link, count in links.items():
            total[link] += count
    return total


@pytest.mark.parametrize("case", [case for case in ALL if whole(case)], ids=str)
def test_what_all_ranks_send_on_paper_is_what_they_send(case, capsys):
    """To the byte, or where a message depends on the data: at its density, and nearly."""
    ranks = run(case, per_node=2, network=one_unit, clip=None, exact=False)
    names = [phase.name for phase in ranks[0].phases]
    steps = [number for number, name in enumerate(names) if name == "step"]
    last = steps[-1]
    paper = ["--microsteps", 2, "--ranks-per-node", 2]
    density = [rank.phases[last].statistics.get("density") for rank in ranks]
    if density[0] is not None:
        paper += ["--density", max(sum(density) / case.world, 1e-9)]
    step, *block = printed(case, *paper, capsys=capsys)
    if case.shown.get("warm_start"):
        assert block.pop(0) == sent([rank.phases[steps[0]] for rank in ranks])
    everyones = sent([rank.phases[last] for rank in ranks])
    for link, count in everyones.items():
        assert count.messages == step[link].messages, link
        assert count.bytes == pytest.approx(step[link].bytes, rel=0.1 if any(density) else 0)
    ends = [number for number, name in enumerate(names) if name != "step"]
    assert block == [sent([rank.phases[number] for rank in ranks]) for number in ends[:1]]
