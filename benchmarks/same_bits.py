#!/usr/bin/env python3
"""Do two commits train to the same bits and send the same messages?

    benchmarks/same_bits.py OLD NEW             two commits; NEW may be . (the work tree as it is)
    benchmarks/same_bits.py OLD . --keep FILE   results of commits are kept, and not made twice
    benchmarks/same_bits.py OLD . --only clip   only trainings with "clip" in their line
    benchmarks/same_bits.py OLD . --time 9      the time of a step instead: 9 pairs of runs each

Every training of `trainings` runs once per commit, on data that this script makes: a few images,
and a corpus of beeps whose flat alignment is re-aligned.  What must be equal are the parameters'
SHA-256, the loss, the error rates, steps, frames, and the messages and bytes per class of link.

One difference is accepted, and shown: that of a tree that counts the messages of the clip norm
against one that does not.  Per step every partition group of p ranks all-gathers 8 bytes per rank,
p (p - 1) messages; with --reduction exact twice, 8 and then 16 bytes per rank.

The exit status is 0 if all trainings are equal.  Trainings start as ``mpiexec -n RANKS``, the
mpiexec that lies beside this Python; none runs longer than --limit seconds, and ^C or SIGTERM
ends the one that runs.  Times are noise where something else runs; ratios of pairs are less so.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import wave
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np

CHECKOUT = Path(__file__).resolve().parents[1]
EQUAL = ("parameters_sha256", "loss", "frame_error_rate", "word_error_rate", "steps", "frames")
LINKS = ("intra", "inter")

# What the lines below leave out: a net of 144-24-24-10 on 240 images, or of 440-24-24-24-15.
IMAGES = "mlp --set hidden=24 --batch 4 --epochs 2"
SPEECH = "acoustic_mlp --set hidden=24 --batch 8 --epochs 3"

# ranks, then options of `refimpl train`; each with float and with exact reduction.
ROWS = """
1 --strategy serial
4 --strategy ddp
4 --strategy zero1
4 --strategy zero2
4 --strategy zero3
4 --strategy mics --partition 2
4 --strategy gtc --tau 0.5
4 --strategy onebit
4 --strategy bmuf --block-steps 5
4 --strategy gtc-bmuf --gtc-group 2 --tau 0.2 --block-steps 5
4 --strategy mics-gtc --partition 2 --tau 0.2
4 --strategy mics-bmuf --partition 2 --block-steps 5
8 --strategy mics-gtc-bmuf --partition 2 --gtc-group 2 --tau 0.2 --block-steps 3
4 --strategy ddp --clip 0.5
4 --strategy zero3 --clip 0.5
4 --strategy mics --partition 2 --clip 0.5 --microsteps 2
8 --strategy mics-gtc-bmuf --partition 2 --gtc-group 2 --tau 0.2 --block-steps 3 --clip 0.5
4 --strategy mics --partition 2 --microsteps 2
4 --strategy mics --partition 2 --microsteps 2 --sync every-microstep
4 --strategy mics --partition 2 --schedule newbob --lr 0.4 --epochs 5
"""

# With float reduction alone.
MORE = """
2 --strategy zero1 --clip 0.5 --optimizer adam --lr 0.01
3 --strategy zero3 --optimizer adamw --lr 0.01
1 --strategy serial --microsteps 4 --clip 0.5
4 --strategy mics-bmuf --partition 2 --clip 0.5 --block-steps 5
2 --strategy ddp --microsteps 2 --optimizer nesterov --lr 0.1
2 --strategy ddp --microsteps 2 --sync every-microstep
2 --strategy zero2 --microsteps 2 --sync every-microstep
4 --strategy mics --partition 2 --zero-stage 1 --microsteps 2
4 --strategy mics --partition 2 --zero-stage 2 --microsteps 2
4 --strategy zero3 --prefetch
4 --strategy mics --partition 2 --prefetch --microsteps 2
8 --strategy mics-gtc-bmuf --partition 2 --gtc-group 2 --tau 0.2 --block-steps 3 --prefetch
2 --strategy ddp --schedule newbob --lr 0.4 --epochs 5
4 --strategy gtc --tau 0.5 --schedule newbob --lr 0.4 --epochs 5
4 --strategy onebit --gtc-warmup 4 --schedule newbob --lr 0.4 --epochs 5
4 --strategy bmuf --block-steps 5 --schedule newbob --lr 0.4 --epochs 5
8 --strategy mics-gtc-bmuf --partition 2 --gtc-group 2 --tau 0.5 --schedule newbob --epochs 5
4 --strategy bmuf --block-steps 5 --block-method cbm --local-momentum keep
4 --strategy bmuf --block-steps 4 --block-momentum 0.3 --block-lr 0.8 --optimizer adam --lr 0.01
4 --strategy gtc-bmuf --gtc-group 2 --tau 0.2 --block-steps 5 --residuals fold
4 --strategy gtc-bmuf --gtc-group 2 --tau 0.2 --block-steps 5 --residuals zero
4 --strategy gtc --tau 0.005 --tau-units mean --microsteps 2 --wire-format rice
4 --strategy gtc --tau 0.2 --gtc-warmup 5 --wire-format two-bit
4 --strategy gtc --tau 0.2 --target-density 0.05 --residual-clip 1.5 --residual-clip-every 3
4 --strategy mics-gtc --partition 2 --tau 0.2 --target-density 0.05 --wire-format index
4 --strategy mics-gtc --partition 2 --tau 0.2 --gtc-warmup 5 --clip 0.5
2 --strategy gtc --tau 0.2 --dtype float64
2 --strategy onebit --dtype float64
4 --strategy ddp --collectives tree --ranks-per-node 2
4 --strategy ddp --collectives halving-doubling --ranks-per-node 2
4 --strategy ddp --collectives hierarchical --ranks-per-node 2
4 --strategy mics --partition 2 --collectives auto --ranks-per-node 2
4 --strategy zero3 --collectives hierarchical --ranks-per-node 2
4 --strategy gtc-bmuf --gtc-group 2 --tau 0.2 --block-steps 5 --ranks-per-node 2
"""

# On the beeps, which have no alignment: targets move after the first and the second epoch.
BEEPS = """
2 --strategy ddp
2 --strategy zero3 --reduction exact
4 --strategy mics-gtc --partition 2 --tau 0.5
2 --strategy bmuf --block-steps 10 --schedule newbob --lr 0.2 --epochs 4
"""

# For --time: close to the main job, 440-512-512-512-10 with 128 frames per rank.
TIMED = """
2 mlp --set hidden=512 --set depth=3 --batch 128 --epochs 3 --lr 0.01 --strategy ddp
2 mlp --set hidden=512 --set depth=3 --batch 128 --epochs 3 --lr 0.01 --strategy zero3
2 mlp --set hidden=512 --set depth=3 --batch 128 --epochs 3 --lr 0.01 --strategy gtc
"""


def lines(text: str) -> list[str]:
    """Return the lines that are not empty."""
    return [line for line in text.splitlines() if line]


def trainings() -> list[str]:
    """Return all trainings, each a line: ranks, model, options."""
    rows = lines(ROWS)
    rows = [f"{row} --reduction {kind}" for row in rows for kind in ("float", "exact")]
    # Of an option that is given twice the later one holds.
    images = [row.replace(" ", f" {IMAGES} ", 1) for row in rows + lines(MORE)]
    return images + [row.replace(" ", f" {SPEECH} ", 1) for row in lines(BEEPS)]


# ------------------------------------------------------------------------------------- data


def write_images(folder: Path, count: int, sides: tuple[int, int]) -> None:
    """Write MNIST's four files: noise, with a bright row or column that tells the digit."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    for name, number in (("train", count), ("t10k", count // 5)):
        digits = rng.integers(0, 10, number, dtype=np.uint8)
        pixels = rng.integers(0, 100, (number, *sides), dtype=np.uint8)
        pixels[np.arange(number), digits] += 120
        for kind, array in (("images-idx3", pixels), ("labels-idx1", digits)):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (folder / f"{name}-{kind}-ubyte").write_bytes(head + array.tobytes())


