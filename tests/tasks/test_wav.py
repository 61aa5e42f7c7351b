"""Recordings: what is read, to the sample, and what is refused, by the file's name."""

import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic.wav import read_wav


def test_float_and_integer_recordings_of_one_sound_are_equal(tmp_path):
    samples = np.array([0, 1, -1, 32767, -32768], dtype=np.int16)
    wavfile.write(tmp_path / "i.wav", 16000, samples)
    wavfile.write(tmp_path / "f.wav", 16000, (samples / 32768).astype(np.float32))
    rate, integers = read_wav(str(tmp_path / "i.wav"))
    assert rate == 16000 and integers.dtype == np.float32
    np.testing.assert_array_equal(integers, samples)
    np.testing.assert_array_equal(read_wav(str(tmp_path / "f.wav"))[1], samples)


def test_unknown_chunks_are_skipped(tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, np.arange(10, dtype=np.int16))
    riff = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(riff[:12] + b"odd \x04\0\0\0abcd" + riff[12:])
    np.testing.assert_array_equal(read_wav(str(tmp_path / "b.wav"))[1], np.arange(10))


@pytest.mark.parametrize("length", [0, 3, 4, 12, 20, 36, 40, 44, 45, 100, -2, -1])
def test_a_recording_cut_short_anywhere_is_refused(tmp_path, length):
    wavfile.write(tmp_path / "a.wav", 8000, np.arange(1000, dtype=np.int16))
    riff = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(riff[:length])
    with pytest.raises(UserError, match="a.wav is truncated or not a RIFF wav file"):
        read_wav(str(tmp_path / "a.wav"))


@pytest.mark.parametrize(
    "samples, message",
    [
        (np.zeros((100, 2), dtype=np.int16), "2 channels, mono is needed"),
        (np.zeros(100, dtype=np.int32), "holds 32-bit integer samples"),
        (np.zeros(100, dtype=np.uint8), "holds 8-bit integer samples"),
    ],
)
def test_other_channels_and_widths_are_refused(tmp_path, samples, message):
    wavfile.write(tmp_path / "a.wav", 8000, samples)
    with pytest.raises(UserError, match=message):
        read_wav(str(tmp_path / "a.wav"))


def chunk(name, content, size=None):
    """A chunk that says it has so many bytes."""
    return name + struct.pack("<I", len(content) if size is None else size) + content


def fmt(kind=1, channels=1, rate=8000, align=2, bits=16, more=b""):
    return chunk(b"fmt ", struct.pack("<HHIIHH", kind, channels, rate, 0, align, bits) + more)


SAMPLES = np.arange(100, dtype="<i2") * 7
DATA = SAMPLES.tobytes()
LIST = chunk(b"LIST", b"INFOISFT\x06\0\0\0tool1\0")


def written(folder, *chunks, riff=None):
    """Write a file of these chunks whose RIFF size is right, off by so much, or absolutely so."""
    body = b"WAVE" + b"".join(chunks)
    size = len(body) if riff is None else riff if riff >= 0 else len(body) - riff
    path = folder / "a.wav"
    path.write_bytes(b"RIFF" + struct.pack("<I", size) + body)
    return str(path)


