"""Recordings, the text files of a corpus, lexicons and segments."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.mistakes.case import (
    DECODE,
    IMAGES,
    SPEECH,
    Case,
    Edit,
    add,
    all_of,
    bytes_of,
    directory,
    fifo,
    put,
    swap,
    without,
)


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


# fmt: off
def wavs() -> Iterator[Case]:
    """Recordings."""
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
    """Text files of a corpus."""
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
    """Lexicons, segments, words that nobody knows."""
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