def write_beeps(folder: Path) -> None:
    """Write a corpus in which every phone is a tone, as Kaldi data directories without ctm."""
    rng, rate = np.random.default_rng(2), 8000
    tones = {"sil": 0, "ah": 500, "iy": 1000, "n": 1800, "s": 2800}
    words = {"knee": ("n", "iy"), "saw": ("s", "ah"), "on": ("ah", "n")}
    for split, count in {"train": 24, "dev": 8, "test": 8}.items():
        (folder / split).mkdir(parents=True)
        table: dict[str, list[str]] = {"wav.scp": [], "text": [], "utt2spk": []}
        for u in range(count):
            said = [sorted(words)[w] for w in rng.integers(3, size=rng.integers(1, 4))]
            sound = []
            for phone in ("sil", *(phone for word in said for phone in words[word]), "sil"):
                t = np.arange(rng.integers(400, 1600)) / rate
                sound.append(
                    3000 * np.sin(2 * np.pi * tones[phone] * t) + rng.normal(0, 30, t.size)
                )
            with wave.open(str(folder / split / f"u{u:02d}.wav"), "wb") as file:
                file.setparams((1, 2, rate, 0, "NONE", ""))
                file.writeframes(np.concatenate(sound).astype("<i2").tobytes())
            entries = (f"u{u:02d}.wav", " ".join(said), f"speaker{u % 2}")
            for name, entry in zip(table, entries, strict=True):
                table[name].append(f"u{u:02d} {entry}\n")
        for name, rows in table.items():
            (folder / split / name).write_text("".join(rows))
    lexicon = "".join(f"{word} {' '.join(phones)}\n" for word, phones in words.items())
    (folder / "lexicon.txt").write_text(lexicon)


