"""safetensors files: what is written is read, by the library too, and lies are refused."""

import json
import struct

import numpy as np
import pytest

from refimpl.support.safetensors import TYPES, load_safetensors, save_safetensors

ARRAYS = {
    "a/matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "by column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">i4"),
    "number": np.array(0.5),
    "none": np.zeros((0, 3), np.uint8),
    **{name: np.ones(3, dtype) for name, dtype in TYPES.items()},
    "last, and none": np.zeros(0, np.float32),
}


def saved(path, arrays=ARRAYS):
    save_safetensors(path, {n: (a.dtype, a.shape) for n, a in arrays.items()}, arrays.items())
    return path


def a_file(path, header, data=b""):
    """A file whose header says what one likes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def same(found):
    for name, array in ARRAYS.items():
        want = array.astype(array.dtype.newbyteorder("<"))
        np.testing.assert_array_equal(found[name], want, strict=True)
    assert len(found) == len(ARRAYS)


def test_what_was_written_is_read(tmp_path):
    found = load_safetensors(saved(tmp_path / "x.safetensors"))
    same(found)
    assert list(found) == list(ARRAYS) and all(a.flags.writeable for a in found.values())


def test_the_library_reads_ours_and_we_read_the_librarys(tmp_path):
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    same(library.load_file(saved(tmp_path / "ours")))
    native = {n: np.ascontiguousarray(a, a.dtype.newbyteorder("=")) for n, a in ARRAYS.items()}
    native["number"] = np.array(0.5)
    library.save_file(native, tmp_path / "theirs", {"made": "elsewhere"})
    same(load_safetensors(tmp_path / "theirs"))


def one(**changed):
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changed}


LIES = {
    "empty": (None, b"", "its header claims 0 bytes and 0 follow"),
    "short": (None, b"1234", "its header claims .* bytes and 0 follow"),
    "no such file": (None, b"\x93NUMPY\1\0...", "its header claims .* bytes and 3 follow"),
    "no JSON": (b"{a}", b"", "Expecting"),
    "no UTF-8": (b'{"\xff"}', b"", "utf-8"),
    "half a pair": (
        b'{"\\ud800": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}',
        b"",
        "surrogates",
    ),
    "deep": (b"[" * 10**5, b"", "nested too deeply"),
    "no object": ([1], b"", "is no JSON object"),
    "no entry": ({"a": 3}, b"", "a has the dtype None"),
    "twice": (b'{"a": 1, "a": 1}', b"", "has a name twice"),
    "bfloat16": (one(dtype="BF16"), b"12345678", "a has the dtype 'BF16', read are F64, F32"),
    "a list as dtype": (one(dtype=[]), b"12345678", r"a has the dtype \[\]"),
    "negative": (one(shape=[-2]), b"12345678", "no shape and data_offsets of whole numbers"),
    "true": (one(shape=[True]), b"12345678", "no shape and data_offsets of whole numbers"),
    "one offset": (one(data_offsets=[0]), b"12345678", "no shape and data_offsets of whole"),
    "more": (one(shape=[3]), b"12345678", r"a of 12 bytes is said to be at \[0, 8\]"),
    "terabytes": (one(shape=[10**12], data_offsets=[0, 4 * 10**12]), b"1234", "a of 4,000,000,"),
    "cut": (one(), b"1234", r"a of 8 bytes is said to be at \[0, 8\], in data of 4 bytes"),
    "a hole": (one(data_offsets=[4, 12]), b"123456789012", r"at \[4, 12\], in data of 12 bytes"),
    "overlapping": (one() | {"b": one()["a"]}, b"12345678", "b of 8 bytes .* 8 of them taken"),
    "rest": (one(), b"123456789", "1 bytes at its end belong to no array"),
    "huge none": (one(shape=[0, 10**40], data_offsets=[0, 0]), b"", "no shape and"),
    "100 axes": (one(shape=[1] * 100, data_offsets=[0, 4]), b"1234", "."),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_is_not_what_its_header_says_is_refused(tmp_path, lie):
    header, data, said = LIES[lie]
    path = tmp_path / "x"
    path.write_bytes(data) if header is None else a_file(path, header, data)
    with pytest.raises(ValueError, match=said):
        load_safetensors(path)


def test_a_file_cut_anywhere_is_refused_and_one_with_a_bit_turned_no_other_exception(tmp_path):
    path = saved(tmp_path / "x")
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place])
        with pytest.raises(ValueError):
            load_safetensors(path)
        turned = bytearray(whole)
        turned[place] ^= 1 << place % 8
        path.write_bytes(turned)
        try:
            load_safetensors(path)
        except ValueError:
            continue
