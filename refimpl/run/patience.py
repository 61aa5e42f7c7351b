"""Patience: when a rank has waited for too long, all say where they stand, and the job ends.

The ranks cannot talk by messages then, since their main threads wait inside MPI for one that does
not come.  So each has a thread of its own beside it, which looks now and then at the rank's
`Flight` and at the run's folder, which all ranks must see:

    flight-rank-00003.json   where rank 3 stands, and the last that it did
    flight.txt               the table of all of them: whoever makes it speaks for all

The first that has waited for too long writes its record; whoever finds one writes its own.  A
moment later the lowest rank that has spoken makes the table from those that are there.  Of a rank
that writes none it is said what can be seen of its process: a thread runs on while its rank
computes or waits, but not in a process that was stopped or has died.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from refimpl.run.folder import STATE
from refimpl.support.errors import UserError, require
from refimpl.support.files import write_json
from refimpl.support.text import duration
from refimpl.world.agree import together
from refimpl.world.communicator import Communicator
from refimpl.world.flight import Flight, Record, seen, standing, verdict

RECORD, TABLE = "flight-rank-{:05}.json", "flight.txt"
RECORDS = "flight-rank-*.json"


class Patience:
    """Watches one rank, inside its ``with`` block.  All ranks enter and leave it.

    Parameters
    ----------
    comm : Communicator
        The world.
    seconds : float
        How long a rank may wait for a message.
    folder : Path
        The run's, the same on all ranks.
    end : callable
        Is given the text, on the rank that speaks, and ends the job.
    step : int
        Steps that were taken before.

    Raises
    ------
    UserError
        If a rank does not see the folder; on all ranks.
    """

    def __init__(
        self,
        comm: Communicator,
        seconds: float,
        folder: Path,
        end: Callable[[str], None],
        step: int = 0,
    ) -> None:
        self.comm, self.seconds, self.folder, self.end = comm, seconds, folder, end
        self.flight = Flight(step)
        self.look = min(5.0, seconds / 8)  # from one look to the next
        self.moment = min(30.0, max(3 * self.look, seconds / 2))  # for all to speak
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Patience:
        with together(self.comm):
            if self.comm.rank == 0:  # an earlier part of this run may have ended so
                for file in (*self.folder.glob(RECORDS), self.folder / TABLE):
                    file.unlink(missing_ok=True)
        host, process = os.uname().nodename, os.getpid()
        self.processes = self.comm.allgather_object((host, process))
        with together(self.comm):
            require(
                self.folder.is_dir(),
                f"--patience: rank {self.comm.rank} on {host} does not see the run's folder "
                f"{self.folder}: put it on a file system that all ranks share, with --out",
            )
        self.comm.events.add(self.flight)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.comm.events.remove(self.flight)

    # ------------------------------------------------------------------- the thread beside a rank

    def _watch(self) -> None:
        while not self._over.wait(self.look):
            waited = self.flight.waited()
            if waited > self.seconds or any(self.folder.glob(RECORDS)):
                self._speak()
                return

    def _speak(self) -> None:
        """Say where this rank stands; then end the job, unless a lower one does."""
        rank = self.comm.rank
        host, process = self.processes[rank]
        mine = {"rank": rank, "node": self.comm.nodes[rank], "host": host, "process": process}
        mine |= {"time": time.time(), **self.flight.record()}
        with suppress(UserError):  # of a full disk the others see nothing, and say so
            write_json(self.folder / RECORD.format(rank), mine)
        time.sleep(self.moment)
        records = dict(sorted((self._records() | {rank: mine}).items()))
        # The lowest at once; should it die now, the next one a moment later.
        for _ in range([*records].index(rank)):
            time.sleep(self.moment)
            if (self.folder / TABLE).exists():
                return
        silent = {
            other: seen(*self.processes[other])
            for other in range(self.comm.size)
            if other not in records
        }
        why = self._why(records, silent)
        text = f"{why}\n{standing(records, silent, self.comm.nodes)}\n"
        try:
            with (self.folder / TABLE).open("x") as file:
                file.write(text)
            self._fail(why)
        except FileExistsError:
            return  # somebody else was as fast
        except (OSError, ValueError, UserError):
            pass  # of a full disk, or of no run
        self.end(text)

    def _fail(self, why: str) -> None:
        """Say in the run's state that it has failed, and leave the rest of it as it is."""
        state = json.loads((self.folder / STATE).read_text())
        write_json(self.folder / STATE, {**state, "state": "failed", "why": why})

    def _records(self) -> dict[int, Record]:
        """Return what the ranks have said, by rank."""
        found = {}
        for file in self.folder.glob(RECORDS):
            with suppress(OSError, ValueError):
                record = json.loads(file.read_text())
                found[int(record["rank"])] = record
        return found

    def _why(self, records: dict[int, Record], silent: dict[int, str]) -> str:
        longest = max(records, key=lambda rank: records[rank]["waited"])
        return (
            f"rank {longest} has waited for {duration(records[longest]['waited'])} "
            f"(--patience {self.seconds:g}): {verdict(records, silent, self.comm.nodes)}"
        )
