#!/usr/bin/env python3
"""What users do by mistake: is each refused in one line, on all ranks, with nothing left behind?

    python benchmarks/bad_inputs.py                  all cases, some minutes
    python benchmarks/bad_inputs.py --only wav       those with "wav" in their name
    python benchmarks/bad_inputs.py --kind files     those of a kind: the words of `KINDS`
    python benchmarks/bad_inputs.py --bad            print only what is not good

Every case runs one command in a folder of its own and says how it must end.  A refusal is good if
the exit code is 2, what is said on stderr is one line that begins with ``refimpl: error:`` (or
``run_mpi.sh:``) and holds what the case expects, and nothing half-written is left; what works
must end with exit code 0 and a silent stderr.  No case may take longer than --limit seconds.

One rank is a fork of this process, which has read refimpl but started no MPI; several are started
by the mpiexec beside this Python, and some cases call run_mpi.sh.  Cases that need a file system
that is full are tried where a small one can be mounted (as root on Linux).  The exit status is 1
if any outcome is not good.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import resource
import selectors
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(CHECKOUT))

import numpy as np  # noqa: E402

from benchmarks.same_bits import launcher, write_beeps, write_images  # noqa: E402
from refimpl import __main__, cli  # noqa: E402

Edit = Callable[[Path], None]
KINDS = {
    "wavs": "recordings",
    "texts": "text files of a corpus",
    "words": "lexicons, segments, words nobody knows",
    "places": "surroundings, run_mpi.sh",
    "models": "model files",
    "numbers": "huge and tiny numbers, sizes",
    "ranks": "ranks that were told or have different things",
    "full": "full and closed things",
    "files": "files that were damaged or edited",
    "lines": "one mistake, one line",
}
IMAGES = "train mlp --data images --set hidden=4 --batch 4 --steps 2 --out out"
SPEECH = "train acoustic_mlp --data corpus --set hidden=4 --batch 8 --steps 2 --out out"
NET = "train net.py --data images --batch 4 --steps 2 --out out"
DECODE = "decode speechrun x.wav"
HOST = os.uname().nodename
RUN_MPI = f"{shlex.quote(str(CHECKOUT))}/run_mpi.sh"


@dataclass
class Case:
    """A command and how it must end.

    ``said`` is a pattern of the one line of a refusal, or None for what works.  ``edit`` changes
    the folder, which holds copies of what the command names (`Materials`).  ``other`` are the
    words of rank 1, if it has its own, ``apart`` two folders for two ranks with those edits.
    """

    kind: str
    name: str
    words: str
    said: str | None
    edit: Edit | None = None
    ranks: int = 1
    other: str | None = None
    apart: Edit | None = None  # of rank 1's folder
    shell: bool = False
    codes: tuple[int, ...] = ()  # other than what is usual
    begun: bool = False  # a refusal that comes when there is a run folder already
    limits: dict[int, int] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    lines: int = 1
    root: bool = False  # needs a mount

    @property
    def code(self) -> tuple[int, ...]:
        return self.codes or ((0,) if self.said is None else (2,))


# ------------------------------------------------------------------------------------- edits


def put(name: str, content: str | bytes) -> Edit:
    """Return an edit that writes a file."""

    def edit(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return edit


def swap(name: str, old: str, new: str, count: int = 1) -> Edit:
    """Return an edit that replaces a text in a file."""

    def edit(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text, (name, old)
        (folder / name).write_bytes(text.replace(old, new, count).encode())

    return edit


def add(name: str, text: str) -> Edit:
    """Return an edit that appends to a file."""

    def edit(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.write(text.encode())

    return edit


def bytes_of(name: str, change: Callable[[bytes], bytes]) -> Edit:
    """Return an edit that changes the bytes of a file."""

    def edit(folder: Path) -> None:
        (folder / name).write_bytes(change((folder / name).read_bytes()))

    return edit


def without(name: str) -> Edit:
    """Return an edit that removes a file."""
    return lambda folder: (folder / name).unlink()


def fifo(name: str) -> Edit:
    """Return an edit that puts a named pipe in place of a file."""

    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return edit


def directory(name: str) -> Edit:
    """Return an edit that puts a folder in place of a file."""

    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return edit


def all_of(*edits: Edit) -> Edit:
    """Return an edit that does several."""

    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


def setting(name: str, where: str, value: object) -> Edit:
    """Return an edit that sets a value in a JSON file; ``a.b`` is b of a, DELETE takes it out."""

    def edit(folder: Path) -> None:
        plain = json.loads((folder / name).read_text())
        inner = plain
        *way, last = where.split(".")
        for step in way:
            inner = inner[int(step)] if isinstance(inner, list) else inner[step]
        if value is DELETE:
            del inner[last]
        else:
            inner[int(last) if isinstance(inner, list) else last] = value
        (folder / name).write_text(json.dumps(plain))

    return edit


DELETE = object()


def arrays(name: str, change: Callable[[dict], None], **how: bool) -> Edit:
    """Return an edit that changes the dict of arrays in an npz file."""

    def edit(folder: Path) -> None:
        with np.load(folder / name) as file:
            found = dict(file)
        change(found)
        with np.errstate(all="ignore"):
            (np.savez_compressed if how.get("compressed") else np.savez)(folder / name, **found)

    return edit


def first(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], None]:
    """Return a change of the first array."""

    def apply(found: dict) -> None:
        name = next(iter(found))
        found[name] = change(found[name].copy())

    return apply


def entry(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], None]:
    """Return a change of an array by name."""

    def apply(found: dict) -> None:
        found[name] = change(found[name].copy())

    return apply


def with_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that sets the first number of an array."""

    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


def plain_part(name: str, where: str, value: object) -> Edit:
    """Return an edit of the JSON text in task.npz."""

    def change(found: dict) -> None:
        plain = json.loads(str(found["plain"]))
        inner = plain
        *way, last = where.split(".")
        for step in way:
            inner = inner[step]
        if value is DELETE:
            del inner[last]
        else:
            inner[last] = value
        found["plain"] = np.array(json.dumps(plain))

    return arrays(name, change)


# ------------------------------------------------------------------------------------- contents


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    """Return a chunk of a RIFF file; with another size than it has, if asked for."""
    size = len(content) if size is None else size
    return name + struct.pack("<I", size) + content + b"\0" * (len(content) % 2)


def fmt(kind=1, channels=1, rate=8000, align=2, bits=16) -> bytes:
    """Return a fmt chunk's content."""
    return struct.pack("<HHIIHH", kind, channels, rate, rate * 2 % 2**32, align, bits)


def riff(*chunks: bytes, size: int | None = None, name: bytes = b"RIFF") -> bytes:
    """Return a RIFF file."""
    body = b"WAVE" + b"".join(chunks)
    return name + struct.pack("<I", len(body) if size is None else size) + body


SOUND = (3000 * np.sin(np.arange(4000) / 3)).astype("<i2").tobytes()
GOOD = riff(chunk(b"fmt ", fmt()), chunk(b"data", SOUND))


def floats(value: float = 0.1) -> bytes:
    """Return a file of 32-bit floats."""
    head = chunk(b"fmt ", fmt(kind=3, align=4, bits=32))
    return riff(head, chunk(b"data", np.full(4000, value, "<f4").tobytes()))


def idx(shape: tuple[int, ...], content: bytes, kind: int = 8) -> bytes:
    """Return an idx file."""
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + content


MODEL = """
import os, sys
from refimpl import nn
from refimpl.run.config import Recipe
def rank():
    from mpi4py import MPI
    return MPI.COMM_WORLD.rank
def build(seed, inputs, classes, hidden=4):
    return nn.Sequential(nn.Affine("a", inputs, hidden, seed), nn.Relu(),
                         nn.Affine("b", hidden, classes, seed))
def recipe():
    return Recipe(task="images", epochs=1, lr=0.1)
"""


def net(*changes: tuple[str, str], top: str = "") -> Edit:
    """Return an edit that writes net.py: MODEL with changes, with more lines after the imports."""
    text = MODEL
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return put("net.py", text.replace("def build", f"{top}\ndef build", 1))


def recipe(more: str) -> Edit:
    """Return an edit that writes net.py with another recipe."""
    return net(('Recipe(task="images", epochs=1, lr=0.1)', f"Recipe({more})"))


def layer(body: str) -> Edit:
    """Return an edit that writes net.py, whose last layer's backward does something else."""
    top = "class Own(nn.Affine):\n    def backward(self, *given, **more):\n        "
    top += f"{body}\n        return super().backward(*given, **more)\n"
    return net(('nn.Affine("b"', 'Own("b"'), top=top)


BUILD = "def build(seed, inputs, classes, hidden=4):\n"
RECIPE = "def recipe():\n"
RETURNS = 'return nn.Sequential(nn.Affine("a"'

# ------------------------------------------------------------------------------------- the table