# ------------------------------------------------------------------------------------- running


class Tree:
    """The files of a commit in a folder of their own; of the work tree, the work tree."""

    def __init__(self, commit: str, scratch: Path) -> None:
        self.commit = None
        self.folder = CHECKOUT
        if commit != ".":
            self.commit = git("rev-parse", "--verify", f"{commit}^{{commit}}").decode().strip()
            self.folder = scratch / self.commit
            with tarfile.open(fileobj=io.BytesIO(git("archive", self.commit))) as files:
                # Python 3.12 warns, and older ones may not know it, that nothing filters.
                safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
                files.extractall(self.folder, **safe)  # type: ignore[arg-type]

    def train(self, line: str, scratch: Path, limit: float) -> dict[str, Any]:
        """Run a training; return its summary, or {"failed": why}."""
        ranks, model, *options = line.split()
        data = scratch / ("beeps" if model == "acoustic_mlp" else "images")
        out = Path(tempfile.mkdtemp(dir=scratch)) / "run"
        command = [sys.executable, "-m", "mpi4py", "-m", "refimpl", "train"]
        # The model by its path: by name it could be that of an installed refimpl.
        command += [str(self.folder / "models" / f"{model}.py"), *options]
        command += ["--data", str(data), "--out", str(out)]
        if ranks != "1":
            command = [launcher(), "-n", ranks, *command]
        ours = {
            "PYTHONPATH": str(self.folder),
            "XDG_CACHE_HOME": str(out.parent),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": "slot:oversubscribe",
        }
        try:
            said, code = bounded(command, self.folder, os.environ | ours, limit)
            if code:
                return {"failed": f"exit {code}: {' '.join(said.split())[-300:]}"}
            return json.loads((out / "summary.json").read_text())
        finally:
            shutil.rmtree(out.parent)


def git(*words: str) -> bytes:
    """Return what git says about this checkout."""
    run = subprocess.run(["git", "-C", CHECKOUT, *words], capture_output=True)
    if run.returncode:
        sys.exit(f"git {' '.join(words)}: {run.stderr.decode().strip()}")
    return run.stdout


def launcher() -> str:
    """Return the mpiexec beside this Python, else the first on the path."""
    beside = str(Path(sys.executable).parent) + os.pathsep + os.environ.get("PATH", "")
    found = shutil.which("mpiexec", path=beside)
    return found or sys.exit("no mpiexec beside this Python or on PATH")


