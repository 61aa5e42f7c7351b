"""``refimpl golden VERB``: golden values for other implementations, without MPI.

Started on many ranks, the first one does all the work: the values need no MPI, and so they are the
same on any number of ranks and with any MPI.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from refimpl.cli.arguments import between, filename, positive
from refimpl.cli.base import on_first_rank, say
from refimpl.support.errors import UserError, refused, require
from refimpl.support.files import check_file, write_whole
from refimpl.support.progress import Progress

if TYPE_CHECKING:
    from refimpl.golden.bundle import Bundle

ulps = between(1, 1_000_000)  # as in a manifest
TEMPLATES = {"c": "golden.c", "python": "golden.py", "rust": "golden.rs"}


def folder(text: str) -> Path:
    """Return the path of a folder that has a name."""
    return Path(filename(text))


def add(commands: Any) -> None:
    """Declare the command."""
    command = commands.add_parser("golden", help="write or check golden values (needs no MPI)")
    verbs = command.add_subparsers(
        metavar="write|list|describe|template|editions|pack|check", required=True
    )

    write = verbs.add_parser("write", help="write the ladder of cases into a folder")
    write.add_argument("folder", type=folder, metavar="DIR", help="one sub-folder for each bundle")
    write.add_argument(
        "--container",
        choices=("npz", "safetensors"),
        default="npz",
        help="safetensors: the arrays also as arrays.safetensors, beside arrays.npz",
    )
    write.set_defaults(run=run, work=run_write)

    listing = verbs.add_parser("list", help="print the names of all cases and what they show")
    listing.set_defaults(run=run, work=run_list)

    describe = verbs.add_parser("describe", help="print what an operation is given and does")
    describe.add_argument("operation", metavar="OPERATION", help="for example gtc_adapt")
    describe.set_defaults(run=run, work=run_describe)

    template = verbs.add_parser("template", help="write a backend's first file")
    template.add_argument("language", choices=TEMPLATES)
    template.add_argument("folder", type=folder, metavar="DIR", help="where it is written")
    template.set_defaults(run=run, work=run_template)

    told = verbs.add_parser("editions", help="print the editions, and which cases came with each")
    told.set_defaults(run=run, work=run_editions)

    pack = verbs.add_parser("pack", help="write an edition as one archive, with SHA256SUMS")
    pack.add_argument("file", type=filename, metavar="FILE.zip")
    pack.set_defaults(run=run, work=run_pack)

    check = verbs.add_parser("check", help="compare somebody's arrays with the ladder")
    check.add_argument("folder", type=folder, metavar="THEIRS", help="holds BUNDLE/arrays.npz")
    check.add_argument("--against", type=folder, metavar="DIR", help="default: computed now")
    check.add_argument("--quiet", action="store_true", help="only what is wrong")
    check.add_argument("--first", action="store_true", help="stop at the first case that is wrong")
    check.add_argument(
        "--only-answered", action="store_true", help="leave out cases that THEIRS has no answer to"
    )
    check.add_argument(
        "--ulp",
        type=loosening,
        action="append",
        default=[],
        metavar="GLOB=K",
        help="allow K ulp where less is allowed, e.g. 'layers=4'; may be repeated",
    )
    check.add_argument(
        "--expect-fail",
        type=filename,
        metavar="FILE",
        help="names or globs, one a line, of what is to be wrong",
    )
    check.add_argument(
        "--report",
        nargs=2,
        action="append",
        default=[],
        metavar=("json|junit", "FILE"),
        help="write what was found to a file; may be repeated",
    )
    check.set_defaults(run=run, work=run_check)

    for verb in (write, listing, pack, check):
        verb.add_argument(
            "--edition", type=positive, metavar="N", help="as it was then (default: the last)"
        )
    for verb in (write, listing, check):
        verb.add_argument(
            "--cases",
            action="append",
            default=[],
            metavar="GLOB",
            help="e.g. 'layers/affine.*', or '!acoustic' for all others; may be repeated",
        )


def run(args: Any) -> int:
    """Do what the verb says, on the first rank."""
    return on_first_rank(lambda: args.work(args))


def run_write(args: Any) -> int:
    """Write the cases that match; refuse a folder that holds something else."""
    from refimpl.golden import cases, editions, read, select

    _check_target(args.folder, read.names(args.folder))
    ladder = list(cases.ladder(watch=_watch()))
    chosen = select.chosen(editions.until(ladder, args.edition), args.cases)
    _check_kept(args.folder, ladder, chosen)
    for one in chosen:
        one.write(args.folder, args.container == "safetensors")
        arrays = sum(len(case.arrays) for case in one.cases)
        size = sum(f.stat().st_size for f in one.files(args.folder) if f.exists())
        say(f"{one.name}: {len(one.cases)} cases, {arrays} arrays, {size:,} bytes")
    return 0


def _watch(quiet: bool = False) -> Callable[[int, int], None]:
    """Return who is told how many bundles are computed."""
    return (lambda done, total: None) if quiet else partial(Progress().at, "golden values")


def _check_target(folder: Path, bundles: list[str]) -> None:
    """Refuse a folder that holds anything but bundles and hidden files."""
    remedy = "give a new or empty folder, or one of bundles"
    require(folder.is_dir() or not folder.exists(), f"{folder} is not a folder: {remedy}")
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.name not in bundles and not path.name.startswith("."):
                raise UserError(f"{folder} holds {path.name}, which is no golden bundle: {remedy}")


def _check_kept(folder: Path, ladder: list[Bundle], chosen: list[Bundle]) -> None:
    """Refuse to replace a bundle by a part of it: its other cases would be lost."""
    from refimpl.golden import read

    whole = {one.name: {case.name for case in one.cases} for one in ladder}
    for one in chosen:
        there = read.case_names(folder / one.name)
        lost = there & whole[one.name] - {case.name for case in one.cases}
        require(
            not lost,
            f"{folder / one.name} holds {len(lost)} other cases, which would be lost: give "
            f"another folder, or write the whole bundle with --cases '{one.name}'",
        )


def run_list(args: Any) -> int:
    """Print the cases, in the order of the ladder."""
    from refimpl.golden import bundle, cases, editions, select

    ladder = cases.ladder(watch=_watch())
    for one in select.chosen(editions.until(ladder, args.edition), args.cases):
        say(f"rung {bundle.RUNGS.index(one.rung) + 1}, {one.rung}: {one.name}: {one.text}")
        for case in one.cases:
            say(f"    {one.name}/{case.name}: {case.operation}: {case.text}")
    return 0


def run_describe(args: Any) -> int:
    """Print what is declared of an operation."""
    from refimpl.golden import operations

    say(operations.describe(args.operation))
    return 0


def run_template(args: Any) -> int:
    """Write the template of a backend; refuse to replace a file."""
    from refimpl import golden

    name = TEMPLATES[args.language]
    file = args.folder / name
    require(not file.exists(), f"{file} is there already: give another folder, or move it away")
    content = Path(golden.__file__).with_name("adapters").joinpath(name).read_bytes()
    try:
        args.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(error, f"cannot write {file}") from error
    write_whole(file, content)
    say(f"wrote {file}; its first lines say how to run it")
    return 0


def run_editions(args: Any) -> int:
    """Print how large each edition is, and the cases that it brought, with the reason."""
    from refimpl.golden import cases, editions

    ladder = list(cases.ladder(watch=_watch()))
    for number, edition in enumerate(editions.all_editions(), 1):
        whole = list(editions.until(ladder, number))
        size = f"{len(whole)} bundles, {sum(len(one.cases) for one in whole)} cases"
        say(f"edition {number}: {size}: {edition['text']}")
        if number > 1:
            for name, why in editions.changes(number, ladder):
                say(f"    {name}: {why}")
    return 0


def run_pack(args: Any) -> int:
    """Write the archive of an edition."""
    from refimpl.golden import cases, editions, pack

    check_file("golden pack", args.file, ".zip")
    whole = list(editions.until(cases.ladder(watch=_watch()), args.edition))
    content = pack.packed(whole, args.edition or editions.last())
    write_whole(Path(args.file), content)
    say(f"{args.file}: {len(whole)} bundles, {len(content):,} bytes")
    return 0


def loosening(text: str) -> tuple[str, int]:
    """Return (GLOB, K) of a text ``GLOB=K``."""
    glob, _, number = text.rpartition("=")
    if not glob:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is not of the form GLOB=K")
    return glob, ulps(number)


def run_check(args: Any) -> int:
    """Print a line for each array and the first broken rung; exit code 1 unless all is right.

    Reports are written in both cases, and not where a mistake ends the check.
    """
    from refimpl.golden import cases, check, editions, expected, read, report, select

    for form, file in args.report:
        require(form in report.FORMS, f"--report {form}: give json or junit, and a file")
        check_file("--report", file)
    found = "is not a folder" if args.folder.exists() else "is not there"
    require(args.folder.is_dir(), f"{args.folder} {found}: give one that holds BUNDLE/arrays.npz")
    read.check_around(args.folder)
    own = args.against is None
    whole = cases.ladder(watch=_watch(args.quiet)) if own else check.loaded(args.against)
    against = list(editions.until(whole, args.edition))
    listed = expected.load(Path(args.expect_fail), against) if args.expect_fail else []
    told = report.Report()
    left_out = told.skipped if args.only_answered else None
    lines = check.folders(args.folder, select.loosened(against, args.ulp), args.cases, left_out)
    lines = expected.marked(lines, listed)
    for line in check.until_bad(lines) if args.first else lines:
        told.lines.append(line)
        if line.bad or not args.quiet:
            say(str(line))
    require(bool(told.lines), f"{args.folder} answers no case that is asked: nothing to compare")
    for form, file in args.report:
        write_whole(Path(file), report.FORMS[form](told).encode("utf-8"))
    say(told.summary())
    return 0 if told.right else 1
