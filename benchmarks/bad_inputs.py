#!/usr/bin/env python3
"""What users do by mistake: is each refused in one line, on all ranks, with nothing left behind?

    python benchmarks/bad_inputs.py                  all cases, some 20 minutes
    python benchmarks/bad_inputs.py --only wav       those with "wav" in their name
    python benchmarks/bad_inputs.py --kind files     those of a kind: the words of `KINDS`
    python benchmarks/bad_inputs.py --bad            print only what is not good

Every case runs one command in a folder of its own and says how it must end.  A refusal is good if
the exit code is 2, what is said on stderr is one line that begins with ``refimpl: error:`` (or
``run_mpi.sh:``) and holds what the case expects, and nothing half-written is left; what works
must end with exit code 0 and a silent stderr.  No case may take longer than --limit seconds (on
a machine with other work to do, give more).  The cases are in `benchmarks/mistakes/`.

One rank is a fork of this process, which has read refimpl but started no MPI; several are started
by the mpiexec beside this Python, and some cases call run_mpi.sh.  Cases that need a file system
that is full are tried where a small one can be mounted (as root on Linux).  The exit status is 1
if any outcome is not good.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(CHECKOUT))

from benchmarks.mistakes import files, models, numbers, places, ranks, speech  # noqa: E402
from benchmarks.mistakes.case import IMAGES, REFIMPL, SPEECH, Case, net  # noqa: E402
from benchmarks.same_bits import launcher, write_beeps, write_images  # noqa: E402
from refimpl import __main__, cli  # noqa: E402

# Kinds of mistakes: what yields their cases.
KINDS = {
    "wavs": speech.wavs,
    "texts": speech.texts,
    "words": speech.words,
    "places": places.places,
    "models": models.models,
    "numbers": numbers.numbers,
    "ranks": ranks.ranks,
    "full": places.full,
    "files": files.files,
    "lines": ranks.lines,
}


class Materials:
    """What commands name, made once: a corpus, images, a run of each, golden values."""

    NAMES = ("corpus", "images", "imagerun", "speechrun", "golden")

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder = folder
        folder.mkdir()
        write_beeps(folder / "corpus")
        write_images(folder / "images", 120, (12, 12))
        shutil.copytree(CHECKOUT / "tests" / "golden" / "layers", folder / "golden" / "layers")
        for words in (
            f"{IMAGES.replace('--out out', '--out imagerun')}",
            f"{SPEECH.replace('--out out', '--out speechrun')}",
        ):
            code, _, error = forked(shlex.split(words), folder, {}, {}, limit)
            if code != 0:
                sys.exit(f"{words}: exit code {code}: {error}")

    def lay(self, case: Case, folder: Path) -> None:
        """Put copies of what the case names into a folder, and edit them."""
        folder.mkdir()
        spoken = f"{case.words} {case.other or ''}"
        for name in self.NAMES:
            if re.search(rf"(?<![\w/]){name}\b", spoken):
                shutil.copytree(self.folder / name, folder / name)
        if "net.py" in spoken:
            net()(folder)
        if case.edit is not None:
            case.edit(folder)


def forked(words, cwd, limits, environment, limit):
    """Run refimpl in a fork of this process; return exit code, output, errors."""
    pipes = [os.pipe(), os.pipe()]
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setsid()
            os.chdir(cwd)
            os.environ.update(environment)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, (_, end) in enumerate(pipes, 1):
                os.dup2(end, number)
            os.closerange(3, 64)  # as a shell would have left them
            for what, most in limits.items():
                resource.setrlimit(what, (most, resource.getrlimit(what)[1]))
            sys.argv = ["refimpl", *words]
            code = __main__.main()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(code)
    for _, end in pipes:
        os.close(end)
    return finished(pid, [begin for begin, _ in pipes], limit)


def finished(pid: int, pipes: list[int], limit: float) -> tuple[int, str, str]:
    """Read a child's pipes to their ends; return exit code (HANGS: killed), output, errors."""
    said = dict.fromkeys(pipes, b"")
    until, code = time.monotonic() + limit, None
    with selectors.DefaultSelector() as selector:
        for pipe in pipes:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map() and code is None:
            left = until - time.monotonic()
            if left <= 0:
                code = HANGS
                end(pid)
            for key, _ in selector.select(max(left, 0)):
                more = os.read(key.fd, 1 << 16)
                said[key.fd] = (said[key.fd] + more)[: 1 << 22]
                if not more:
                    selector.unregister(key.fd)
    for pipe in pipes:
        os.close(pipe)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status) if code is None else code
    return code, *(text.decode(errors="replace") for text in said.values())


