"""How far something is: on stderr, now and then, and not at all if it is over soon."""

import pytest

from refimpl.cli.base import Shown, teller
from refimpl.support import progress
from refimpl.world.events import Events


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets, and nobody who watches."""
    monkeypatch.setattr(progress, "on_terminal", lambda: False)
    return [0.0]


def told(clock, seconds, parts=10):
    """Tell of something that takes so long in so many parts, and then of something short."""
    shown = Shown()
    shown.progress = progress.Progress(lambda: clock[0])
    events = Events(rank=0)
    with events.listen(shown):
        for part in range(parts):
            events.progress("decoding", part + 1, parts)
            clock[0] += seconds / parts
        events.progress("features", 1, 2)
        events.progress("features", 2, 2)
    events.progress("decoding", 5, parts)  # nobody hears it


def test_a_line_now_and_then_for_what_takes_long(clock, capsys):
    told(clock, 200)
    said = capsys.readouterr()
    lines = [f"decoding: {part} of 10, {20 * (part - 1)}.0 s" for part in (3, 5)]
    assert said.out == "" and said.err.splitlines()[:2] == lines
    assert said.err.splitlines()[2:] == [
        "decoding: 7 of 10, 2 min 0 s",
        "decoding: 9 of 10, 2 min 40 s",
    ]


def test_nothing_is_said_of_what_is_over_soon_nor_to_who_has_gone(clock, capsys, monkeypatch):
    told(clock, 29)
    assert capsys.readouterr() == ("", "")

    class Gone:
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Gone())
    told(clock, 200)


def test_who_wants_quiet_is_told_warnings():
    found = []
    teller(True, found.append)("4 ranks\nwarning: one is slow\nepoch 1")
    assert found == ["warning: one is slow"]
    teller(False, found.append)("epoch 1")
    assert found[1:] == ["epoch 1"]