def bounded(command: list[str], where: Path, environment: dict, limit: float) -> tuple[str, int]:
    """Return the output and exit status of a command; it does not outlive this function."""
    with tempfile.TemporaryFile("w+") as output:
        run = subprocess.Popen(
            command,
            cwd=where,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = run.wait(limit)
        except subprocess.TimeoutExpired:
            return f"not done in {limit:.0f} s", 124
        finally:
            if run.poll() is None:
                run.terminate()  # the launcher ends its ranks
                try:
                    run.wait(5)
                except subprocess.TimeoutExpired:
                    os.killpg(run.pid, signal.SIGKILL)
                    run.wait()
        output.seek(0)
        return output.read(), code


class Kept:
    """Results of commits in a file, valid for this machine's kind of arithmetic."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.where = f"{platform.machine()}, Python {platform.python_version()}, "
        self.where += f"NumPy {np.__version__}"

    def train(self, tree: Tree, line: str, scratch: Path, limit: float) -> dict[str, Any]:
        """Return the kept summary of a training, or run it and keep that."""
        if tree.commit is None or self.path is None:
            return tree.train(line, scratch, limit)
        key = f"{tree.commit} on {self.where}"
        summary = self._read().get(key, {}).get(line)
        if summary is None:
            summary = tree.train(line, scratch, limit)
            if "failed" not in summary:
                results = self._read()  # again: who else runs now may have written, too
                results.setdefault(key, {})[line] = summary
                whole = self.path.with_name(f"{self.path.name}.{os.getpid()}")
                whole.write_text(json.dumps(results, indent=1))
                whole.replace(self.path)
        return summary

    def _read(self) -> dict[str, dict[str, Any]]:
        if self.path is None or not self.path.exists():
            return {}
        return json.loads(self.path.read_text())


# ------------------------------------------------------------------------------------- comparing


def norm_messages(line: str, summary: dict[str, Any]) -> tuple[int, int]:
    """Return the messages and bytes of the clip norm in a run of all ranks on one node."""
    if "--clip" not in line:
        return 0, 0
    p = summary["partition"]
    rounds = (8, 16) if "exact" in line else (8,)
    messages = summary["steps"] * summary["world_size"] // p * p * (p - 1)
    return messages * len(rounds), messages * sum(rounds)


def differences(line: str, old: dict[str, Any], new: dict[str, Any]) -> tuple[list[str], str]:
    """Return what differs and may not, and what differs and may, in words."""
    for which, summary in (("old", old), ("new", new)):
        if "failed" in summary:
            return [f"{which} {summary['failed']}"], ""
    wrong = [
        f"{name}: {old.get(name)} became {new.get(name)}"
        for name in EQUAL
        if old.get(name) != new.get(name)
    ]
    more = {
        link: tuple(
            new["ledger"][link][of] - old["ledger"][link][of] for of in ("messages", "bytes")
        )
        for link in LINKS
    }
    norm, note = norm_messages(line, new), ""
    if more["intra"] == norm != (0, 0):
        note, more["intra"] = "and the norm's {:,} messages, {:,} bytes".format(*norm), (0, 0)
    for link, (messages, size) in more.items():
        if messages or size:
            wrong.append(f"{link}: {messages:+,} messages, {size:+,} bytes")
    return wrong, note


def compare(trees: list[Tree], kept: Kept, chosen: list[str], scratch: Path, limit: float) -> int:
    """Print a line per training; return how many are not equal."""
    write_images(scratch / "images", 240, (12, 12))
    write_beeps(scratch / "beeps")
    unequal = 0
    for line in chosen:
        start = time.perf_counter()
        old, new = (kept.train(tree, line, scratch, limit) for tree in trees)
        wrong, note = differences(line, old, new)
        unequal += bool(wrong)
        digest = new.get("parameters_sha256", "")[:8]
        seconds = time.perf_counter() - start
        short = line.replace(IMAGES, "..").replace(SPEECH, "speech")
        mark = "DIFFERS" if wrong else "equal"
        print(f"{mark:7}  {digest:8}  {seconds:5.1f} s  {short} {note}")
        for text in wrong:
            print(f"         {text}")
        sys.stdout.flush()
    print(f"{len(chosen) - unequal} of {len(chosen)} trainings are equal")
    return unequal


def compare_times(trees: list[Tree], pairs: int, scratch: Path, limit: float) -> int:
    """Print the time of a step of both trees, old and new in turn; return runs that failed."""
    write_images(scratch / "images", 12_000, (20, 22))
    failed = 0
    for line in lines(TIMED):
        times: list[list[float]] = []
        for pair in range(pairs):
            took = {}
            for tree in trees if pair % 2 == 0 else reversed(trees):
                summary = tree.train(line, scratch, limit)
                if "failed" in summary:
                    print(f"{tree.folder}: {summary['failed']}")
                    failed += 1
                else:
                    took[tree] = 1e3 * summary["seconds"] / summary["steps"]
            if len(took) == 2:
                times.append([took[tree] for tree in trees])
        if not times:
            continue
        old, new = zip(*times, strict=True)
        ratios = [b / a for a, b in times]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        print(
            f"new / old {median(ratios):.3f} (quartiles {low:.3f}, {high:.3f}; of the best times "
            f"{min(new) / min(old):.3f}), {median(old):.1f} and {median(new):.1f} ms a step, "
            f"{len(ratios)} pairs  {line}",
            flush=True,
        )
    return failed


def main() -> int:
    """Print what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", metavar="OLD", help="a commit")
    parser.add_argument("new", metavar="NEW", help="a commit, or . for the work tree")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="of results of commits")
    parser.add_argument("--only", default="", metavar="TEXT", help="trainings with this in them")
    parser.add_argument("--time", type=int, default=0, metavar="PAIRS", help="time steps instead")
    parser.add_argument("--limit", type=float, default=90, help="seconds for one run (90)")
    given = parser.parse_args()
    chosen = [line for line in trainings() if given.only in line]
    if not chosen:
        parser.error(f"no training with {given.only!r} in it")
    with tempfile.TemporaryDirectory(prefix="same-bits-") as name:
        scratch = Path(name)
        trees = [Tree(commit, scratch) for commit in (given.old, given.new)]
        if given.time:
            return int(compare_times(trees, given.time, scratch, given.limit) > 0)
        return int(compare(trees, Kept(given.keep), chosen, scratch, given.limit) > 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
