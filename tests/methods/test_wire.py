"""Every message comes back as it was; bytes that are no message are an error, never an update."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refimpl.methods.gradient.gtc import codes, rice, wire
from refimpl.methods.gradient.gtc.bits import filled
from refimpl.methods.gradient.gtc.wire import FORMATS, HEADER_BYTES, MessageError
from refimpl.support.errors import UserError

TAU = 0.5


def words_of(*entries):
    """Return words of entries given as signed, one-based numbers: +3 is +tau at index 2."""
    return np.array([(abs(e) - 1) << 1 | (e > 0) for e in entries], np.uint32)


@st.composite
def messages(draw, longest=300):
    """Draw (n, words): any density, runs, the first and the last index among them."""
    n = draw(st.integers(0, longest))
    index = sorted(draw(st.sets(st.integers(0, max(0, n - 1)), max_size=n)) if n else [])
    plus = draw(st.lists(st.booleans(), min_size=len(index), max_size=len(index)))
    return n, np.array([2 * i + s for i, s in zip(index, plus, strict=True)], np.uint32)


# The bodies below were worked out by hand from the table in wire.py.
BY_HAND = {
    "index": [5, 0, 0, 0, 8, 0, 0, 0, 23, 0, 0, 0],
    # values      0 1 2 3   4 5 6 7   8 9 10 11   12
    #             . . + .   - . . .   . .  .  +
    "two-bit": [0b00001100, 0b10000000, 0b00000011, 0],
    # k = floor(log2(13/3)) = 2; gaps 2, 1, 6: remainders 10 01 10, quotients 0, 0, 1: 1 1 01
    "rice": [0b10100000, 0b10011000, 0b11010000],
}


@pytest.mark.parametrize("form", FORMATS)
def test_a_small_message_has_the_bytes_worked_out_by_hand(form):
    message = wire.encode(words_of(3, -5, 12), 13, TAU, form)
    k = 2 if form == "rice" else 0
    header = b"GTC1" + bytes([FORMATS.index(form), k, 0, 0])
    header += struct.pack("<IId", 13, 3, TAU)
    assert message.tobytes() == header + bytes(BY_HAND[form])


def test_bits_are_filled_up_with_zeros_to_bytes():
    assert [filled(bits) for bits in ("", "1", "00000001", "000000011")] == [
        b"",
        b"\x80",
        b"\1",
        b"\1\x80",
    ]


def plain_body(words, n, form):
    if form == "index":
        return struct.pack(f"<{words.size}I", *words.tolist())
    if form == "two-bit":
        return codes.plain(words, n)
    return rice.plain(words, rice.parameter(words.size, n))


@given(messages(), st.sampled_from(FORMATS))
def test_a_body_is_the_plain_one(message, form):
    n, words = message
    sent = wire.encode(words, n, TAU, form)
    assert sent[HEADER_BYTES:].tobytes() == plain_body(words, n, form)


@pytest.mark.parametrize(
    "form, n, density",
    [("two-bit", codes.PIECE // 2 + more, 0.2) for more in (-1, 0, 1)]
    + [("two-bit", codes.PIECE + 5, 0.001), ("two-bit", codes.PIECE // 2, 0)]
    # As many entries as a piece has, one less and one more: k = 0 and k = 1.
    + [("rice", rice.PIECE + more, 1) for more in (-1, 0, 1)]
    + [("rice", 2 * rice.PIECE + more, 0.5) for more in (-2, 0, 2, 40)],
)
def test_a_long_body_is_the_plain_one_wherever_pieces_end(form, n, density):
    rng = np.random.default_rng(4)
    index = np.sort(rng.permutation(n)[: round(n * density)])
    words = (index << 1 | rng.integers(0, 2, index.size)).astype(np.uint32)
    sent = wire.encode(words, n, TAU, form)
    assert sent[HEADER_BYTES:].tobytes() == plain_body(words, n, form)
    np.testing.assert_array_equal(wire.decode(sent, n)[1], words, strict=True)


@given(messages(), st.sampled_from(FORMATS))
def test_a_message_comes_back_as_it_was(message, form):
    n, words = message
    sent = wire.encode(words, n, TAU, form)
    header, got = wire.decode(sent, n, TAU)
    np.testing.assert_array_equal(got, words, strict=True)
    assert header[0] == form
    assert header[2:] == (n, words.size, TAU)
    assert sent.size == wire.size(words, n, form)
    least, most = wire.limits(n)
    assert least <= sent.size <= most


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("density", [1.0, 0.3, 0.01, 0.0001])
def test_long_messages_come_back_whatever_their_place_in_a_piece(form, density):
    n = 5 * rice.PIECE // 2 + 77
    rng = np.random.default_rng(3)
    index = np.flatnonzero(rng.random(n) < density)
    words = (index << 1 | rng.integers(0, 2, index.size)).astype(np.uint32)
    _, got = wire.decode(wire.encode(words, n, TAU, form), n)
    np.testing.assert_array_equal(got, words, strict=True)


@pytest.mark.parametrize("form", ["index", "rice"])
def test_the_last_index_of_31_bits_is_sent(form):
    words = words_of(1, -(2**31 - 70_000), 2**31)
    _, got = wire.decode(wire.encode(words, 2**31, TAU, form), 2**31)
    np.testing.assert_array_equal(got, words)


def test_a_message_can_be_written_at_any_byte_of_a_buffer():
    words = words_of(1, -2, 9)
    for form in FORMATS:
        buffer = np.zeros(200, np.uint8)
        place = slice(7, 7 + wire.size(words, 9, form))
        wire.encode(words, 9, TAU, form, out=buffer[place])
        np.testing.assert_array_equal(wire.decode(buffer[place], 9)[1], words)
        assert not buffer[:7].any()
        assert not buffer[place.stop :].any()


@given(messages())
def test_the_smallest_format_is_chosen(message):
    n, words = message
    sizes = {form: wire.encode(words, n, TAU, form).size for form in FORMATS}
    assert sizes[wire.choose(words, n, "smallest")] == min(sizes.values())
    assert sizes[wire.choose(words, n)] == min(sizes["index"], sizes["two-bit"])
    assert wire.choose(words, n, "rice") == "rice"


def test_two_bits_win_above_one_value_in_sixteen():
    words = np.arange(0, 2 * 64, 2, dtype=np.uint32)
    assert wire.choose(words, 16 * 64) == "index"  # equal sizes: the first
    assert wire.choose(words, 16 * 64 - 1) == "index"  # 255.75 bytes are 256
    assert wire.choose(words, 16 * 64 - 4) == "two-bit"


def test_the_rice_parameter_is_the_logarithm_of_the_density_rounded_down():
    for n in (1, 15, 16, 17, 1000, 2**31):
        for entries in {1, 2, 3, 4, 5, n // 2, n - 1, n} - {0}:
            if entries <= n:
                k = rice.parameter(entries, n)
                assert entries << k <= n < entries << k + 1


@pytest.mark.parametrize(
    "density, bits", [(0.1, 5.75), (0.01, 9.11), (0.005, 10.11), (0.001, 12.49)]
)
def test_rice_takes_the_bits_that_theory_gives(density, bits):
    n = 1_000_000
    rng = np.random.default_rng(5)
    index = np.flatnonzero(rng.random(n) < density)
    body = wire.size((index << 1).astype(np.uint32), n, "rice") - HEADER_BYTES
    assert 8 * body / index.size == pytest.approx(bits, rel=0.01)


def test_an_unknown_format_is_refused():
    with pytest.raises(UserError, match="no message format 'zip': choose one of auto, index"):
        wire.choose(words_of(1), 5, "zip")


# ---------------------------------------------------------------------------- hostile bytes


def message(form="index", words=None, n=13):
    return wire.encode(words_of(3, -5, 12) if words is None else words, n, TAU, form)


def refused(sent, match, n=13, tau=TAU):
    with pytest.raises(MessageError, match=match):
        wire.decode(np.asarray(sent, np.uint8), n, tau)


@pytest.mark.parametrize("form", FORMATS)
def test_a_message_that_is_cut_off_anywhere_or_too_long_is_refused(form):
    whole = message(form)
    for length in range(whole.size):
        refused(whole[:length], "no GTC message|not the body")
    for more in (0, 255):
        refused(np.append(whole, np.uint8(more)), "not the body")


@pytest.mark.parametrize("form", FORMATS)
def test_a_message_for_another_vector_or_threshold_is_refused(form):
    for n in (12, 14):
        refused(message(form), f"for 13 values, where {n} are needed", n=n)
    for tau in (0.25, 1.0):
        refused(message(form), f"with threshold 0.5, where it is {tau}", tau=tau)


@pytest.mark.parametrize(
    "first, value, match",
    [
        (0, b"GTC2", "begins with"),
        (4, b"\3", "unknown format 3"),
        (5, b"\1", "Rice parameter 1"),
        (7, b"\1", "reserved bytes 256"),
        (12, struct.pack("<I", 14), "a GTC message of 14 entries"),
        (12, struct.pack("<I", 2), "not the body"),
        (16, struct.pack("<d", 0.0), r"with threshold 0\.0$"),
        (16, struct.pack("<d", -0.5), r"with threshold -0\.5$"),
        (16, struct.pack("<d", float("nan")), "with threshold nan$"),
        (16, struct.pack("<d", float("inf")), "with threshold inf$"),
    ],
)
def test_a_wrong_header_is_refused(first, value, match):
    sent = message()
    sent[first : first + len(value)] = list(value)
    refused(sent, match)


def test_a_vector_longer_than_an_index_can_say_is_refused():
    sent = message()
    sent[8:12] = list(struct.pack("<I", 2**31 + 1))
    refused(sent, "for 2147483649 values", n=2**31 + 1)


@pytest.mark.parametrize("entries", [(3, 3, 12), (3, -3, 12), (5, 3, 12), (3, 5, 14)], ids=str)
def test_indices_that_repeat_fall_or_are_out_of_range_are_refused(entries):
    refused(message(words=words_of(*entries)), "out of range, or do not rise")


def test_a_two_bit_code_that_means_nothing_is_refused():
    sent = message("two-bit")
    sent[HEADER_BYTES] |= 0b01 << 6
    refused(sent, "code 01")


@pytest.mark.parametrize("entries", [2, 4])
def test_two_bit_codes_must_be_as_many_as_the_header_says(entries):
    sent = message("two-bit")
    sent[12] = entries
    refused(sent, f"3 entries .* says {entries} of 13")


def test_two_bit_codes_after_the_last_value_or_too_many_are_refused():
    sent = message("two-bit")
    sent[-1] |= 0b11 << 4  # value 13 of 0..12
    refused(sent, "4 entries .* says 3 of 13")
    sent = message("two-bit", words=words_of(3, -5))
    sent[-1] |= 0b11 << 4  # as many as the header says, but out of range
    sent[12] = 3
    refused(sent, "3 entries .* says 3 of 13")


@pytest.mark.parametrize("plane, used", [(0, 3), (1, 6)], ids=["signs", "remainders"])
def test_bits_that_fill_up_a_rice_plane_must_be_zero(plane, used):
    for bit in range(used, 8):
        sent = message("rice")
        sent[HEADER_BYTES + plane] |= 128 >> bit
        refused(sent, "where its planes are filled up")


def test_a_rice_message_with_more_or_fewer_quotients_is_refused():
    for bits in (0b11011000, 0b10010000, 0b11010001, 0):
        sent = message("rice")
        sent[-1] = bits
        refused(sent, "not the body|out of range")


def test_a_rice_message_with_an_index_out_of_range_is_refused():
    refused(message("rice", words=words_of(3, -5, 14)), "out of range")


def test_a_rice_message_longer_than_any_for_its_vector_is_refused_unread(monkeypatch):
    monkeypatch.setattr(np, "unpackbits", None)
    sent = np.concatenate([message("rice"), np.zeros(1000, np.uint8)])
    refused(sent, "not the body")


@settings(max_examples=150)
@given(messages(longest=40), st.sampled_from(FORMATS), st.data())
def test_a_flipped_bit_is_refused_or_still_a_message_for_this_vector(message, form, data):
    n, words = message
    sent = wire.encode(words, n, TAU, form)
    bit = data.draw(st.integers(0, 8 * sent.size - 1))
    sent[bit // 8] ^= 128 >> bit % 8
    try:
        header, got = wire.decode(sent, n, TAU)
    except MessageError:
        return
    # Not detected: then it is just what somebody else could have sent.
    np.testing.assert_array_equal(wire.encode(got, n, header.tau, header.format), sent)


@given(st.binary(max_size=80), st.integers(0, 100))
def test_random_bytes_are_refused(junk, n):
    refused(np.frombuffer(junk, np.uint8), "GTC message", n=n)
    refused(np.frombuffer(b"GTC1" + junk, np.uint8), "GTC message", n=n, tau=1e300)
