"""Where it runs: surroundings, run_mpi.sh; what is full or closed."""

from __future__ import annotations

import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.mistakes.case import (
    CHECKOUT,
    IMAGES,
    NET,
    REFIMPL,
    RUN_MPI,
    SIMULATE,
    SPEECH,
    Case,
    Edit,
    directory,
    fifo,
    net,
    put,
)
from benchmarks.same_bits import launcher


# fmt: off
def places() -> Iterator[Case]:
    """Surroundings, run_mpi.sh."""
    def case(name: str, words: str, said: str | None, edit: Edit | None = None, **how) -> Case:
        return Case("places", name, words, said, edit, shell=True, **how)

    train = f"{RUN_MPI} -n 2 {IMAGES}"
    for name in ("random", "copy", "platform", "numbers", "json", "numpy", "mpi4py", "refimpl"):
        edit = put(f"{name}.py", "raise SystemExit('my own scratch script ran')\n")
        yield case(f"a user's {name}.py", train + " >/dev/null", None, edit)
    for value in ("''", "0", "-1", "two", "1.5", "1e9x", "''2"):
        if value != "''2":
            yield case(f"-n {value}", f"{RUN_MPI} -n {value} {IMAGES}", "is not a number of ranks")
    yield case("-n alone", f"{RUN_MPI} -n", "-n needs a value")
    restarts = f"{RUN_MPI} -n 2 --restarts '' {IMAGES}"
    yield case("--restarts ''", restarts, "--restarts or --min-ranks ''")
    yield case("an unknown option", f"{RUN_MPI} --ranks 2 train mlp", "unknown option --ranks")
    hosts = f"{RUN_MPI} -n 2 --hostfile hosts {IMAGES}"
    yield case("no host file", hosts, "host file hosts")
    yield case("an empty host file", hosts, "hosts names no machine", put("hosts", ""))
    yield case("comments only", hosts, "hosts names no machine", put("hosts", "# a\n\n"))
    yield case("junk as host file", hosts, "hosts ", put("hosts", "\0\1\2 !!\n"))
    yield case("an unknown host", hosts, "not known here: no", put("hosts", "no.such.invalid\n"))
    yield case("a folder as host file", hosts, "host file hosts", directory("hosts"))
    yield case("a pipe as host file", hosts, "host file hosts", fifo("hosts"))
    for name, variable, said in (
        ("MPIEXEC=false", "MPIEXEC=false", "MPIEXEC: 'false"),
        ("MPIEXEC is nothing", "MPIEXEC=/no/such", "MPIEXEC: no command /no/such"),
        ("REFIMPL_MPI=lam", "REFIMPL_MPI=lam", "unknown REFIMPL_MPI=lam"),
        ("PYTHON=false", "PYTHON=false REFIMPL_MPI=mpich REFIMPL_VENV=new", "PYTHON=false"),
        ("PYTHON is nothing", "PYTHON=/no/such REFIMPL_MPI=mpich REFIMPL_VENV=new", "PYTHON=/no/"),
        ("REFIMPL_VENV under a file", "REFIMPL_MPI=mpich REFIMPL_VENV=/dev/null/x", "/dev/null/x"),
        ("REFIMPL_VENV in /proc", "REFIMPL_MPI=mpich REFIMPL_VENV=/proc/x", "/proc/x"),
    ):
        yield case(name, f"{variable} {train}", said, lines=1)
    quiet = train + " >/dev/null"
    for name, variable in (
        ("another's MPI4PY_MPIABI", "MPI4PY_MPIABI=openmpi"),
        ("another's MPI4PY_LIBMPI", "MPI4PY_LIBMPI=/no/such.so"), ("no HOME", "env -u HOME"),
        ("a HOME that is not there", "HOME=/no/such"), ("LANG=C", "LC_ALL=C LANG=C PYTHONUTF8=0"),
        ("stdin closed", "exec 0<&-;"), ("a strange PYTHONPATH", "PYTHONPATH=:/no/such:"),
        ("PYTHONOPTIMIZE", "PYTHONOPTIMIZE=2"), ("PYTHONWARNINGS", "PYTHONWARNINGS=error"),
    ):
        if "MPI4PY" in variable and not (Path(sys.prefix) / ".refimpl-ready").exists():
            continue
        yield case(name, f"{variable} {quiet}", None)
    ranked = Case("places", "REFIMPL_RANKS as text", IMAGES, "REFIMPL_RANKS")
    ranked.environment = {"REFIMPL_RANKS": "two"}
    yield ranked
    ranked = Case("places", "REFIMPL_RANKS of others", IMAGES, "3 ranks were asked for", ranks=2)
    ranked.environment = {"REFIMPL_RANKS": "3"}
    yield ranked
    crlf = "git clone -q -c core.autocrlf=true {0} clone && clone/run_mpi.sh -h >/dev/null"
    yield case("a checkout with CRLF", crlf.format(shlex.quote(str(CHECKOUT))), None)
    # A user without an entry in passwd, no home, in a folder that is not theirs.
    nobody = f"unshare -U --map-user=54321 env -u HOME {shlex.quote(sys.executable)} -m refimpl"
    if os.geteuid() == 0 and not subprocess.run(["unshare", "-U", "true"]).returncode:
        there = "mkdir locked; chmod 555 locked; "
        mine = f"{there}{nobody} train mlp --steps 1 --out locked/out"
        yield case("nobody's folder", mine, "locked/out: .*Permission denied", root=True)
        mine = f"{there}XDG_CACHE_HOME=$PWD/locked {nobody} train acoustic_mlp --steps 1 --out out"
        yield case("nobody's cache", mine, "locked/.*Permission denied", root=True)
        mine = f"{nobody} train mlp --data images --set hidden=4 --batch 4 --steps 1 >/dev/null"
        yield case("no passwd entry, no HOME", mine, None, root=True)
    cache = {"XDG_CACHE_HOME": "/dev/null"}
    words = "train acoustic_mlp --steps 1 --out out"
    yield Case("places", "no place for a cache", words, "/dev/null", environment=cache)


