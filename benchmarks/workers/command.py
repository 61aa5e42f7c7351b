"""The command: the whole experiment, or what there is of it."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.workers import kept, picture, table, ways
from benchmarks.workers.desk import Desk
from benchmarks.workers.jobs import FULL, QUICK, Job, NotYet, Size
from benchmarks.workers.work import Book, everything, frames_planned
from refimpl.support.errors import UserError
from refimpl.support.files import write_whole

PICTURE = "workers.svg"


def main(words: list[str] | None = None) -> int:
    """Do it, or report."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/workers", description="The published error column, asked again."
    )
    parser.add_argument("--out", metavar="DIR", help="where runs are kept, outside the checkout")
    parser.add_argument("--quick", action="store_true", help="all of it in small, in seconds")
    parser.add_argument(
        "--report",
        action="store_true",
        help="of what is there already; without --out, of the runs that docs/workers.md tells of",
    )
    parser.add_argument("--svg", metavar="FILE", help="draw the report's picture here, too")
    parser.add_argument("--pack", metavar="FILE", help="write the report's runs as one file")
    parser.add_argument("--ways", action="store_true", help="measure ranks as threads beside it")
    args = parser.parse_args(words)
    size = QUICK if args.quick else FULL
    if not args.out and not args.quick and not args.report:
        parser.error("give --out DIR, a folder with 2 GB of room")
    if not args.report and (args.svg or args.pack):
        parser.error("--svg and --pack go with --report")
    try:
        with contextlib.ExitStack() as stack:
            folder = Path(args.out or stack.enter_context(tempfile.TemporaryDirectory()))
            if args.report and not args.out:
                kept.unpack(kept.FILE, size, folder)
            return work(folder, size, args)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.code


def work(folder: Path, size: Size, args: argparse.Namespace) -> int:
    """Do what is left to do in a folder, unless it is only to report; write what there is."""
    desk = Desk(folder, size, say)
    if args.report:
        book = everything(size, lambda job, test: known(desk, job, test), lambda book: None)
        say(write(desk, book) + remains(desk))
        if args.svg:
            write_whole(Path(args.svg), (folder / PICTURE).read_bytes())
        if args.pack:
            kept.pack(Path(args.pack), size, desk.all())
        return 0
    with desk:
        if args.ways:
            say(ways.measured(desk, size.workers))
            return 0
        multiple = size.batch * max(size.workers)
        epoch = desk.task.train.count // multiple * multiple
        planned = frames_planned(size, epoch)
        say(
            f"{desk.task.train.count:,} training frames, {epoch:,} to an epoch; at most "
            f"{planned / 1e6:,.0f} million frames in all: {planned / 27000 / 3600:.1f} hours of a "
            "core that takes 27,000 a second"
        )
        clock = Clock(desk, planned)
        while not (book := everything(size, clock.trained, clock.written)).whole:
            desk.rest()  # other processes are at what is left
        say(write(desk, book))
    return 0


def known(desk: Desk, job: Job, test: bool) -> dict[str, Any]:
    """Return what is kept of a run; raise `NotYet` if nothing is."""
    found = desk.known(job, test)
    if found is None:
        raise NotYet(job.name)
    return found


def write(desk: Desk, book: Book) -> str:
    """Write tables and picture of what there is; return the tables."""
    hours = sum(run["cpu_seconds"] for run in desk.all()) / 3600
    text = table.whole(desk.size, book, hours)
    write_whole(desk.folder / "tables.md", text.encode())
    write_whole(desk.folder / PICTURE, picture.draw(desk.size, book).encode())
    return text


class Clock:
    """Trains, and says after each run how much is left, at the pace of all who work here."""

    def __init__(self, desk: Desk, planned: int) -> None:
        self.desk, self.planned = desk, planned
        self.begun = self.wrote = time.monotonic()
        self.before = self.done()

    def done(self) -> int:
        """Return the frames of all runs that are over."""
        return sum(run.get("frames", 0) for run in self.desk.all())

    def written(self, book: Book) -> None:
        """Write tables and picture, once a minute at most."""
        if time.monotonic() - self.wrote > 60:
            write(self.desk, book)
            self.wrote = time.monotonic()

    def trained(self, job: Job, test: bool) -> dict[str, Any]:
        """Return what came of a run."""
        if (found := self.desk.known(job, test)) is not None:
            return found
        begun = time.monotonic()
        found, now = self.desk.trained(job, test), time.monotonic()
        done = self.done()
        left = ""
        if done > self.before:
            pace = (done - self.before) / (now - self.begun)
            left = f", at most {max(0, self.planned - done) / pace / 3600:.1f} h left"
        error = f"{found['dev']['frame_error_rate']:.2%}" if "dev" in found else "diverged"
        say(
            f"{time.strftime('%H:%M')} {job.name}: {job.told()}: dev FER {error}, "
            f"{now - begun:.0f} s; {done / self.planned:.1%} done{left}"
        )
        return found


def remains(desk: Desk) -> str:
    """Return what is under way."""
    parts = [path.stem for path in desk.runs.glob("*.npz")]
    done = len(list(desk.runs.glob("*.json")))
    return f"\n{done} runs are over" + (f"; under way: {', '.join(parts)}" if parts else "")


def say(text: str) -> None:
    """Print, at once."""
    print(text, flush=True)
