"""Data directories: what is read, and every way in which they can be wrong."""

import os

import numpy as np
import pytest
from scipy.io import wavfile

from refimpl.support.errors import UserError
from refimpl.tasks.acoustic.kaldi import read_data_directory

FILES = {
    "wav.scp": "b wavs/b.wav\na wavs/a.wav\n",
    "text": "a one two\nb three\n",
    "utt2spk": "a anna\nb bert\n",
}
SEGMENTED = {
    "wav.scp": "rec wavs/a.wav\n",
    "segments": "a rec 0.0 0.25\nb rec 0.25 -1\n",
    "text": FILES["text"],
    "utt2spk": FILES["utt2spk"],
}


def directory(folder, **changed):
    """Write a sound data directory of two utterances, some of its files changed or left out."""
    (folder / "wavs").mkdir(parents=True)
    for name in ("a", "b"):
        wavfile.write(folder / "wavs" / f"{name}.wav", 8000, np.zeros(4000, dtype=np.int16))
    for name, text in {**FILES, **changed}.items():
        if text is not None:
            (folder / name.replace("_", ".")).write_text(text)
    return folder


def test_utterances_come_sorted_with_all_that_is_known(tmp_path):
    a, b = read_data_directory(directory(tmp_path))
    assert (a.name, a.speaker, a.words) == ("a", "anna", ("one", "two"))
    assert (b.name, b.speaker, b.words) == ("b", "bert", ("three",))
    assert a.wav == str(tmp_path / "wavs" / "a.wav")
    assert (a.start, a.end, a.phones) == (0.0, None, None)


def test_segments_cut_utterances_from_recordings(tmp_path):
    a, b = read_data_directory(directory(tmp_path, **SEGMENTED))
    assert (a.wav, a.start, a.end) == (str(tmp_path / "wavs" / "a.wav"), 0.0, 0.25)
    assert (b.wav, b.start, b.end) == (a.wav, 0.25, None)


def test_ctm_gives_phones_in_order_of_time(tmp_path):
    ctm = "a 1 0.2 0.1 ah\nb 1 0 0.5 iy\na 1 0.0 0.2 w\n"
    a, b = read_data_directory(directory(tmp_path, ctm=ctm))
    assert [a.phones.names, a.phones.starts.tolist()] == [("w", "ah"), [0.0, 0.2]]
    assert [b.phones.names, b.phones.ends.tolist()] == [("iy",), [0.5]]
    assert a.phones.ends.tolist() == [0.2, 0.2 + 0.1]


def test_phones_that_start_together_stay_in_the_order_of_lines(tmp_path):
    ctm = "b 1 0.1 0 z\na 1 0.1 0 w\nb 1 0.1 0.2 iy\nb 1 0 0.1 ah\n"
    a, b = read_data_directory(directory(tmp_path, ctm=ctm))
    assert (a.phones.names, b.phones.names) == (("w",), ("ah", "z", "iy"))


def test_tabs_and_blank_lines_are_fine(tmp_path):
    a, _ = read_data_directory(directory(tmp_path, text="\na\tone  two\n\nb three\n"))
    assert a.words == ("one", "two")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"wav.scp": None}, "has no wav.scp: it needs wav.scp, text and utt2spk"),
        ({"text": None}, "has no text"),
        ({"utt2spk": None}, "has no utt2spk"),
        ({"text": "\n"}, "text is empty"),
        ({"text": "a one\na two\nb three\n"}, "text:2: a is there twice, first in line 1"),
        ({"text": "a one\nb\n"}, "text:2: b stands alone: it needs words"),
        ({"text": "a one\n"}, "b is in .*utt2spk but not in .*text"),
        ({"utt2spk": "a anna\n"}, "b is in .*text but not in .*utt2spk"),
        ({"wav.scp": "a wavs/a.wav\n"}, "b is in .*text but not in .*wav.scp"),
        ({"wav.scp": "a sox x.flac -t wav - |\nb wavs/b.wav\n"}, "scp:1: .* a is a pipe"),
        ({"wav.scp": "a wavs/a.wav\nb wavs/c.wav\n"}, "scp:2: recording b: no file .*c.wav"),
        ({**SEGMENTED, "segments": "a rec 0 0.2\nb new 0 1\n"}, "segments:2: .*cut from new"),
        ({**SEGMENTED, "segments": "a rec 0.5 0.2\nb rec 0 1\n"}, "segments:1: .*0.5 to 0.2"),
        ({**SEGMENTED, "segments": "a rec 0.2 0.2\nb rec 0 1\n"}, "segments:1: .*0.2 to 0.2"),
        ({**SEGMENTED, "segments": "a rec 0 x\nb rec 0 1\n"}, "segments:1: 0 x are not numbers"),
        ({**SEGMENTED, "segments": "a rec 0 1e305\nb rec 0 1\n"}, "segments:1: .*numbers below 1"),
        ({**SEGMENTED, "segments": "a rec 0\nb rec 0 1\n"}, "segments:1: a needs a recording"),
        ({**SEGMENTED, "segments": "a rec 0 1\n"}, "b is in .*text but not in .*segments"),
        ({"ctm": "a 1 0 1 ah\nb 1 0\n"}, "ctm:2: b 1 0 is not `utterance"),
        ({"ctm": "a 1 0 -1 ah\nb 1 0 1 ah\n"}, "ctm:1: .*must not be negative"),
        ({"ctm": "a 1 0 1 ah\n"}, "b is in .*text but not in .*ctm"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, changed, message):
    with pytest.raises(UserError, match=message) as error:
        read_data_directory(directory(tmp_path, **changed))
    assert "\n" not in str(error.value)