def full() -> Iterator[Case]:
    """Full and closed things."""
    def case(name: str, words: str, said: str | None, **how) -> Case:
        return Case("full", name, words, said, **how)

    big = IMAGES.replace("hidden=4", "hidden=64")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({}, 1 << 40))"
    for size in (0, 100, 400, 700, 1500, 3000):
        edit = net(top=limited.format(size))
        for ranks in (1, 2) if size in (100, 3000) else (1,):
            name = f"file size {size}, {ranks} ranks: train"
            yield case(
                name,
                NET,
                "out.*File too large: raise the limit",
                edit=edit,
                ranks=ranks,
                begun=True,
            )
    words = "compare net.py --data images --batch 4 --steps 2 --strategies serial --json x.json"
    edit = net(top=limited.format(50))
    yield case("file size: compare --json", words, "x.json: File too large", edit=edit)
    words = NET.replace("--steps 2", "--epochs 1 --log-every 1")
    yield case(
        "file size: steps.jsonl",
        words,
        "steps.jsonl.*File too large",
        edit=net(top=limited.format(1500)),
        begun=True,
    )
    small = {resource.RLIMIT_FSIZE: 1000}
    for words in (
        big,
        "data synth new", "compare mlp",
        "bench step", "evaluate imagerun --data images",
        "decode speechrun x.wav",
    ):
        yield case(
            f"file size: {words}", words, "limit on the size of files is 1,000", limits=small
        )
    yield case(
        "file size, 2 ranks", big, "limit on the size of files is 1,000", limits=small, ranks=2
    )
    yield case(
        "file size: golden write", "golden write new --cases 'layers/*'",
        "new.*File too large",
        limits=small,
    )
    for number in (3, 4, 5, 6, 8, 12):
        words = "golden check golden --against golden"
        yield case(
            f"open files {number}: golden",
            words,
            "",
            limits={resource.RLIMIT_NOFILE: number},
            codes=(0, 2),
        )
        yield case(
            f"open files {number}: train",
            SPEECH,
            "limit on open files is|Too many open files",
            limits={resource.RLIMIT_NOFILE: number},
        )
    for size in (1 << 27, 1 << 28, 1 << 29):
        yield case(
            f"memory {size >> 20} MB",
            "train mlp --set hidden=6000 --set depth=3 --batch 64 --steps 1 --out out",
            "parameters|memory",
            limits={resource.RLIMIT_AS: size},
        )
    yield case(
        "threads", f"{SIMULATE} -n 512", "cannot start a thread for each of 512 ranks",
        limits={resource.RLIMIT_AS: 1 << 31},
    )
    refimpl = shlex.join(REFIMPL)
    for name, words, code, said in (
        (
            "stdout closed: topology", f"{refimpl} topology -n 4 >&-",
            2,
            "standard output is closed",
        ),
        ("stdout closed: train", f"{refimpl} {IMAGES} >&-", 2, "standard output is closed"),
        ("stdout full: topology", f"{refimpl} topology -n 4 >/dev/full", 2, "No space left"),
        ("stdout full: train", f"{refimpl} {IMAGES} >/dev/full", 2, "No space left"),
        ("stdout full: explain", f"{refimpl} explain ring -p 3 >/dev/full", 2, "No space left"),
        ("stdout full: --help", f"{refimpl} --help >/dev/full", 2, "No space left"),
        ("stdout full: train --help", f"{refimpl} train --help >/dev/full", 2, "No space left"),
        ("stdout full: --version", f"{refimpl} --version >/dev/full", 2, "No space left"),
        ("stdout full: golden list", f"{refimpl} golden list >/dev/full", 2, "No space left"),
        (
            "stdout full: golden check",
            f"{refimpl} golden check golden --against golden >/dev/full",
            2,
            "No space left",
        ),
        (
            "stdout full: plan", f"{refimpl} plan -n 4 --parameters 1e9 --flops 1e14 >/dev/full",
            2,
            "No space left|--",
        ),
        (
            "stdout full: evaluate", f"{refimpl} evaluate imagerun --data images >/dev/full",
            2,
            "No space left",
        ),
        ("stdout full: run_mpi.sh -h", f"{RUN_MPI} -h >/dev/full", 2, "."),
        ("stderr closed", f"{refimpl} topology -n 4 2>&- >/dev/null", 0, None),
        ("stderr closed, a mistake", f"{refimpl} topology -n 0 2>&-", 2, None),
        ("stderr full, a mistake", f"{refimpl} topology -n 0 2>/dev/full", 1, None),
        ("both closed", f"{refimpl} topology -n 0 >&- 2>&-", 2, None),
        ("all closed", f"{refimpl} {IMAGES} <&- >&- 2>&-", 2, None),
        (
            "a reader who leaves", f"{refimpl} topology -n 2000 | true; exit ${{PIPESTATUS[0]}}",
            141,
            None,
        ),
        ("one who leaves a run", f"{refimpl} {IMAGES} | true; exit ${{PIPESTATUS[0]}}", 141, None),
        (
            "one who reads a line",
            f"{refimpl} golden list | head -n 1 >/dev/null; exit ${{PIPESTATUS[0]}}",
            141,
            None,
        ),
    ):
        yield case(name, words, said, shell=True, codes=(code,), begun=True)
    mpi = f"{shlex.quote(launcher())} -n 2 {refimpl}"
    yield case(
        "stdout full, 2 ranks", f"{mpi} {IMAGES} >/dev/full",
        "",
        shell=True,
        codes=tuple(range(1, 256)),
        begun=True,
        lines=-1,
    )
    yield case(
        "stdout closed, 2 ranks", f"{mpi} {IMAGES} >&-",
        "",
        shell=True,
        codes=tuple(range(256)),
        begun=True,
        lines=-1,
    )
    long = "n" * 300
    for words in (
        f"train mlp --out {long}", f"train {long}.py",
        f"train mlp --data {long}", f"train {long}",
        f"evaluate {long} --data .", f"evaluate imagerun --data {long}",
        f"decode {long} x.wav", f"compare mlp --json {long}",
        f"golden check {long}", f"golden write {long} --cases layers",
        f"golden check golden --against {long}", f"report {long}",
        f"data synth {long}", f"decode speechrun {long}",
        f"bench step --json {long}", f"report imagerun --out {long}.png",
        f"train acoustic_mlp --data {long}", f"plan --preset {long}",
    ):
        yield case(f"long: {words}".replace(long, "nnn"), words, "nnn|matplotlib")
    for words, said in (
        ("train mlp --out /dev/null", "/dev/null"),
        ("train mlp --out images", "images is not empty"),
        ("train mlp --out imagerun", "imagerun is not empty"),
        ("train mlp --out /dev/null/x", "/dev/null/x"),
        ("train mlp --out /proc/x --steps 1 --set hidden=4", "/proc/x"),
        ("train mlp --out ''", "--out: the name is empty"),
        ("train mlp --data '' --out out", "--data: the name is empty"),
        ("train '' --out out", "MODEL: the name is empty"),
        ("evaluate '' --data images", "RUN: the name is empty"),
        ("data synth ''", "DIR: the name is empty"),
        ("bench step --json ''", "--json: the name is empty"), ("data synth images", "images"),
        ("data synth /dev/null/x", "/dev/null/x"), ("data synth /proc/x", "/proc/x"),
        ("golden write /dev/null", "/dev/null is not a folder"),
        ("golden write /proc/x --cases 'layers/*'", "/proc/x"),
        ("compare mlp --json nowhere/x.json", "no folder nowhere"),
        ("compare mlp --json images", "images is a folder"),
        ("compare mlp --plot x.pdf", "ends in .png"),
        ("bench step --json nowhere/x", "no folder nowhere"),
        ("report imagerun --out x.pdf", "ends in .png"),
        ("report imagerun --out nowhere/x.png", "no folder nowhere"),
    ):
        yield case(words, words, said)
    # A file system of so many KB at `disk`, in a mount of this case's own.
    mounted = "mkdir disk; mount -t tmpfs -o size={}k none disk && {}; code=$?; "
    mounted += "find disk -name '*.partial' | grep -q . && echo leftovers >&2; exit $code"
    for size, words, said in (
        (4, f"{big} --out disk/run", "disk/run"), (8, f"{big} --out disk/run", "disk/run"),
        (12, f"{big} --out disk/run", "disk/run"), (16, f"{big} --out disk/run", "disk/run"),
        (24, f"{big} --out disk/run", "disk/run"), (40, f"{big} --out disk/run", "disk/run"),
        (64, "data synth disk/new", "disk/new"),
        (12, "golden write disk/new --cases 'layers/*'", "disk/new"),
    ):
        script = mounted.format(size, f"{refimpl} {words} >/dev/null")
        command = f"unshare -m bash -c {shlex.quote(script)}"
        yield case(
            f"a disk of {size} KB: {words.split()[0]}",
            command,
            f"{said}.*No space left",
            shell=True,
            root=True,
            begun=True,
        )
    script = f"mount -t tmpfs -o size=64k none /dev/shm && {RUN_MPI} -n 2 {IMAGES} >/dev/null"
    script, bigger = script, script.replace("64k", "4m")
    yield case(
        "a /dev/shm of 64 KB", f"unshare -m bash -c {shlex.quote(script)}",
        "64 KB are free in /dev/shm",
        shell=True,
        root=True,
    )
    yield case(
        "a /dev/shm of 4 MB", f"unshare -m bash -c {shlex.quote(bigger)}",
        None,
        shell=True,
        root=True,
    )
    script = "mkdir disk; mount -t tmpfs -o size=100k none disk && XDG_CACHE_HOME=$PWD/disk "
    script += f"{refimpl} train acoustic_mlp --steps 1 --out out >/dev/null"
    yield case(
        "a full cache", f"unshare -m bash -c {shlex.quote(script)}",
        "disk.*No space left",
        shell=True,
        root=True,
    )