@pytest.mark.parametrize(
    "size, riff",
    [
        (None, 0),  # a recorder that never went back
        (0, 0),
        (0, 36),  # it had written the header of an empty file
        (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg's pipe
        (0xFFFFFFFF - 36, 0xFFFFFFFF),
        (0x7FFFF000 - 36, 0x7FFFF024),  # sox's
        (0x80000000, 0x80000024),  # arecord's
        (None, -8),  # who counts "RIFF" and the size as well
        (None, 36),
    ],
)
def test_sizes_that_were_never_filled_in_are_read_to_the_end(tmp_path, size, riff):
    for before in (b"", LIST):
        path = written(tmp_path, before, fmt(), chunk(b"data", DATA, size), riff=riff)
        rate, samples = read_wav(path)
        assert rate == 8000
        np.testing.assert_array_equal(samples, SAMPLES)


def test_a_stopped_recording_loses_the_sample_it_was_stopped_in(tmp_path):
    path = written(tmp_path, fmt(), chunk(b"data", DATA + b"x", 0xFFFFFFFF), riff=0)
    np.testing.assert_array_equal(read_wav(path)[1], SAMPLES)


def test_what_stands_behind_the_samples_is_not_heard(tmp_path):
    for tail in (LIST, b"TAG" + b"x" * 125, chunk(b"LIST", b"INFOabcde"), b"\0" * 13):
        path = written(tmp_path, fmt(), chunk(b"data", DATA), tail)
        np.testing.assert_array_equal(read_wav(path)[1], SAMPLES)
    empty = written(tmp_path, fmt(), chunk(b"data", b""), LIST)
    assert read_wav(empty)[1].size == 0, "a size of 0 in a file whose own size is right is true"


def test_an_extensible_header_is_understood(tmp_path):
    more = struct.pack("<HHIH", 22, 16, 4, 1) + bytes(14)
    path = written(tmp_path, fmt(0xFFFE, more=more), chunk(b"data", DATA))
    np.testing.assert_array_equal(read_wav(path)[1], SAMPLES)


@pytest.mark.parametrize(
    "chunks, message",
    [
        ([fmt(channels=0), chunk(b"data", DATA)], "has 0 channels"),
        ([fmt(bits=0), chunk(b"data", DATA)], "holds 0-bit integer samples"),
        ([fmt(bits=15), chunk(b"data", DATA)], "holds 15-bit integer samples"),
        ([fmt(kind=7, bits=8, align=1), chunk(b"data", DATA)], "holds 8-bit mu-law samples"),
        ([fmt(kind=99), chunk(b"data", DATA)], "holds 16-bit format 99 samples"),
        ([fmt(align=0), chunk(b"data", DATA)], "takes 0 bytes .block align"),
        ([fmt(rate=0), chunk(b"data", DATA)], "is sampled at 0 hertz"),
        ([fmt(rate=4_000_000_000), chunk(b"data", DATA)], "is sampled at 4000000000 hertz"),
        ([chunk(b"fmt ", b"x" * 10), chunk(b"data", DATA)], "fmt chunk of 10 bytes: 16 are"),
        ([chunk(b"data", DATA), fmt()], "data chunk stands before its fmt chunk"),
        ([chunk(b"junk", b"x", 1 << 31), fmt()], "chunk b'junk' of 2147483648 bytes ends behind"),
        ([chunk(b"junk", b"")] * 1001, "more than 1000 chunks before its samples"),
        ([fmt(), LIST], "it ends at byte .*, before its samples"),
        ([fmt(), chunk(b"data", DATA, 208)], "200 bytes of samples are left of 208"),
        ([fmt(), chunk(b"data", DATA + b"x")], "it ends in the middle of a sample"),
    ],
)
def test_a_header_that_cannot_be_is_refused_by_name(tmp_path, chunks, message):
    with pytest.raises(UserError, match=f"a.wav.* .*{message}"):
        read_wav(written(tmp_path, *chunks))


@pytest.mark.parametrize("begin", [b"RIFX", b"RF64", b"fLaC", b"NIST"])
def test_other_kinds_of_files_are_refused(tmp_path, begin):
    path = written(tmp_path, fmt(), chunk(b"data", DATA))
    Path(path).write_bytes(begin + Path(path).read_bytes()[4:])
    with pytest.raises(UserError, match="a.wav is truncated or not a RIFF wav file"):
        read_wav(path)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path):
        with pytest.raises(UserError, match=f"{path.name} is not a file"):
            read_wav(str(path))


def test_a_file_longer_than_memory_is_named(tmp_path, monkeypatch):
    def full(*args):
        raise MemoryError

    monkeypatch.setattr(np, "fromfile", full)
    with pytest.raises(UserError, match="a.wav is too long for this machine's memory"):
        read_wav(written(tmp_path, fmt(), chunk(b"data", DATA)))


@given(st.binary(max_size=60), st.integers(0, 80))
def test_no_bytes_end_in_anything_but_sound_or_a_refusal(noise, at):
    with tempfile.TemporaryDirectory() as folder:
        path = written(Path(folder), fmt(), chunk(b"data", DATA))
        text = bytearray(Path(path).read_bytes())
        text[at : at + len(noise)] = noise
        Path(path).write_bytes(text)
        try:
            samples = read_wav(path)[1]
        except UserError as error:
            assert "a.wav" in str(error)
        else:
            assert samples.dtype == np.float32


def test_a_recording_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="no file .*x.wav"):
        read_wav(str(tmp_path / "x.wav"))