def end(pid: int) -> None:
    """End a session: its leader first, a launcher perhaps, which ends its ranks."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, sign) if sign == signal.SIGTERM else os.killpg(pid, sign)
        except ProcessLookupError:
            return
        time.sleep(1)


HANGS = -999


def spawned(command, cwd, limits, environment, limit):
    """Run a command in a session of its own; return exit code, output, errors."""

    def limited() -> None:
        for what, most in limits.items():
            resource.setrlimit(what, (most, resource.getrlimit(what)[1]))

    surroundings = {
        "PYTHONPATH": str(CHECKOUT),
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
        "PYTHON": sys.executable,
    }
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=os.environ | surroundings | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=limited,
    )
    assert process.stdout is not None and process.stderr is not None
    pipes = [os.dup(process.stdout.fileno()), os.dup(process.stderr.fileno())]
    process.stdout.close()
    process.stderr.close()
    found = finished(process.pid, pipes, limit)
    process.returncode = found[0]
    return found


def run(case: Case, materials: Materials, folder: Path, limit: float) -> tuple[int, str, str]:
    """Run a case; return exit code, output, errors."""
    materials.lay(case, folder)
    how = case.limits, case.environment, limit
    if case.shell:
        return spawned(["bash", "-c", case.words], folder, *how)
    words = shlex.split(case.words)
    if case.ranks == 1:
        return forked(words, folder, *how)
    command = [launcher(), "-n", str(case.ranks), *REFIMPL, *words]
    if case.other is not None:
        other = shlex.split(case.other)
        command = [launcher(), "-n", "1", *REFIMPL, *words, ":", "-n", "1", *REFIMPL, *other]
    if case.apart is not None:
        theirs = folder.with_name(folder.name + "-rank1")
        shutil.copytree(folder, theirs)
        case.apart(theirs)
        command = [launcher()]
        for where in (folder, theirs):
            command += ["-wdir", str(where), "-n", "1", *REFIMPL, *words, ":"]
        command.pop()
    return spawned(command, folder, *how)


def judged(case: Case, code: int, out: str, error: str, folder: Path) -> str:
    """Return what is not good about an outcome; empty if it is good."""
    said = [line for line in error.splitlines() if line.strip()]
    wrong = []
    if code == HANGS:
        wrong.append("hangs")
    elif code not in case.code:
        wrong.append(f"exit code {code}")
    if "Traceback" in error and case.lines != -1:
        wrong.append("traceback")
    if case.said is None:
        if said:
            wrong.append("stderr")
    elif case.lines == -2:  # may come from the system before we are there
        pass
    elif case.lines >= 0 and code != 0:
        if len(said) != case.lines:
            wrong.append(f"{len(said)} lines")
        if said and not said[-1].startswith(("refimpl: error: ", "run_mpi.sh: ")):
            wrong.append("not ours")
        if case.said and not re.search(case.said, error):
            wrong.append("other words")
        if max(map(len, said), default=0) > 1500:
            wrong.append("a long line")
    for path in folder.rglob("*.partial"):
        wrong.append(f"{path.name} is left")
    left = folder / "out"
    if case.said is not None and left.exists() and not case.begun and any(left.iterdir()):
        wrong.append("a run folder is left")
    if case.said is not None and (left / "summary.json").exists() and code != 0:
        wrong.append("a finished run is left")
    for path in left.rglob("*.json") if case.begun else ():
        try:
            json.loads(path.read_text())
        except ValueError:
            wrong.append(f"{path.name} is half-written")
    if case.name.endswith("said once: --version") and out.count("refimpl ") != 1:
        wrong.append("not said once")
    return ", ".join(wrong)


def mountable() -> bool:
    """Tell whether a small file system can be mounted here."""
    script = "d=$(mktemp -d); mount -t tmpfs -o size=4k none $d && umount $d; rmdir $d"
    try:
        return not subprocess.run(
            ["unshare", "-m", "bash", "-ec", script], capture_output=True
        ).returncode
    except OSError:
        return False


def main() -> int:
    """Run what was asked for; print a line per case; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--kind", choices=KINDS, help="cases of this kind")
    parser.add_argument("--bad", action="store_true", help="print only what is not good")
    parser.add_argument("--list", action="store_true", help="print the cases")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one case (60)")
    given = parser.parse_args()
    cases = [case for cases in KINDS.values() for case in cases()]
    cases = [case for case in cases if given.kind in (None, case.kind) and given.only in case.name]
    if given.list:
        for case in cases:
            print(f"{case.kind:8} {case.name}")
        return 0
    cli.parser()  # reads the commands, once for all
    can_mount, counts, since = (
        mountable(),
        dict.fromkeys(("good", "BAD", "skipped"), 0),
        time.time(),
    )
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as name:
        scratch = Path(name)
        materials = Materials(scratch / "materials", given.limit)
        for number, case in enumerate(cases):
            folder = scratch / f"case{number}"
            if case.root and not can_mount:
                counts["skipped"] += 1
                print(f"skipped  {case.kind:8} {case.name}")
                continue
            start = time.perf_counter()
            code, out, error = run(case, materials, folder, given.limit)
            wrong = judged(case, code, out, error, folder)
            mark = "BAD" if wrong else "good"
            counts[mark] += 1
            if wrong or not given.bad:
                seconds = time.perf_counter() - start
                print(f"{mark:8} {case.kind:8} {seconds:5.1f} s  {case.name[:90]}  {wrong}")
                for line in error.splitlines()[-4:] if wrong else error.splitlines()[:1]:
                    print(f"{'':10}{line[:300]}")
                sys.stdout.flush()
            for left in (folder, folder.with_name(folder.name + "-rank1")):
                shutil.rmtree(left, ignore_errors=True)
    told = ", ".join(f"{count} {mark}" for mark, count in counts.items())
    print(f"{len(cases)} cases: {told}, {time.time() - since:.0f} s")
    return int(counts["BAD"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
