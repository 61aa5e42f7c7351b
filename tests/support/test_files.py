"""Files that nobody should have written so are refused with what is wrong, in little memory."""

import io
import os
import resource
import zipfile
from pathlib import Path

import numpy as np
import pytest

from refimpl.golden import npz
from refimpl.golden.read import manifest
from refimpl.support.errors import UserError
from refimpl.support.files import append_line, load_arrays, read_text, save_arrays, write_whole


def an_npy(shape, content=b"", descr="<f4"):
    """The bytes of an npy file whose header says what one likes."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def an_archive(path, *contents, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as archive:
        for content in contents:
            archive.writestr("a.npy", content)
    return path


LIES = {
    "more": (an_npy((3,), b"1234" * 2), "claims 12 bytes and 8 follow"),
    "less": (an_npy((1,), b"1234" * 2), "claims 4 bytes and 8 follow"),
    "terabytes": (an_npy((10**12,), b"1234"), "claims 4,000,000,000,000 bytes and 4 follow"),
    "overflow": (an_npy((1 << 40, 1 << 40)), "claims 4,835,"),
    "negative": (an_npy((-1,), b"1234"), "claims -4 bytes"),
    "no tuple": (an_npy("3", b"1234" * 3), ""),
    "objects": (an_npy((1,), b"12345678", "|O"), "objects, which only pickle can read"),
    "deep": (b"\x93NUMPY\x01\x00\xff\x1f" + b"(" * 0x1FFF, ""),
    "other version": (b"\x93NUMPY\x09\x00" + b" " * 99, ""),
    "no npy": (b"hello", ""),
    "empty": (b"", ""),
}


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make):
    path = tmp_path / "layers" / "manifest.json"
    path.parent.mkdir()
    make(path)
    for read in (load_arrays, read_text, lambda path: manifest(path.parent)):
        with pytest.raises(UserError, match="manifest.json: it is not a file"):
            read(path)
    with pytest.raises(npz.Damaged, match="not a file"):
        npz.read(path)


def test_a_text_is_read_with_what_windows_puts_in_front(tmp_path):
    path = tmp_path / "net.py"
    path.write_bytes(b"\xef\xbb\xbfx = 1\n")
    assert read_text(path) == "x = 1\n"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="^cannot read .*net.py: .*utf-8"):
        read_text(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("lie", LIES)
def test_an_array_that_is_not_what_its_header_says_is_refused(tmp_path, lie):
    content, said = LIES[lie]
    path = an_archive(tmp_path / "x.npz", content)
    with pytest.raises(UserError, match=f"^cannot read .*x.npz: .*{said}") as error:
        load_arrays(path)
    assert "\n" not in str(error.value)
    assert npz.read(path).arrays == {} and said in npz.read(path).damaged["a"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path):
    path = an_archive(tmp_path / "x.npz", an_npy((1,), b"1234"), an_npy((1,), b"5678"))
    with pytest.raises(UserError, match="x.npz: a is compressed or there twice"):
        load_arrays(path)


def test_a_small_archive_that_swells_to_gigabytes_takes_no_memory(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(3):
            with archive.open(f"a{number}.npy", "w", force_zip64=True) as member:
                member.write(an_npy((1 << 27,)))
                for _ in range(512):
                    member.write(bytes(1 << 20))
    (tmp_path / "x.npz").write_bytes(file.getvalue())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="a0 is compressed or there twice"):
        load_arrays(tmp_path / "x.npz")
    with pytest.raises(npz.Damaged, match=r"too large: it claims 1,610,\d+,\d+ bytes"):
        npz.read(tmp_path / "x.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


def test_arrays_come_back_with_their_shapes_and_can_be_changed(tmp_path):
    arrays = {
        "one": np.arange(6.0).reshape(2, 3),
        "by column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "none": np.zeros((0, 3)),
        "number": np.array(3),
        "text": np.array("two words"),
    }
    save_arrays(tmp_path / "x.npz", arrays.items())
    found = load_arrays(tmp_path / "x.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and np.array_equal(found[name], array)
        found[name][...] = 0


def test_a_line_is_appended_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "lines"
    append_line(path, "one")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limit[1]))
    try:
        with pytest.raises(UserError, match="^cannot write .*lines: File too large: raise"):
            append_line(path, "two and much more")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_text() == "one\n"
    append_line(path, "three")
    assert path.read_text() == "one\nthree\n"
    with pytest.raises(UserError, match="/dev/full: No space left on device: give another"):
        write_whole(Path("/dev/full"), b"x")