def written(folder, name, text):
    (folder / name).write_bytes(text.encode())


def test_files_of_windows_are_those_without_its_marks(tmp_path):
    want = read_data_directory(directory(tmp_path / "plain"))
    folder = directory(tmp_path / "marked")
    for name, text in FILES.items():
        written(folder, name, "\ufeff" + text.replace("\n", "\r\n"))
    got = read_data_directory(folder)
    assert [one._replace(wav="") for one in got] == [one._replace(wav="") for one in want]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\xa0", "\x1c", "\u3000"])
def test_a_line_ends_at_a_newline_and_a_field_at_a_blank_and_nowhere_else(tmp_path, odd):
    folder = directory(tmp_path)
    written(folder, "text", f"a one {odd}two\nb{odd} three\n")
    written(folder, "utt2spk", f"a anna\nb{odd}\tbert\n")
    written(folder, "wav.scp", f"b{odd} wavs/b.wav\na wavs/a.wav\n")
    a, b = read_data_directory(folder)
    assert a.words == ("one", f"{odd}two") and (b.name, b.line) == (f"b{odd}", 2)


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path):
    folder = directory(tmp_path)
    (folder / "text").write_bytes(b"a one two\nb dr\xfei\n")
    with pytest.raises(UserError, match="text:2: this is not UTF-8"):
        read_data_directory(folder)


def test_a_name_ends_at_the_first_blank_whatever_stands_behind_it(tmp_path):
    folder = directory(tmp_path, text="a one\ttwo\nb\t three\n")
    a, b = read_data_directory(folder)
    assert a.words == ("one", "two") and b.words == ("three",)


def test_long_lines_are_bounded_and_so_are_messages(tmp_path):
    folder = directory(tmp_path, text="a " + "one " * 300_000 + "\nb three\n")
    with pytest.raises(UserError, match="text:1: a line of 1200001 characters") as error:
        read_data_directory(folder)
    assert len(str(error.value)) < 500
    name = "n" * 500_000
    written(folder, "text", f"a one\n{name} three\n")
    written(folder, "wav.scp", f"a wavs/a.wav\n{name} {name}\n")
    with pytest.raises(UserError) as error:
        read_data_directory(folder)
    assert len(str(error.value)) < 4000


def test_mistakes_are_told_together(tmp_path):
    folder = directory(tmp_path, text="a one\na two\nc\n", utt2spk="a\n", ctm="b 1 x 1 ah\n")
    with pytest.raises(UserError) as error:
        read_data_directory(folder)
    text = str(error.value)
    assert text.startswith("(1) ") and "text:2: a is there twice" in text
    assert "text:3: c stands alone" in text and text.endswith("; and 1 more")


def test_a_named_pipe_or_a_folder_or_an_endless_name_is_no_recording(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in ("pipe.wav", "wavs", "x" * 5000, "a\0b"):
        folder = tmp_path if (tmp_path / "text").exists() else directory(tmp_path)
        written(folder, "wav.scp", f"a wavs/a.wav\nb {path}\n")
        with pytest.raises(UserError, match="scp:2: recording b: no file .* no named pipe"):
            read_data_directory(folder)


def test_missing_and_empty_directories_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no data directory .*nowhere"):
        read_data_directory(tmp_path / "nowhere")
    with pytest.raises(UserError, match="has no wav.scp"):
        read_data_directory(tmp_path)
