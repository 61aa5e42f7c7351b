"""The flight recorder: what a rank did last and where it stands, for the day on which it hangs.

`Flight` listens to one rank and keeps its last events and those that are open, without their
values.  Another thread of the rank may ask it at any time, also while the rank waits inside MPI.
`verdict` and `standing` put the records of all ranks side by side, in words.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from refimpl.support.text import table
from refimpl.world.agree import named
from refimpl.world.events import KINDS, Event, Listener

WAITS = frozenset({"send", "receive", "wait", "library"})  # another rank must do something, too
LAST = 256  # events that are kept, of about 200 bytes each
SHOWN = 64  # ranks in a table

Record = dict[str, Any]


class Open(NamedTuple):
    """An event that has begun, when, and what this rank had begun of each kind by then."""

    event: Event
    since: float
    begun: Mapping[tuple[str, str], int]


class Flight(Listener):
    """Hears all that a rank does and keeps the last of it.

    Attributes
    ----------
    step : int
        The training step that is taken, or was last, from 1.
    open : list of Open
        What is open now, the outermost first.
    last : deque of (fields, float, float)
        The last events that are over, without values, with their begins and ends.

    >>> flight = Flight()
    >>> one = Event("collective", "ring.allreduce")
    >>> two = Event("receive", purpose="gradients", peer=2, nbytes=400, link="inter")
    >>> flight.begin(one), flight.begin(two)
    (None, None)
    >>> where(flight.record())
    'receives 400 B of gradients from rank 2: ring.allreduce, message 1'
    >>> flight.end(two)
    >>> where(flight.record())
    'works in ring.allreduce after receive'
    """

    kinds = frozenset(KINDS) - {"value", "progress"}

    def __init__(self, step: int = 0, last: int = LAST) -> None:
        self.step = step
        self.open: list[Open] = []
        self.last: deque[tuple[tuple[Any, ...], float, float]] = deque(maxlen=last)
        self._made = time.monotonic()
        self._begun: Counter[tuple[str, str]] = Counter()

    def begin(self, event: Event) -> None:
        """Note that an event is open."""
        kind, name = event.kind, event.name
        if kind == "phase" and name == "step":
            self.step += 1
        begun = dict(self._begun) if kind == "collective" else _NOTHING
        self._begun[kind, name] += 1
        self.open.append(Open(event, time.monotonic(), begun))

    def end(self, event: Event) -> None:
        """Move it to what is over.  As a rule it was the last to begin."""
        for number in range(len(self.open) - 1, -1, -1):
            if self.open[number].event is event:
                since = self.open.pop(number).since
                self.last.append((event[:-1], since, time.monotonic()))
                return

    def waited(self) -> float:
        """Return for how many seconds this rank has waited for another; 0.0 if it does not."""
        now_open = list(self.open)  # at once: the rank goes on
        if not now_open or now_open[-1].event.kind not in WAITS:
            return 0.0
        return time.monotonic() - now_open[-1].since

    def record(self) -> Record:
        """Return where this rank stands, as plain data; times are seconds before now."""
        now_open, last, now = list(self.open), list(self.last), time.monotonic()
        standing, begun = [], None
        for event, since, before in now_open:
            if event.kind == "collective":
                begun = before
            one = _plain(event[:-1]) | {"seconds": round(now - since, 6)}
            if begun is not None and event.kind in WAITS:
                key = event.kind, event.name
                one["message"] = self._begun[key] - begun.get(key, 0)
            standing.append(one)
        over = [
            _plain(fields) | {"began": round(now - begin, 6), "ended": round(now - end, 6)}
            for fields, begin, end in last
        ]
        since = now_open[-1].since if now_open else last[-1][-1] if last else self._made
        told = {"step": self.step, "waited": self.waited(), "seconds": round(now - since, 6)}
        return told | {"open": standing, "last": over}


_NOTHING: Mapping[tuple[str, str], int] = {}


def _plain(fields: tuple[Any, ...]) -> dict[str, Any]:
    """Return the fields of an event that say something, by name."""
    kind, name, purpose, peer, nbytes, link, tag = fields
    found = {"kind": kind, "name": name}
    if kind in WAITS or kind == "collective":
        found |= {"purpose": purpose, "bytes": nbytes}
    if peer >= 0:
        found |= {"peer": peer, "link": link, "tag": tag}
    return found


# ---------------------------------------------------------------------------------- in words


def where(record: Record) -> str:
    """Return where a rank stands, in words."""
    standing = record["open"]
    inside = [one["name"] for one in standing if one["kind"] in ("phase", "collective")]
    inside = [name for name in inside if name != "step"][-1:]
    if not standing or standing[-1]["kind"] in ("phase", "collective"):
        last = record["last"][-1:]
        words = ["works", *(f"in {name}" for name in inside)]
        return " ".join([*words, *(f"after {one['name'] or one['kind']}" for one in last)])
    top = standing[-1]
    if top["kind"] == "compute":
        return f"computes: {top['name']}"
    what = _awaited(top)
    if top["kind"] == "receive" and len(standing) > 1 and standing[-2]["kind"] == "send":
        what += f", sends to rank {standing[-2]['peer']}"
    number = f", message {top['message']}" if "message" in top else ""
    return f"{what}: {inside[0]}{number}" if inside else what


def _awaited(one: dict[str, Any]) -> str:
    """Return what is waited for, in words."""
    kind, name = one["kind"], one["name"]
    if kind == "library":
        return f"calls MPI's {name}, {one['bytes']:,} B of {one['purpose']}"
    if "peer" not in one:
        return f"waits for all: {name}"
    sends = "send" in (kind, name)
    what = f"{one['bytes']:,} B of {one['purpose']} {'to' if sends else 'from'} rank {one['peer']}"
    return f"{'sends' if sends else 'receives'} {what}"


def verdict(records: Mapping[int, Record], silent: Mapping[int, str], nodes: Sequence[int]) -> str:
    """Return whom the others wait for, in one line.

    ``records`` are those of the ranks that speak, ``silent`` what is known of the others.
    """
    place = tuple(nodes)
    if silent:
        return "; ".join(f"{named([rank], place)} {why}" for rank, why in silent.items())
    busy = [rank for rank, record in records.items() if not record["waited"]]
    if busy:
        return f"{named(busy, place)} work{'s' * (len(busy) == 1)}, the others wait"
    calls: dict[str, list[int]] = {}
    for rank, record in records.items():
        calls.setdefault(_call(record), []).append(rank)
    if len(calls) == 1:
        return f"all wait for each other in {next(iter(calls))}"
    told = ", ".join(f"{named(ranks)} in {call}" for call, ranks in calls.items())
    return f"all wait for each other, in different places: {told}"


def _call(record: Record) -> str:
    """Return which call of which step a rank waits in."""
    outer = next(one for one in record["open"] if one["kind"] not in ("phase", "compute"))
    what = outer["name"] or f"a {outer['kind']} of {outer['purpose']}"
    size = f" of {outer['bytes']:,} B" if outer.get("bytes") else ""
    return f"{what}{size} (step {record['step']})"


def standing(
    records: Mapping[int, Record], silent: Mapping[int, str], nodes: Sequence[int]
) -> str:
    """Return the table of all ranks: node, step, for how long what is waited for or done."""
    rows, told = [], ["where"]
    ranks = sorted({*records, *silent})
    for rank in ranks[:SHOWN]:
        step, seconds, text = "", "", silent.get(rank, "")
        if rank in records:
            record = records[rank]
            step, seconds = str(record["step"]), f"{record['seconds']:.1f}"
            text = where(record)
        rows.append([str(rank), str(nodes[rank]), step, seconds])
        told.append(text)
    columns = table(["rank", "node", "step", "seconds"], rows, left=0).splitlines()
    width = len(columns[0])
    lines = [f"{a.ljust(width)}  {b}" for a, b in zip(columns, told, strict=True)]
    more = len(ranks) - SHOWN
    return "\n".join([*lines, *([f"... and {more} more"] if more > 0 else [])])


def seen(host: str, process: int) -> str:
    """Return what can be seen from here of a process that says nothing, in words."""
    what, state = f"(process {process} on {host})", ""
    if host == os.uname().nodename and os.path.isdir("/proc/self"):
        try:
            with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
                state = file.read().rpartition(")")[2].split()[0]
        except OSError:
            state = "X"
    words = {"T": "is stopped", "t": "is stopped", "Z": "has died", "X": "has died"}
    return f"{words.get(state, 'says nothing')} {what}"