# fmt: off
def wavs() -> Iterator[Case]:
    def case(name: str, content: bytes | None, said: str | None, **how) -> Case:
        edit = how.pop("edit", None) or put("x.wav", content or b"")
        return Case("wavs", name, DECODE, said, edit, **how)

    head, data = chunk(b"fmt ", fmt()), chunk(b"data", SOUND)
    for name, content in {
        "a plain file": GOOD, "RIFF size 0": riff(head, data, size=0),
        "RIFF size 8 too many": riff(head, data, size=len(GOOD)),
        "RIFF size 36": riff(head, data, size=36),
        "data size 0, RIFF size 0": riff(head, chunk(b"data", SOUND, 0), size=0),
        "both sizes 0xFFFFFFFF": riff(head, chunk(b"data", SOUND, 2**32 - 1), size=2**32 - 1),
        "sox to a pipe": riff(head, chunk(b"data", SOUND, 0x7FFFF000), size=0x7FFFF024),
        "an odd byte at a pipe's end": riff(
            head, b"data" + struct.pack("<I", 2**32 - 1) + SOUND + b"x", size=2**32 - 1
        ),
        "a LIST chunk before": riff(head, chunk(b"LIST", b"INFOISFTabc"), data),
        "a chunk of odd size before": riff(chunk(b"junk", b"abc"), head, data),
        "a chunk after": riff(head, data, chunk(b"LIST", b"INFO")),
        "extensible": riff(
            chunk(b"fmt ", fmt(kind=0xFFFE) + struct.pack("<HHIH", 22, 16, 4, 1) + b"\0" * 14),
            data,
        ),
        "floats": floats(), "silence": riff(head, chunk(b"data", bytes(8000))),
        "full scale": riff(head, chunk(b"data", b"\xff\x7f" * 4000)),
    }.items():
        yield case(name, content, None)
    for name, content, said in (
        ("half of it", GOOD[: len(GOOD) // 2], "x.wav is truncated.* bytes of samples are left"),
        ("one byte less", GOOD[:-1], "x.wav is truncated"),
        ("header only", GOOD[:36], "before its samples"),
        ("12 bytes", GOOD[:12], "before its samples"), ("empty", b"", "does not begin with RIFF"),
        ("a text", b"hello world, I am a text file", "does not begin with RIFF"),
        ("flac", b"fLaC" + bytes(100), "does not begin with RIFF"),
        ("RIFX", riff(head, data, name=b"RIFX"), "does not begin with RIFF"),
        ("RF64", riff(head, data, name=b"RF64"), "does not begin with RIFF"),
        ("no data chunk", riff(head, chunk(b"LIST", b"INFO")), "before its samples"),
        ("no fmt chunk", riff(data), "its data chunk stands before its fmt"),
        ("fmt of 4 bytes", riff(chunk(b"fmt ", b"\1\0\1\0"), data), "fmt chunk of 4 bytes"),
        ("0 channels", riff(chunk(b"fmt ", fmt(channels=0)), data), "0 channels, mono"),
        ("2 channels", riff(chunk(b"fmt ", fmt(channels=2)), data), "2 channels, mono"),
        ("65535 channels", riff(chunk(b"fmt ", fmt(channels=65535)), data), "65535 channels"),
        ("0 bits", riff(chunk(b"fmt ", fmt(bits=0)), data), "0-bit integer samples"),
        ("15 bits", riff(chunk(b"fmt ", fmt(bits=15)), data), "15-bit integer samples"),
        ("8 bits", riff(chunk(b"fmt ", fmt(bits=8, align=1)), data), "8-bit integer samples"),
        ("24 bits", riff(chunk(b"fmt ", fmt(bits=24, align=3)), data), "24-bit integer"),
        ("64-bit floats", riff(chunk(b"fmt ", fmt(3, bits=64, align=8)), data), "64-bit float"),
        ("mu-law", riff(chunk(b"fmt ", fmt(kind=7, bits=8)), data), "8-bit mu-law"),
        ("kind 999", riff(chunk(b"fmt ", fmt(kind=999)), data), "16-bit format 999"),
        ("block align 0", riff(chunk(b"fmt ", fmt(align=0)), data), r"0 bytes \(block align\)"),
        ("block align 4", riff(chunk(b"fmt ", fmt(align=4)), data), r"4 bytes \(block align\)"),
        ("rate 0", riff(chunk(b"fmt ", fmt(rate=0)), data), "sampled at 0 hertz"),
        ("rate 4e9", riff(chunk(b"fmt ", fmt(rate=2**32 - 1)), data), "sampled at 4294967295"),
        ("another rate", riff(chunk(b"fmt ", fmt(rate=16000)), data), "16000"),
        (
            "a chunk behind the end",
            riff(chunk(b"junk", b"abcd", 2**31), head, data),
            "ends behind the file",
        ),
        ("2000 chunks", riff(head, *[chunk(b"junk", b"")] * 2000, data), "more than 1000 chunks"),
        ("an odd data size", riff(head, chunk(b"data", SOUND[:-1])), "middle of a sample"),
        ("no samples", riff(head, chunk(b"data", b"")), "x.wav"),
        ("one sample", riff(head, chunk(b"data", b"\1\0")), "x.wav"),
        ("NaN", floats(np.nan), "x.wav"), ("inf", floats(np.inf), "x.wav"),
        ("1e38", floats(1e38), "x.wav"),
    ):
        yield case(name, content, said)
    yield case("not there", None, "no file .*x.wav", edit=lambda folder: None)
    yield case("a folder", None, "x.wav is not a file", edit=directory("x.wav"))
    yield case("a named pipe", None, "x.wav is not a file", edit=fifo("x.wav"))
    link = lambda folder: (folder / "x.wav").symlink_to("x.wav")  # noqa: E731
    yield case("a link to itself", None, "x.wav", edit=link)
    zero = "decode speechrun /dev/zero"
    yield Case("wavs", "/dev/zero", zero, "/dev/zero is not a file")
    # In training the file is one of many, and several ranks read them.
    for ranks in (1, 2):
        name = f"truncated in training, {ranks} ranks"
        edit = bytes_of("corpus/train/u01.wav", lambda content: content[:100])
        yield Case("wavs", name, SPEECH, "u01.wav is truncated", edit, ranks)
    edit = put("corpus/train/u01.wav", floats(np.nan))
    yield Case("wavs", "NaN in training", SPEECH, "u01", edit, 2)
    edit = fifo("corpus/train/u01.wav")
    yield Case("wavs", "a pipe in training", SPEECH, "no file .*u01.wav", edit, 2)
    edit = put("corpus/train/u01.wav", riff(head, chunk(b"data", bytes(100))))
    yield Case("wavs", "too short for its words", SPEECH, "u01", edit)


def texts() -> Iterator[Case]:
    def case(name: str, said: str | None, edit: Edit, **how) -> Case:
        return Case("texts", name, SPEECH, said, edit, **how)

    def every(change: Callable[[bytes], bytes]) -> Edit:
        files = [f"corpus/{s}/{n}" for s in ("train", "dev", "test") for n in FILES]
        return all_of(*[bytes_of(name, change) for name in [*files, "corpus/lexicon.txt"]])

    FILES = ("text", "wav.scp", "utt2spk")
    text = "corpus/train/text"
    yield case("byte order marks", None, every(lambda c: b"\xef\xbb\xbf" + c))
    yield case("CRLF", None, every(lambda c: c.replace(b"\n", b"\r\n")))
    yield case("tabs", None, every(lambda c: c.replace(b" ", b"\t")))
    yield case("no newline at the end", None, every(lambda c: c[:-1]))
    yield case("blank lines", None, every(lambda c: c.replace(b"\n", b"\n\n \t\n")))
    yield case("UTF-16", "text:1: this is not UTF-8", bytes_of(text, lambda c: b"\xff\xfe" + c))
    for name, letter in (("U+2028", "\u2028"), ("U+0085", "\x85"), ("NBSP", "\xa0")):
        said = r"text:3: .*(\\u2028|\\x85|\\xa0)"
        yield case(f"{name} in a word", said, put(text, _third(letter)))
    yield case("a zero byte", "text:2", put(text, "u00 on\nu01 s\0aw\n" + _rest(2)))
    yield case("Latin-1", "text:2: this is not UTF-8", put(text, b"u00 on\nu01 caf\xe9\n"))
    yield case("empty", "text is empty", put(text, ""))
    yield case("blank", "text is empty", put(text, " \n\t\n"))
    yield case("a line of 3 MB", "text:1: a line of 3", put(text, "u00 " + "on " * 10**6))
    yield case("a word of 900 KB", "text:1: ", put(text, f"u00 {'o' * 900_000}\n{_rest(1)}"))
    yield case("a name of 900 KB", "o{9}", put(text, f"{'o' * 900_000} on\n{_rest(1)}"))
    yield case("a name twice", "text:25: u00 is there twice", add(text, "u00 on\n"))
    yield case("a name alone", "text:25: u99 stands alone", add(text, "u99\n"))
    yield case("a name more", r"u99 is in .*text but not in", add(text, "u99 on\n"))
    yield case("no words known", "text:1: .*zebra", put(text, "u00 zebra\n" + _rest(1)))
    for name in FILES:
        yield case(f"no {name}", f"has no {name}", without(f"corpus/train/{name}"))
        yield case(f"{name} is a folder", name, directory(f"corpus/train/{name}"))
        yield case(f"{name} is a pipe", name, fifo(f"corpus/dev/{name}"))
    scp = "corpus/train/wav.scp"
    yield case("a command", "wav.scp:1: .* is a pipe", swap(scp, "u00.wav", "cat u00.wav |"))
    yield case("wav -", "wav.scp:1: .* is a pipe", swap(scp, "u00.wav", "-"))
    yield case("a wav of a long name", "wav.scp:1: ", swap(scp, "u00.wav", "u" * 5000))
    yield case("a wav not there", "wav.scp:1: .*no file", swap(scp, "u00.wav", "nowhere.wav"))
    for name in ("train", "dev", "test"):
        yield case(
            f"no {name}", name, lambda folder, name=name: shutil.rmtree(folder / "corpus" / name)
        )
    yield Case("texts", "no corpus", SPEECH.replace("corpus", "nowhere"), "nowhere")
    yield Case("texts", "a file as corpus", SPEECH.replace("corpus", "x"), "x", put("x", ""))
    yield Case("texts", "images as corpus", SPEECH.replace("corpus", "images"), "images")
    yield Case("texts", "corpus as images", IMAGES.replace("images", "corpus"), "corpus")
    yield case("three mistakes at once", r"\(1\) .*\(2\) .*\(3\) ", _three(text), ranks=2)
    many = bytes_of(text, lambda c: c.replace(b" ", b" zebra ", 30))
    yield case("24 mistakes at once", r"\(3\) .*; and \d+ more", many)
    ctm = "corpus/train/ctm"
    for name, line, said in (
        ("four fields", "u00 1 0.0 0.5", "is not `utterance channel"),
        ("no number", "u00 1 zero 0.5 sil", "are not numbers"),
        ("NaN", "u00 1 nan 0.5 sil", "are not numbers"),
        ("negative", "u00 1 -1 0.5 sil", "must not be negative"),
        ("1e400", "u00 1 1e400 0.5 sil", "are not numbers"),
        ("nobody's", "u99 1 0 0.5 sil", "must name the same"),
        ("an unknown phone", "u00 1 0 0.5 zz", "zz|u0"),
    ):
        yield case(f"ctm: {name}", said, put(ctm, line + "\n"))


def _third(letter: str) -> str:
    return f"u00 on\nu01 saw\nu02 kn{letter}ee\n{_rest(3)}"


def _rest(start: int) -> str:
    return "".join(f"u{u:02d} on\n" for u in range(start, 24))


def _three(text: str) -> Edit:
    return put(text, f"u00 a\nu01 b\nu02 c\n{_rest(3)}")


def words() -> Iterator[Case]:
    def case(name: str, said: str | None, content: str, **how) -> Case:
        return Case("words", name, SPEECH, said, put("corpus/lexicon.txt", content), **how)

    three = "knee n iy\nsaw s ah\non ah n\n"
    yield case("plain", None, three)
    yield case("probabilities", None, "knee 0.99 n iy\nsaw 1.0 s ah\non 0.5 ah n\n")
    yield case("MFA", None, "".join(f"{w} 0.99 0.2 1.3 0.9 {p}\n" for w, p in _PHONES))
    yield case("alternatives", None, three + "on(2) aa n\n")
    yield case("two pronunciations", None, three + "on aa n\n")
    yield case("comments", None, "# mine\n;;; cmu\n" + three.replace("iy\n", "iy # note\n"))
    yield case("twice the same", "lexicon.txt:4: word on is there twice", three + "on ah n\n")
    yield case("an alternative of nothing", r"lexicon.txt:4: word so\(2\)", three + "so(2) s\n")
    yield case("no phones", "lexicon.txt:4: word so has no phones", three + "so\n")
    yield case("silence in a word", "lexicon.txt:4: .*said with sil", three + "so s sil\n")
    yield case("two numbers", "lexicon.txt:1: .*2 numbers", "knee 0.9 0.1 n iy\n" + three[10:])
    yield case("a number inside", "the number 0.5 between", "knee 0.9 n 0.5 iy\n" + three[10:])
    yield case("empty", "lexicon.txt is empty", "")
    yield case("comments only", "holds comments only", "# a\n# b\n")
    yield case(
        "201 pronunciations", "more than 200", three + "".join(f"on p{i}\n" for i in range(201))
    )
    yield case(
        "12,000 phones", "12005 phones", three + "".join(f"w{i} p{i}\n" for i in range(12000))
    )
    yield case("20,000 words", None, three + "".join(f"w{i} n ah\n" for i in range(20000)))
    yield case("a byte order mark", None, "\ufeff" + three)
    yield case("a word of 900 KB", None, three + "w" * 900_000 + " n\n")
    yield case("unknown in train", "text:.*(knee|saw|on)", "zebra z\n")
    gone = without("corpus/lexicon.txt")
    yield Case("words", "no lexicon", SPEECH, "no lexicon .*lexicon.txt", gone, 2)
    edit = fifo("corpus/lexicon.txt")
    yield Case("words", "a pipe as lexicon", SPEECH, "no lexicon .*lexicon.txt", edit)
    edit = bytes_of("corpus/test/text", lambda c: c.replace(b" ", b" zebra ", 1))
    yield Case("words", "unknown in test", SPEECH, None, edit)
    edit = bytes_of("corpus/dev/text", lambda c: c.replace(b" ", b" zebra ", 1))
    yield Case("words", "unknown in dev", SPEECH, None, edit, 2)

    def segments(end: float, lines: str = "") -> Edit:
        def edit(folder: Path) -> None:
            text = ""
            for u in range(24):
                size = (folder / f"corpus/train/u{u:02d}.wav").stat().st_size - 44
                text += f"u{u:02d} u{u:02d} 0.0 {size / 16000 + end:.4f}\n"
            (folder / "corpus/train/segments").write_text(lines or text)

        return edit

    for name, edit, said in (
        ("ends rounded up", segments(0.006), None), ("ends far behind", segments(1.0), "u0.*"),
        ("two fields", segments(0, "u00 u00\n"), "needs a recording, a start and an end"),
        ("end before start", segments(0, "u00 u00 2 1\n"), "goes from 2 to 1 s"),
        ("NaN", segments(0, "u00 u00 nan 1\n"), "are not numbers"),
        ("inf", segments(0, "u00 u00 0 inf\n"), "are not numbers"),
        ("an unknown recording", segments(0, "u00 zz 0 1\n"), "zz|u01"),
        ("empty", segments(0, "\n"), "segments is empty"),
    ):
        yield Case("words", f"segments: {name}", SPEECH, said, edit, 2 if "behind" in name else 1)


_PHONES = (("knee", "n iy"), ("saw", "s ah"), ("on", "ah n"))


def places() -> Iterator[Case]:
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


def models() -> Iterator[Case]:
    def case(name: str, said: str | None, edit: Edit, **how) -> Case:
        return Case("models", name, NET, said, edit, **how)

    yield case("a plain one", None, net(), ranks=2)
    for name, line, said in (
        ("an exception", "raise ValueError('mine')", "net.py, line .: ValueError: mine"),
        ("a base exception", "raise BaseException('mine')", "BaseException: mine"),
        ("a group", "raise BaseExceptionGroup('g', [KeyError(1)])", "ExceptionGroup|NameError"),
        ("GeneratorExit", "raise GeneratorExit", "GeneratorExit"),
        ("sys.exit(0)", "sys.exit(0)", "SystemExit: 0"),
        ("sys.exit(3)", "sys.exit(3)", "SystemExit: 3"),
        ("sys.exit('text')", "sys.exit('text')", "SystemExit: text"),
        ("os._exit(0)", "os._exit(0)", "net.py, line .: "),
        ("os._exit(3)", "os._exit(3)", "net.py, line .: "),
        ("recursion", "(lambda f: f(f))(lambda f: f(f))", "RecursionError"),
        ("no memory", "import numpy; numpy.zeros(1 << 55)", "MemoryError"),
        ("a missing module", "import no_such_module", "ModuleNotFoundError"),
        ("a message of lines", "raise ValueError('one\\ntwo\\n\\nthree')", "one two three"),
        ("a message of 100 KB", "raise ValueError('x' * 100_000)", "ValueError: x"),
        (
            "an exception that cannot be told",
            "exec('class E(Exception):\\n def __str__(self): raise KeyError\\nraise E')",
            "net.py, line .",
        ),
        (
            "a warning as error",
            "import warnings; warnings.simplefilter('error'); warnings.warn('w')", "UserWarning",
        ),
    ):
        yield case(f"{name}, at import", said, net(top=line))
        inside = net((BUILD, f"{BUILD}    {line}\n"))
        yield case(
            f"{name}, in build()", said.replace("net.py, line .", "model net, line .*"), inside
        )
    for name, line in (
        ("exit 0", "sys.exit(0)"), ("exit 3", "sys.exit(3)"), ("os._exit(0)", "os._exit(0)"),
        ("os._exit(3)", "os._exit(3)"), ("raise", "raise BaseException('mine')"),
        ("recursion", "(lambda f: f(f))(lambda f: f(f))"),
    ):
        for who in ("True", "rank() == 0", "rank() == 1"):
            said = "net.py, line"
            yield case(f"{name} if {who}, at import", said, net(top=f"if {who}: {line}"), ranks=2)
        there = net((BUILD, f"{BUILD}    if rank() == 1: {line}\n"))
        yield case(f"{name} on rank 1, in build()", "build.. of model net, line", there, ranks=2)
        there = net((RECIPE, f"{RECIPE}    if rank() == 1: {line}\n"))
        yield case(f"{name} on rank 1, in recipe()", "recipe.. of model net, line", there, ranks=2)
    for name, line in (("exit 0", "sys.exit(0)"), ("os._exit(0)", "os._exit(0)")):
        # In the midst of a step it cannot be one line; but it is no success, and the job ends.
        for ranks, who in ((1, "True"), (2, "rank() == 1"), (2, "rank() == 0")):
            edit = layer(f"if {who}: {line}")
            title = f"{name} in a step if {who}, {ranks} ranks"
            yield case(title, "", edit, ranks=ranks, codes=(1, 2), begun=True, lines=-1)
    edit = layer("if rank() == 1: raise ValueError('mine')")
    yield case("an exception in a step", "mine", edit, ranks=2, codes=(1, 2), begun=True, lines=-1)
    for name, content, said in (
        ("no Python", b"def build(:\n", "net.py, line 1: SyntaxError"),
        ("a zero byte", b"x = 1\n\0", "net.py"),
        ("not UTF-8", b"# caf\xe9\n", "cannot read net.py"), ("empty", b"", "no function build"),
        ("indentation", b"def build():\nreturn 1\n", "IndentationError"),
        ("thousands of brackets", b"x = " + b"(" * 5000 + b")" * 5000, "net.py"),
        ("no recipe()", MODEL.replace("def recipe", "def other").encode(), "no function recipe"),
        ("no build()", MODEL.replace("def build", "def other").encode(), "no function build"),
        ("build is no function", (MODEL + "build = 3\n").encode(), "no function build"),
        ("recipe is no function", (MODEL + "recipe = {}\n").encode(), "no function recipe"),
        ("build is a class", (MODEL + "build = int\n").encode(), "build.* of model net"),
    ):
        yield case(name, said, put("net.py", content))
    yield case("a byte order mark", None, put("net.py", "\ufeff" + MODEL))
    yield case("a folder", "no model 'net.py'", directory("net.py"))
    yield case("a pipe", "no model 'net.py'", fifo("net.py"))
    yield Case("models", "not there", "train other.py --out out", "no model 'other.py'", None, 2)
    yield Case("models", "an unknown name", "train mpl --out out", "no model 'mpl'")
    for name, old, new, said in (
        (
            "returns None",
            RETURNS,
            "return None and nn.Sequential(nn.Affine('a'", "returns NoneType",
        ),
        ("returns a list", RETURNS, "return [1] or nn.Sequential(nn.Affine('a'", "returns list"),
        (
            "no arguments",
            BUILD,
            "def build():\n    inputs = classes = hidden = seed = 1\n", "cannot be called",
        ),
        ("one more argument", "hidden=4)", "hidden)", "cannot be called"),
        (
            "another width", "inputs, hidden, seed)",
            "inputs + 1, hidden, seed)", "145 inputs but the data",
        ),
        ("another number of outputs", "hidden, classes,", "hidden, classes + 1,", "11 outputs"),
        (
            "layers that do not fit",
            'nn.Affine("b", hidden',
            'nn.Affine("b", hidden + 1',
            "build.* of model net",
        ),
        ("two layers of one name", '"b"', '"a"', "build.*'?a'?"),
        (
            "no layers",
            RETURNS,
            "return nn.Sequential() or nn.Sequential(nn.Affine('a'", "model net",
        ),
        ("no name", '"b"', '""', ""),
        ("a name that is no text", '"b"', "7", "build.* of model net"),
        (
            "no parameters",
            RETURNS,
            "return nn.Sequential(nn.Relu()) or nn.Sequential(nn.Affine('a'", "model net",
        ),
        ("width 0", "hidden=4", "hidden=0", "model net"),
        ("width -1", "hidden=4", "hidden=-1", "model net"),
        ("width 1.5", "hidden=4", "hidden=1.5", "model net"),
        ("width '4'", "hidden=4", "hidden='4'", "model net"),
        ("width 10^12", "hidden=4", "hidden=10**12", "model net has .* parameters"),
        ("a seed of text", "classes, seed)", "classes, 'seed')", "model net|seed"),
        ("a layer that is none", "nn.Relu()", "'relu'", "model net"),
        (
            "inputs left out", "seed, inputs, classes, hidden=4",
            "seed, classes, hidden=4", "cannot be called",
        ),
    ):
        if said:
            yield case(name, said, net((old, new)))
    for name, more, said in (
        ("a dict", None, "returns dict"), ("no task", "epochs=1, lr=0.1", "recipe.. of model net"),
        ("an unknown key", "task='images', epochs=1, lr=0.1, rate=3", "recipe.*rate"),
        ("task of a list", "task=['images'], epochs=1, lr=0.1", "task"),
        ("an unknown task", "task='video', epochs=1, lr=0.1", "video"),
        ("epochs '3'", "task='images', epochs='3', lr=0.1", "epochs"),
        ("epochs 0", "task='images', epochs=0, lr=0.1", "epochs"),
        ("epochs True", "task='images', epochs=True, lr=0.1", "epochs"),
        ("epochs 10^30", "task='images', epochs=10**30, lr=0.1", "epochs"),
        ("lr NaN", "task='images', epochs=1, lr=float('nan')", "lr"),
        ("lr inf", "task='images', epochs=1, lr=float('inf')", "lr"),
        ("lr -1", "task='images', epochs=1, lr=-1.0", "lr"),
        ("lr 10^400", "task='images', epochs=1, lr=10**400", "lr"),
        ("lr of numpy", "task='images', epochs=1, lr=__import__('numpy').array([1.0])", "lr"),
        ("batch 1.5", "task='images', epochs=1, lr=0.1, batch=1.5", "batch"),
        ("microsteps 0", "task='images', epochs=1, lr=0.1, microsteps=0", "microsteps"),
        ("momentum NaN", "task='images', epochs=1, lr=0.1, momentum=float('nan')", "momentum"),
        ("momentum 2", "task='images', epochs=1, lr=0.1, momentum=2.0", "momentum"),
        ("clip inf", "task='images', epochs=1, lr=0.1, clip=float('inf')", "clip"),
        (
            "decay inf",
            "task='images', epochs=1, lr=0.1, schedule='exponential', decay=float('inf')", "decay",
        ),
        (
            "warmup NaN",
            "task='images', epochs=1, lr=0.1, schedule='warmup', warmup=float('nan')",
            "warmup|schedule",
        ),
        ("an unknown optimizer", "task='images', epochs=1, lr=0.1, optimizer='lbfgs'", "lbfgs"),
        ("an unknown schedule", "task='images', epochs=1, lr=0.1, schedule='cosine7'", "cosine7"),
        ("an unknown method", "task='images', epochs=1, lr=0.1, methods={'thau': 3}", "thau"),
        ("a method of text", "task='images', epochs=1, lr=0.1, methods={'tau': 'x'}", "tau"),
        ("a method NaN", "task='images', epochs=1, lr=0.1, methods={'tau': float('nan')}", "tau"),
        (
            "an unknown setting", "task='images', epochs=1, lr=0.1, settings={'context': 3}",
            "context",
        ),
        ("settings of text", "task='images', epochs=1, lr=0.1, settings='none'", "settings"),
    ):
        edit = recipe(more) if more else net((RECIPE, RECIPE + "    return {}\n"))
        yield case(f"recipe: {name}", said, edit)
    for name, old, new, said in (
        ("width", "hidden=4", "hidden=4 + rank()", "of layer 0 is|--set|layer"),
        ("depth", "nn.Relu(),", "nn.Relu(), *[nn.Tanh()] * rank(),", "layer 2"),
        ("activation", "nn.Relu()", "[nn.Relu, nn.Tanh][rank()]()", "layer 1 is 'Relu' on rank 0"),
        ("seed", "classes, seed)", "classes, seed + rank())", "seed of layer 2"),
        ("name", '"b"', '"ab"[rank()] + "b"', "name of layer 2"),
        ("rate", "lr=0.1", "lr=0.1 + rank()", "--lr is 0.1 on rank 0"),
        ("batch", "lr=0.1", "lr=0.1, batch=4 + rank()", None),
        ("optimizer", "lr=0.1", "lr=0.1, optimizer=['sgd', 'adam'][rank()]", "--optimizer"),
        ("epochs", "epochs=1", "epochs=1 + rank()", "--epochs"),
        ("schedule", "lr=0.1", "lr=0.1, schedule=['constant', 'newbob'][rank()]", "--schedule"),
        ("clip", "lr=0.1", "lr=0.1, clip=1.0 + rank()", "--clip"),
        ("microsteps", "lr=0.1", "lr=0.1, microsteps=1 + rank()", "--microsteps"),
        ("task", '"images"', '["images", "acoustic"][rank()]', "the recipe's task"),
        ("methods", "lr=0.1", "lr=0.1, methods={'tau': 1.0 + rank()}", "recipe's tau"),
        (
            "returned kind",
            RETURNS,
            "return rank() and 3 or nn.Sequential(nn.Affine('a'", "returns int",
        ),
    ):
        yield case(f"ranks differ in {name}", said, net((old, new)), ranks=2)
    both = net(top="import time\nx = time.time() * (1 + rank())")
    yield case("ranks differ in nothing that counts", None, both, ranks=2)


def numbers() -> Iterator[Case]:
    def case(words: str, said: str | None, edit: Edit | None = None, **how) -> Case:
        return Case("numbers", words.replace(IMAGES, "train"), words, said, edit, **how)

    for option, values in {
        "--lr": "0 -1 nan inf 1e400 1e-400 x ''", "--batch": "0 -1 1.5 nan 1e9 10000000000 ''",
        "--microsteps": "0 -1 10000000000000", "--epochs": "0 -1 1e3 10000000000000",
        "--steps": "0 -1 1e400 99999999999999999999", "--momentum": "nan inf -1 1.5 1e400",
        "--weight-decay": "nan inf -1 1e400", "--clip": "0 -1 nan inf 1e-400",
        "--seed": "-1 1.5 99999999999999999999999",
        "--ranks-per-node": "0 -1 99999999999999999999", "--log-every": "-1 1.5",
        "--dtype": "float16 int8 ''", "--reduction": "sum ''", "--collectives": "star ''",
        "--optimizer": "lbfgs ''", "--schedule": "cos ''",
        "--set hidden=": "0 -1 nan 1.5 99999999999999999999 1000000 x",
        "--set depth=": "-1 nan 99999999999999999999 100000000", "--set hidden": "''",
        "--set unknown=": "3",
    }.items():
        for value in values.split():
            flag = option + value if option.endswith("=") else f"{option} {value}"
            last = option.split()[-1]
            said = (
                "--set|option|hidden" if "--set" in option else last.strip("-").replace("-", ".")
            )
            if flag != "--epochs 1e3":
                yield case(f"{IMAGES} {flag}", said)
    for row, option, values in (
        ("gtc", "--tau", "0 -1 nan inf 1e400 1e-400"), ("gtc", "--target-density", "0 -1 2 nan"),
        ("gtc", "--gtc-warmup", "-1 nan 1.5"), ("gtc", "--residual-clip", "-1 nan inf"),
        ("gtc", "--residual-clip-every", "-1 nan"), ("gtc", "--wire-format", "morse"),
        ("gtc", "--tau-units", "feet"), ("gtc-bmuf", "--gtc-group", "0 -1 3 99999999999999999999"),
        ("gtc-bmuf", "--residuals", "eat"),
        ("bmuf", "--block-steps", "0 -1 nan 99999999999999999999999"),
        ("bmuf", "--block-momentum", "nan inf -1 1 2"), ("bmuf", "--block-lr", "nan inf -1 0"),
        ("bmuf", "--block-method", "xbm"), ("bmuf", "--local-momentum", "lose"),
        ("mics", "--partition", "0 -1 2 3 nan 99999999999999999999"),
        ("mics", "--zero-stage", "0 4 nan"), ("ddp", "--sync", "never"),
    ):
        for value in values.split():
            said = (
                option.strip("-").replace("-", ".").replace("gtc.group", "(gtc.group|GTC groups)")
            )
            long = option == "--block-steps" and len(value) > 9  # longer than any run: no block
            words = f"{IMAGES} --strategy {row} {option} {value}"
            yield case(words, None if long else said, codes=(0,) if long else ())
    for words, said in (
        ("train mlp --strategy ddq --out out", "ddq"),
        ("train mlp --strategy serial --tau 3 --out out", "--tau"),
        ("train mlp --strategy zero1 --partition 2 --out out", "--partition"),
        (
            "train mlp --batch 100000000 --out out",
            "parameters: with gradients|--batch|memory|frames",
        ),
        ("train mlp --set hidden=100000 --set depth=100 --out out", "parameters"),
        (f"{IMAGES} --log-every 99999999999999999999999", "--log-every"),
        ("compare mlp --strategies serial,serial", "each once"),
        ("compare mlp --strategies ''", "--strategies"),
        ("compare mlp --strategies serial,none", "none"),
        ("compare mlp --strategies serial --for 'ddp --lr 1'", "begin with one of"),
        ("compare mlp --strategies serial --for 'serial --lr nan'", "--lr"),
        ("compare mlp --strategies serial --for 'serial \"'", "--for"),
        ("compare mlp --strategies serial --for ''", "--for"),
        ("compare mlp --strategies serial --seeds 0", "--seeds"),
        ("compare mlp --strategies serial --seeds 99999999999", "--seeds"),
        ("bench --repeats 0", "--repeats"), ("bench --repeats 99999999999", "--repeats"),
        ("bench song", "song"), ("bench step --collectives star", "star"), ("topology -n 0", "-n"),
        ("topology -n 4 --strategy mics --partition 3", "partition"),
        ("topology -n 99999999999", "-n"), ("topology -n 4 --parameters nan", "--parameters"),
        ("topology -n 4 --parameters 10 --density 2", "density"), ("topology", "-n"),
        ("explain", "FAMILY|argument|required"), ("explain star", "star"),
        ("explain ring -p 0", "-p"), ("explain ring -p 99999999999999", "-p|99999999999999"),
        ("explain hierarchical -p 4 -k 3", "nothing to explain under .hierarchical"),
        ("plan", "plan|--preset|--parameters"), ("plan --preset none", "none"),
        ("plan -n 4 --parameters inf --flops 1e14", "--parameters"),
        ("plan -n 4 --parameters 1e9 --flops 0", "--flops"),
        ("plan -n 4 --parameters 1e9 --flops nan", "--flops"),
        ("plan -n 99999999 --parameters 1e9 --flops 1e14", "-n"),
        ("plan -n 4 --parameters 1e9 --flops 1e14 --memory -1", "--memory"),
        ("data synth new --seed -1", "--seed"), ("data synth new --rate 44100", "--rate"),
        ("data synth new --rate x", "--rate"),
        ("golden list --cases nothing.at.all", "nothing.at.all"),
        ("golden write images", "images holds"), ("report", "RUN"),
        ("report images", "images|matplotlib"),
        ("decode imagerun x.wav", "does not decode speech"),
        ("evaluate images --data images", "images is not finished|no summary"),
        ("evaluate imagerun --data corpus", "no t10k"),
        ("evaluate speechrun --data images", "images"), ("evaluate imagerun", "--data"),
        ("", "COMMAND"), ("trian mlp", "trian"), ("train", "MODEL"), ("train mlp extra", "extra"),
    ):
        yield case(words, said)
    train, labels = "images/train-images-idx3-ubyte", "images/train-labels-idx1-ubyte"
    tests = "images/t10k-images-idx3-ubyte"
    for name, edit, said in (
        (
            "other sizes in test",
            put(tests, idx((24, 11, 12), bytes(24 * 132))),
            "t10k are 11 x 12",
        ),
        ("more labels", put(labels, idx((121,), bytes(121))), "120 images but 121 labels"),
        ("a label of 10", put(labels, idx((120,), b"\12" * 120)), "a label 10"),
        (
            "no images",
            all_of(put(train, idx((0, 12, 12), b"")), put(labels, idx((0,), b""))),
            "no pixel|0 training",
        ),
        ("no pixels", put(train, idx((120, 0, 12), b"")), "holds no pixel"),
        (
            "three images",
            all_of(put(train, idx((3, 12, 12), bytes(432))), put(labels, idx((3,), bytes(3)))),
            "3 training images",
        ),
        (
            "no test images",
            all_of(
                put(tests, idx((0, 12, 12), b"")),
                put("images/t10k-labels-idx1-ubyte", idx((0,), b"")),
            ),
            "no pixel",
        ),
        ("a header of 2^96", put(train, idx((2**32 - 1,) * 3, b"abc")), "elements but has room"),
        ("floats", put(train, idx((120, 12, 12), bytes(17280), 13)), "element type 13"),
        ("one dimension", put(train, idx((17280,), bytes(17280))), "1 dimensions"),
        ("half of it", bytes_of(train, lambda c: c[: len(c) // 2]), "truncated"),
        ("a byte more", bytes_of(train, lambda c: c + b"x"), "more elements"),
        ("a header's half", put(train, b"\0\0\10\3\0\0"), "ends in its header"),
        ("empty", put(train, b""), "is not an idx file"),
        ("a text", put(train, b"hello"), "is not an idx file"),
        ("not there", without(train), "no train-images-idx3-ubyte"),
        ("a folder", directory(train), "no train-images"),
        ("a pipe", fifo(train), "no train-images"),
        (
            "a gzip bomb",
            all_of(
                without(train), put(train + ".gz", gzip.compress(idx((2**20, 32, 32), bytes(100))))
            ),
            "elements but has room",
        ),
        (
            "a gzip of zeros",
            all_of(
                without(train), put(train + ".gz", gzip.compress(idx((120, 12, 12), bytes(10**8))))
            ),
            "more elements",
        ),
        (
            "a gzip's half",
            all_of(
                without(train),
                put(train + ".gz", gzip.compress(idx((120, 12, 12), os.urandom(17280)))[:9000]),
            ),
            "cannot read",
        ),
        ("no gzip", all_of(without(train), put(train + ".gz", b"hello")), "cannot read"),
        (
            "a gzip",
            all_of(
                without(train), put(train + ".gz", gzip.compress(idx((120, 12, 12), bytes(17280))))
            ),
            None,
        ),
    ):
        yield Case("numbers", f"idx: {name}", IMAGES, said, edit, 2 if name == "no images" else 1)
    for name, value in (
        ("bands", "10**9"), ("bands", "0"), ("bands", "40.5"), ("frame_shift", "1e-9"),
        ("frame_shift", "float('nan')"), ("frame_length", "float('inf')"), ("context", "10**9"),
        ("context", "-1"), ("flat_passes", "10**9"), ("realign_epochs", "(0,)"), ("cmvn", "'all'"),
        ("realign_epochs", "3"), ("word_penalty", "float('nan')"), ("silence", "''"),
        ("word_penalties", "(float('nan'),)"), ("word_penalties", "()"), ("sample_rate", "0"),
        ("word_penalties", "tuple(range(10**6))"), ("acoustic_scale", "0.0"), ("low", "-1.0"),
        ("high", "1.0"), ("high", "8000.0"), ("energy_floor", "0.0"), ("sample_rate", "16000"),
        ("prior_scale", "float('inf')"), ("cmvn_prior", "-1.0"), ("preemphasis", "7.0"),
        ("silence", "7"), ("no_such", "7"), ("alignment", "'exact'"), ("frame_length", "0.001"),
        ("bands", "512"),
    ):
        edit = recipe(f"task='acoustic', epochs=1, lr=0.1, settings={{'{name}': {value}}}")
        words = NET.replace("images", "corpus")
        said = {
            "alignment": "ctm", "frame_length": "frame", "bands": "bands?", "high": "high|hertz",
            "sample_rate": "sample.rate|sampled",
        }
        yield Case("numbers", f"settings: {name} {value}", words, said.get(name, name), edit)


def ranks() -> Iterator[Case]:
    base = f"{IMAGES} --strategy ddp"
    for option, given, said in (
        ("--seed", "5", "--seed is not given on rank 0 but 5 on rank 1"), ("--lr", "0.5", "--lr"),
        ("--batch", "5", "--batch"), ("--microsteps", "2", "--microsteps"),
        ("--epochs", "3", "--epochs"), ("--steps", "3", "--steps"),
        ("--strategy", "gtc", "--strategy"), ("--strategy", "zero3", "--strategy"),
        ("--strategy", "serial", "--strategy"), ("--tau", "2", "--tau"),
        ("--optimizer", "adam", "--optimizer"), ("--momentum", "0.5", "--momentum"),
        ("--weight-decay", "0.5", "--weight-decay"), ("--clip", "0.5", "--clip"),
        ("--schedule", "newbob", "--schedule"), ("--set", "hidden=5", "--set"),
        ("--set", "depth=1", "--set"), ("--reduction", "exact", "--reduction"),
        ("--collectives", "tree", "--collectives"), ("--dtype", "float64", "--dtype"),
        ("--sync", "every-microstep", "--sync"), ("--prefetch", "", "--prefetch"),
        ("--partition", "2", "--partition"), ("--zero-stage", "1", "--zero-stage"),
        ("--gtc-group", "2", "--gtc-group"), ("--block-steps", "2", "--block-steps"),
        ("--ranks-per-node", "1", "--ranks-per-node"), ("--log-every", "1", "--log-every"),
        ("--out", "other", "--out"), ("--json", "", "--json"), ("--data", "elsewhere", "--data"),
        ("--bogus", "", "--bogus"), ("--lr", "nan", "--lr"), ("--help", "", "--help"),
    ):
        yield Case(
            "ranks", f"{option} {given}", base, said, ranks=2, other=f"{base} {option} {given}"
        )
    yield Case("ranks", "0 has the odd one", f"{base} --bogus", "--bogus", ranks=2, other=base)
    yield Case("ranks", "0 asks for help", "train --help", "command|--help", ranks=2, other=base)
    yield Case("ranks", "0 asks the version", "--version", "command|--help", ranks=2, other=base)
    for other in (
        "compare mlp", "evaluate imagerun --data images",
        "topology -n 4", "golden list",
        "bench", "data synth new",
        "plan --preset p4d-100b", "explain ring",
        "report imagerun", "decode speechrun x.wav",
        "",
    ):
        said = "the command is|COMMAND"
        yield Case("ranks", f"another command: {other}", base, said, ranks=2, other=other)
    model = base.replace("mlp", "acoustic_mlp").replace("images", "corpus")
    yield Case("ranks", "another model", base, "MODEL", ranks=2, other=model)
    compare = (
        "compare mlp --data images --set hidden=4 --batch 4 --steps 2 --strategies serial,ddp"
    )
    for option, said in (
        ("--seeds 2", "--seeds"), ("--strategies serial,gtc", "--strategies"),
        ("--for 'ddp --lr 0.3'", "--for"), ("--json x.json", "--json"),
    ):
        yield Case(
            "ranks", f"compare {option}", compare, said, ranks=2, other=f"{compare} {option}"
        )
    evaluate = "evaluate imagerun --data images"
    for command, other, said in (
        (evaluate, "evaluate speechrun --data images", "RUN"),
        (evaluate, "evaluate imagerun --data elsewhere", "--data"),
        (evaluate, evaluate + " --json", "--json"),
        ("decode speechrun a.wav", "decode speechrun b.wav", "WAV"),
        ("data synth new", "data synth other", "DIR"),
        ("data synth new", "data synth new --seed 3", "--seed"),
        ("bench step", "bench gtc", "what|argument|WHAT"),
        ("bench step --repeats 1", "bench step --repeats 2", "--repeats"),
        ("golden write new --cases layers/affine.tiny", "golden write other", "DIR|--cases"),
    ):
        yield Case("ranks", f"{command} | {other}", command, said, ranks=2, other=other)
    # The same words, but another machine's files: each rank has a folder of its own.
    train = "images/train-images-idx3-ubyte"
    more = all_of(
        put(train, idx((132, 12, 12), bytes(132 * 144))),
        put("images/train-labels-idx1-ubyte", idx((132,), bytes(132))),
    )
    for name, words, apart, said in (
        ("more images", base, more, "the number of images in train"),
        (
            "other images",
            base,
            bytes_of(train, lambda c: c[:16] + c[16:][::-1]),
            "digest of images",
        ),
        (
            "one label",
            base,
            bytes_of(
                "images/train-labels-idx1-ubyte",
                lambda c: c[:8] + bytes([(c[8] + 1) % 10]) + c[9:],
            ),
            "digest of labels",
        ),
        ("no images", base, without(train), "no train-images"),
        (
            "other test images",
            base,
            bytes_of("images/t10k-images-idx3-ubyte", lambda c: c[:16] + c[16:][::-1]),
            "images in test",
        ),
        ("another model file", NET, net(("hidden=4", "hidden=5")), "net.py on ranks .1. differs"),
        ("no model file", NET, without("net.py"), "no model 'net.py'"),
        (
            "another word",
            SPEECH,
            bytes_of("corpus/train/text", lambda c: c.replace(b"on", b"saw", 1)),
            "differ",
        ),
        ("another wav", SPEECH, put("corpus/train/u01.wav", GOOD), "differ"),
        (
            "an utterance less",
            SPEECH,
            all_of(
                *[
                    bytes_of(f"corpus/train/{n}", lambda c: c[: c[:-1].rindex(b"\n") + 1])
                    for n in ("text", "wav.scp", "utt2spk")
                ]
            ),
            "differ",
        ),
        ("another lexicon", SPEECH, add("corpus/lexicon.txt", "so s\n"), "differ"),
        (
            "another run", "evaluate imagerun --data images",
            setting("imagerun/config.json", "seed", 3),
            "--seed",
        ),
        (
            "another model.npz", "evaluate imagerun --data images",
            arrays("imagerun/model.npz", first(lambda a: a + 1)),
            "model.npz",
        ),
        (
            "another task.npz", "decode speechrun x.wav",
            plain_part("speechrun/task.npz", "word_penalty", -1.0),
            "differ|task.npz",
        ),
        (
            "other model.py", "evaluate imagerun --data images",
            swap("imagerun/model.py", "nn.Relu()", "nn.Tanh()"),
            "differ",
        ),
        (
            "other data to score", "evaluate imagerun --data images",
            bytes_of("images/t10k-images-idx3-ubyte", lambda c: c[:16] + c[16:][::-1]),
            "images",
        ),
        (
            "another wav to decode", "decode speechrun x.wav",
            put("x.wav", GOOD[:44] + bytes(len(GOOD) - 44)),
            "x.wav|differ",
        ),
        ("no wav to decode", "decode speechrun x.wav", without("x.wav"), "x.wav"),
    ):
        both = all_of(net(), put("x.wav", GOOD))
        yield Case("ranks", f"own files: {name}", words, said, both, 2, apart=apart)


def full() -> Iterator[Case]:
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
    refimpl = f"{shlex.quote(sys.executable)} -P -m mpi4py -m refimpl"
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
    refimpl = f"{shlex.quote(sys.executable)} -P -m mpi4py -m refimpl"
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


def files() -> Iterator[Case]:
    evaluate, decode = "evaluate imagerun --data images", "decode speechrun x.wav"

    def case(name: str, words: str, said: str | None, edit: Edit, **how) -> Case:
        return Case("files", name, words, said, all_of(put("x.wav", GOOD), edit), **how)

    model, speech = "imagerun/model.npz", "speechrun/model.npz"
    for name, change in {
        "NaN": first(with_first(np.nan)), "inf": first(with_first(np.inf)),
        "-inf": first(with_first(-np.inf)), "complex": first(lambda a: a.astype(complex)),
        "bool": first(lambda a: a > 0), "text": first(lambda a: a.astype(str)),
        "bytes": first(lambda a: a.astype("S8")), "integers": first(lambda a: a.astype(np.int32)),
        "float64": first(lambda a: a.astype(np.float64)),
        "float16": first(lambda a: a.astype(np.float16)),
        "big-endian": first(lambda a: a.astype(">f4")),
        "objects": first(lambda a: a.astype(object)),
        "dates": first(lambda a: a.astype("i8").astype("M8[s]")),
        "a structure": first(lambda a: np.zeros(a.shape, [("x", "f4")])),
        "one row less": first(lambda a: a[:-1]), "flat": first(np.ravel),
        "transposed": first(lambda a: a.T), "no rows": first(lambda a: a[:0]),
        "no dimension": first(lambda a: a.flat[0]),
        "one parameter less": lambda found: found.pop(next(iter(found))),
        "one parameter more": lambda found: found.update(more=np.zeros(3, np.float32)),
        "none": dict.clear,
    }.items():
        yield case(f"model.npz: {name}", evaluate, "imagerun/model.npz", arrays(model, change))
    yield case(
        "model.npz: NaN, speech",
        decode,
        "speechrun/model.npz",
        arrays(speech, first(with_first(np.nan))),
        ranks=2,
    )
    zeros = arrays(model, first(np.zeros_like), compressed=True)
    yield case("model.npz: compressed", evaluate, "imagerun/model.npz", zeros)
    yield case(
        "model.npz: column by column", evaluate, None, arrays(model, first(np.asfortranarray))
    )
    for name, change in {
        "half": lambda c: c[: len(c) // 2], "empty": lambda c: b"", "a text": lambda c: b"hello",
        "a flipped bit": lambda c: c[:300] + bytes([c[300] ^ 1]) + c[301:],
        "an npy": lambda c: _npy(np.zeros(3)), "a zip of nothing": lambda c: b"PK\5\6" + bytes(18),
        "a zip of a text": lambda c: _zip({"a.txt": b"hello"}),
        "an npy header of nonsense": lambda c: _zip({"a.npy": b"\x93NUMPY\1\0\4\0abcd"}),
        "an npy that claims 2^60": lambda c: _zip({"a.npy": _header("(1152921504606846976,)")}),
        "an npy of -1": lambda c: _zip({"a.npy": _header("(-1,)")}),
        "an npy of version 9": lambda c: _zip({"a.npy": b"\x93NUMPY\11\0\4\0abcd"}),
        "an npy of deep brackets": lambda c: _zip({"a.npy": _header("(" * 3000)}),
    }.items():
        for words, run in ((evaluate, "imagerun"), (decode, "speechrun")):
            file = "model.npz" if run == "imagerun" else "task.npz"
            edit = bytes_of(f"{run}/{file}", change)
            yield case(f"{file}: {name}", words, f"{run}/{file}", edit)
    for name in ("model.npz", "task.npz", "config.json", "model.py"):
        said = f"imagerun/{name}"
        yield case(
            f"no {name}",
            evaluate,
            said,
            without(f"imagerun/{name}"),
            ranks=2 if name == "task.npz" else 1,
        )
        yield case(f"{name} is a folder", evaluate, said, directory(f"imagerun/{name}"))
        yield case(f"{name} is a pipe", evaluate, said, fifo(f"imagerun/{name}"))
    yield case("no summary.json", evaluate, "imagerun", without("imagerun/summary.json"))
    no_summary = without("imagerun/summary.json")
    for name, content in {
        "deep": "[" * 100_000, "none": "", "a list": "[]", "running as text": '{"state": 7}',
        "a process of text": '{"state": "running", "host": "x", "process": "y"}',
        "a process of 10^30": f'{{"state": "running", "host": "{HOST}", "process": {10**30}}}',
        "a process of -1": f'{{"state": "running", "host": "{HOST}", "process": -1}}',
        "no UTF-8": b"\xff\xfe",
    }.items():
        edit = all_of(no_summary, put("imagerun/state.json", content))
        yield case(f"state.json: {name}", evaluate, "imagerun", edit)
    task = "speechrun/task.npz"
    for name, change in {
        "priors zero": entry("priors", with_first(0.0)),
        "priors negative": entry("priors", with_first(-0.5)),
        "priors NaN": entry("priors", with_first(np.nan)),
        "priors too few": entry("priors", lambda a: a[:-1]),
        "priors double": entry("priors", lambda a: 2 * a),
        "priors float32": entry("priors", lambda a: a.astype(np.float32)),
        "priors complex": entry("priors", lambda a: a.astype(complex)),
        "priors text": entry("priors", lambda a: a.astype(str)),
        "priors of two axes": entry("priors", lambda a: a[None]),
        "loops of 2": entry("loops", with_first(2.0)),
        "loops of 1": entry("loops", with_first(1.0)),
        "loops of 0": entry("loops", with_first(0.0)),
        "loops NaN": entry("loops", with_first(np.nan)),
        "loops too many": entry("loops", lambda a: np.append(a, 0.5)),
        "variance below 0": entry("inside_variance", with_first(-1.0)),
        "variance NaN": entry("speakers_variance", with_first(np.nan)),
        "mean inf": entry("inside_mean", with_first(np.inf)),
        "mean too short": entry("speakers_mean", lambda a: a[:-1]),
        "no plain part": lambda found: found.pop("plain"),
        "plain part of numbers": entry("plain", lambda a: np.zeros(3)),
        "plain part deep": entry("plain", lambda a: np.array("[" * 100_000)),
        "plain part a list": entry("plain", lambda a: np.array("[]")),
        "no priors": lambda found: found.pop("priors"),
        "one array more": lambda found: found.update(more=np.zeros(3)),
    }.items():
        yield case(f"task.npz: {name}", decode, "task.npz", arrays(task, change))
    for where, value in (
        ("format", 2), ("format", True), ("format", 1.0), ("format", None), ("format", DELETE),
        ("word_penalty", "x"), ("word_penalty", 1e300), ("word_penalty", None),
        ("word_penalty", float("nan")), ("pronunciations", {}), ("pronunciations", []),
        ("pronunciations", {"on": "ah"}), ("pronunciations", {"on": [[]]}),
        ("pronunciations", {"on": [["sil"]]}), ("pronunciations", DELETE), ("settings", {}),
        ("settings", []), ("settings.bands", 10**9), ("settings.bands", 41), ("settings.more", 3),
        ("settings.context", 4), ("settings.sample_rate", None), ("settings.sample_rate", 0),
        ("settings.silence", 3), ("settings.word_penalties", "x"), ("inside_frames", 0),
        ("inside_frames", "x"), ("speakers_frames", -1), ("speakers_frames", 1e30), ("more", 3),
        ("settings.cmvn", "all"), ("settings.acoustic_scale", 1e300),
    ):
        told = "DELETE" if value is DELETE else value
        yield case(
            f"task.npz: {where} {told}", decode, "speechrun", plain_part(task, where, value)
        )
    yield case(
        "task.npz: images, inputs 0",
        evaluate,
        "task.npz",
        plain_part("imagerun/task.npz", "inputs", 0),
    )
    yield case(
        "task.npz: images, inputs text",
        evaluate,
        "task.npz",
        plain_part("imagerun/task.npz", "inputs", "x"),
    )
    yield case(
        "task.npz: images, inputs 9",
        evaluate,
        "imagerun|inputs",
        plain_part("imagerun/task.npz", "inputs", 9),
    )
    yield case(
        "task.npz: images, inputs 10^9",
        evaluate,
        "imagerun|inputs|memory|parameters",
        plain_part("imagerun/task.npz", "inputs", 10**9),
    )
    config = "imagerun/config.json"
    for where, value in (
        ("seed", 1.5), ("seed", "1"), ("seed", None), ("seed", -1), ("seed", True), ("steps", "x"),
        ("steps", True), ("recipe", []), ("recipe", None), ("recipe.lr", None), ("recipe.lr", "x"),
        ("recipe.batch", "64"), ("recipe.batch", 0), ("recipe.task", "video"), ("recipe.more", 1),
        ("recipe.epochs", 1e3), ("recipe.task", DELETE), ("recipe.optimizer", "lbfgs"),
        ("recipe.settings", {"bands": 3}), ("recipe.settings", []), ("recipe.methods", {"x": 1}),
        ("options", []), ("options", {"hidden": 4}), ("options", {"hidden": "5"}),
        ("options", {"no": "5"}), ("options", {"hidden": "x"}), ("strategy", 5),
        ("strategy", "none"), ("methods", {"tau": "x"}), ("methods", []), ("dtype", "float16"),
        ("dtype", "float64"), ("dtype", 4), ("reduction", "sum"), ("collectives", "star"),
        ("ranks_per_node", 0), ("model", DELETE), ("model", 7), ("more", 3), ("data", 7),
        ("recipe.lr", 10**400), ("recipe.task", "acoustic"),
    ):
        told = "DELETE" if value is DELETE else str(value)[:20]
        yield case(
            f"config.json: {where} {told}",
            evaluate,
            "imagerun/(config.json|model.npz|task.npz)|option|model",
            setting(config, where, value),
        )
    for name, content in {
        "deep": "[" * 100_000, "deep objects": '{"a":' * 100_000, "none": "", "a list": "[]",
        "no JSON": "hello", "null": "null", "NaN": "NaN", "no UTF-8": b"\xff\xfe{}",
        "twice a key": '{"model": 1, "model": "mlp"}', "a number of 10,000 digits": "9" * 10_000,
    }.items():
        yield case(f"config.json: {name}", evaluate, "imagerun/config.json", put(config, content))
    for name, new, said in (
        ("raises", "raise ValueError('mine')\n", "model.py.*mine"),
        ("exits", "raise SystemExit(0)\n", "model.py"),
        ("os._exit", "import os; os._exit(0)\n", "model.py"),
        ("is nonsense", "def build(:\n", "model.py"), ("is empty", "", "model.py"),
        ("has a zero byte", "x = 1\n\0", "model.py"), ("is no UTF-8", b"# \xe9\n", "model.py"),
    ):
        yield case(f"model.py {name}", evaluate, said, put("imagerun/model.py", new))
    wider = swap("imagerun/model.py", "hidden=512", "hidden=512, more=3")
    yield case("model.py has one more option", evaluate, None, wider)
    other = swap("imagerun/model.py", '"digits"', '"other"')
    yield case("model.py has another name", evaluate, "imagerun/model.npz", other)

    check = "golden check theirs --against golden"
    manifest, held = "golden/layers/manifest.json", "golden/layers/arrays.npz"

    def golden(name: str, said: str | None, edit: Edit, words: str = check, **how) -> Case:
        theirs = lambda folder: shutil.copytree(folder / "golden", folder / "theirs")  # noqa: E731
        return Case("files", f"golden: {name}", words, said, all_of(theirs, edit), **how)

    yield golden("as it is", None, lambda folder: None)
    for where, value in (
        ("format", True), ("format", 1.0), ("format", "1"), ("format", 99), ("format", DELETE),
        ("rung", 99), ("rung", True), ("rung_name", "none"), ("bundle", "other"), ("bundle", 3),
        ("bundle", DELETE), ("cases", []), ("cases", {}), ("cases", DELETE), ("cases.0.name", 3),
        ("cases.0.name", ""), ("cases.0.arrays", []), ("cases.0.settings", []), ("more", 3),
        ("cases.0.arrays.0.shape", [-1]), ("cases.0.arrays.0.shape", [10**30]),
        ("cases.0.arrays.0.dtype", "<f16"), ("cases.0.arrays.0.dtype", "object"),
        ("cases.0.arrays.0.sha256", "0" * 64), ("cases.0.arrays.0.role", "guess"),
        ("cases.0.arrays.0.axes", ["x"] * 9), ("cases.0.arrays.0.name", "../../etc"),
        ("cases.0.operation", 3), ("cases.0.settings", {"x": float("nan")}), ("text", 3),
    ):
        told = "DELETE" if value is DELETE else str(value)[:20]
        yield golden(f"{where} {told}", "golden/layers|layers", setting(manifest, where, value))

    def outputs(value: object) -> Edit:
        def edit(folder: Path) -> None:
            plain = json.loads((folder / manifest).read_text())
            ruled = [one for case in plain["cases"] for one in case["arrays"] if "rule" in one]
            ruled[0] |= {"rule": "ulp", "ulp": "ULP"}
            text = json.dumps(plain).replace('"ULP"', str(value))
            (folder / manifest).write_text(text)

        return edit

    for value in ("1" + "0" * 400, "-1", "1e400", "NaN", '"x"', "true", "null"):
        yield golden(f"ulp {value[:8]}", "golden/layers", outputs(value))

    def doubled(folder: Path) -> None:
        plain = json.loads((folder / manifest).read_text())
        plain["cases"].append(plain["cases"][0])
        (folder / manifest).write_text(json.dumps(plain))

    yield golden("a case twice", "is there twice", doubled)
    for name, content in {
        "deep": "[" * 100_000, "none": "", "a list": "[]", "no UTF-8": b"\xff",
    }.items():
        yield golden(f"manifest: {name}", "golden/layers", put(manifest, content))
        yield golden(f"arrays: {name}", "golden/layers", put(held, content))
    yield golden("no manifest", "golden", without(manifest))
    yield golden("no arrays", "arrays.npz is missing", without(held))
    yield golden("a pipe as manifest", "golden", fifo(manifest))
    yield golden("a pipe as arrays", "golden/layers", fifo(held))
    yield golden("half the arrays", "golden/layers", bytes_of(held, lambda c: c[: len(c) // 2]))
    yield golden(
        "a bit", "golden/layers", bytes_of(held, lambda c: c[:500] + bytes([c[500] ^ 1]) + c[501:])
    )
    # What is theirs is measured, not refused: what is wrong is told for each array, exit code 1.
    theirs = "theirs/layers/arrays.npz"
    for name, edit in {
        "NaN": arrays(theirs, first(with_first(np.nan))),
        "complex": arrays(theirs, first(lambda a: a.astype(complex))),
        "objects": arrays(theirs, first(lambda a: a.astype(object))),
        "text": arrays(theirs, first(lambda a: a.astype(str))),
        "one row less": arrays(theirs, first(lambda a: a[:-1])), "no arrays": without(theirs),
        "half": bytes_of(theirs, lambda c: c[: len(c) // 2]),
        "a bit": bytes_of(theirs, lambda c: c[:500] + bytes([c[500] ^ 1]) + c[501:]),
        "a pipe": fifo(theirs), "a bomb": put(theirs, b""),
    }.items():
        yield golden(f"theirs: {name}", "", edit, codes=(0, 1) if "in" in name else (1,), lines=0)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def lines() -> Iterator[Case]:
    """Mistakes of all sorts on two ranks: one line, and none of the MPI's or the launcher's."""
    for words, said in (
        ("train mlp --lr 0 --out out", "--lr"), ("train nothing --out out", "nothing"),
        ("train mlp --data nowhere --out out", "nowhere"),
        ("train mlp --strategy mics --partition 3 --out out", "partition groups of 3"),
        ("train mlp --strategy serial --out out", "serial"),
        ("train mlp --out imagerun", "imagerun is not empty"),
        ("train mlp --data images --batch 1000 --out out", "frames|images|batch"),
        ("train mlp --data images --set hidden=4 --batch 4 --lr 1e30 --out out2", "diverged"),
        ("compare mlp --strategies none", "none"), ("evaluate nowhere --data images", "nowhere"),
        ("evaluate imagerun --data nowhere", "nowhere"), ("decode nowhere x.wav", "nowhere"),
        ("decode speechrun x.wav y.wav", "x.wav"), ("report nowhere", "nowhere|matplotlib"),
        ("golden check nowhere", "nowhere"), ("golden list --cases none.at.all", "none.at.all"),
        ("topology -n 0", "-n"), ("explain star", "star"), ("plan --preset none", "none"),
        ("bench --repeats 0", "--repeats"), ("data synth images", "images"),
        ("nothing", "nothing"), ("", "COMMAND"),
    ):
        yield Case("lines", f"2 ranks: {words}", words, said, ranks=2, begun="out2" in words)
    for words in ("--help", "--version", "train --help", "topology -n 4", "golden list"):
        yield Case("lines", f"2 ranks, said once: {words}", words, None, ranks=2)
    yield Case("lines", "4 ranks", "train mlp --lr 0 --out out", "--lr", ranks=4)
    words = "compare mlp --data images --set hidden=4 --batch 4 --steps 2"
    words += " --strategies serial,ddp --for 'ddp --lr 1e30'"
    yield Case("lines", "a row diverges", words, None, ranks=2)


# fmt: on
TABLE = (wavs, texts, words, places, models, numbers, ranks, full, files, lines)

# ------------------------------------------------------------------------------------- running


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
    refimpl = [sys.executable, "-P", "-m", "mpi4py", "-m", "refimpl"]
    if sys.version_info < (3, 11):
        refimpl.remove("-P")
    command = [launcher(), "-n", str(case.ranks), *refimpl, *words]
    if case.other is not None:
        other = shlex.split(case.other)
        command = [launcher(), "-n", "1", *refimpl, *words, ":", "-n", "1", *refimpl, *other]
    if case.apart is not None:
        theirs = folder.with_name(folder.name + "-rank1")
        shutil.copytree(folder, theirs)
        case.apart(theirs)
        command = [launcher()]
        for where in (folder, theirs):
            command += ["-wdir", str(where), "-n", "1", *refimpl, *words, ":"]
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
    cases = [case for part in TABLE for case in part()]
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
