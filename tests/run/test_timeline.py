"""A step of a trace is told and drawn as it was."""

import os
import re
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest

from refimpl.run import timeline
from refimpl.support.errors import UserError
from refimpl.world.trace import Slice, packets


def doing(kind, begin, end, name="", **more):
    """Return what a rank did in microseconds begin to end of step 3."""
    plain = {"purpose": "", "peer": -1, "nbytes": 0, "link": "", "tag": 0, "inside": ""}
    plain |= {"step": 3, "message": -1} | more
    return Slice(kind, name, **plain, begin=begin / 1e6, end=end / 1e6)


def message(kind, begin, end, peer):
    about = {"purpose": "gradients", "link": "inter", "nbytes": 4000, "message": 0}
    return doing(kind, begin, end, peer=peer, **about)


STEP = [
    [
        doing("phase", 0, 100, "step"),
        doing("compute", 0, 40, "forward a"),
        message("send", 40, 90, 1),
    ],
    [
        doing("phase", 0, 100, "step"),
        doing("compute", 0, 10, "forward a"),
        message("receive", 10, 90, 0),
    ],
]


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "two.pftrace"
    about = ["rank 0 (node 0, clock within 0 us)", "rank 1 (node 1, clock within 0 us)"]
    path.write_bytes(b"".join(packets(STEP, about)))
    return path


def test_every_moment_of_a_step_is_computing_moving_or_waiting_once(trace):
    found = timeline.read(trace)
    assert (found.steps, found.length, found.nodes) == ((3, 3), 100_000, ["node 0", "node 1"])
    shares = [[round(share[each], 6) for each in timeline.DOING] for share in found.shares()]
    assert shares == [[0.4, 0.5, 0.0], [0.1, 0.5, 0.3]]  # rank 1 waits until rank 0 sends
    assert found.sent(0) == {"intra": 0, "inter": 4000} and found.sent(1)["inter"] == 0
    assert "two: step 3, 100 us" in timeline.told([found])
    assert re.search(r"rank 1 +10% +50% +30%", timeline.told([found]))


def test_a_picture_has_every_piece_in_its_place_and_a_line_for_the_message(trace):
    picture = timeline.draw([timeline.read(trace)])
    assert picture == timeline.draw([timeline.read(trace, (3, 3))])
    top = ElementTree.fromstring(picture)
    space = "{http://www.w3.org/2000/svg}"
    pieces = {rect.find(f"{space}title"): rect for rect in top.iter(f"{space}rect")}
    drawn = {title.text: rect for title, rect in pieces.items() if title is not None}
    assert set(drawn) == {
        "forward a, 40 us",
        "forward a, 10 us",
        "gradients to 1, 50 us, 4 kB inter",
        "gradients from 0, 50 us, 4 kB inter",
        "gradients from 0, 30 us, 4 kB inter",
    }
    sent = drawn["gradients to 1, 50 us, 4 kB inter"]
    assert float(sent.get("x")) == timeline.LEFT + 0.4 * timeline.WIDE
    assert float(sent.get("width")) == 0.5 * timeline.WIDE
    assert picture.count('stroke-width="1.6"') == 1


def test_the_end_of_a_block_belongs_to_the_step_before_it(tmp_path):
    begun = [(0, 3, "step"), (100, 4, "step"), (150, 4, "end of block"), (250, 5, "step")]
    rank = [doing("phase", at, at + 50, name, step=step) for at, step, name in begun]
    path = tmp_path / "block"
    path.write_bytes(b"".join(packets([rank], ["rank 0"])))
    lengths = [timeline.read(path, each).length for each in ((3, 3), (4, 4), (3, 4), (3, 5))]
    assert lengths == [50_000, 100_000, 200_000, 300_000]
    assert timeline.told([timeline.read(path, (3, 4))]).startswith("block: steps 3 to 4, 200 us")
    assert ": step 4, 100 us" in timeline.draw([timeline.read(path)])


@pytest.mark.parametrize(
    "content, steps, words",
    [
        (b"", None, "has no step"),
        (b"no trace", None, "is no trace of train --trace"),
        (
            b"\x0a\x03\xe0\x03\x05",
            None,
            "is no trace of train --trace",
        ),  # no bytes in a field of some
        (
            b"".join(packets([[doing("phase", 0, 1, "step", step="3")]], ["x"])),
            None,
            "has no step",
        ),
        (None, (3, 7), "has steps 3 to 3: 7 is none of them"),
    ],
)
def test_what_cannot_be_drawn_is_refused(trace, content, steps, words):
    if content is not None:
        trace.write_bytes(content)
    with pytest.raises(UserError, match=words):
        timeline.read(trace, steps)
    os.mkfifo(trace.with_name("pipe"))
    for path in Path("nowhere"), trace.with_name("pipe"):
        with pytest.raises(UserError, match="cannot read"):
            timeline.read(path)


def test_every_beginning_of_a_trace_and_one_with_a_wrong_bit_is_refused_or_read(trace):
    whole = trace.read_bytes()
    for at in range(0, len(whole), 7):
        for content in whole[:at], bytes([*whole[:at], whole[at] ^ 2, *whole[at + 1 :]]):
            trace.write_bytes(content)
            with suppress(UserError):
                timeline.read(trace)
