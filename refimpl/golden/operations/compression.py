"""What GTC, one bit per value and chunked top-k send, and what stays behind."""

from __future__ import annotations

from refimpl.golden.operations.declared import Operation, Setting, detail, given, out
from refimpl.methods.gradient.gtc.header import FORMATS
from refimpl.methods.gradient.gtc.wire import CHOICES

TAU = Setting("tau", "number", "the threshold, in units of the gradient's sum; a float32 number")
N = Setting("n", "integer", "values that a message is about")
RANKS = Setting("ranks", "integer", "ranks of the group")

ENCODE = """
r = residual before the step + gradient                          float32
r >  tau:  entry +tau, r = r - tau           strictly: a residual of exactly tau stays
r < -tau:  entry -tau, r = r + tau
word = index << 1 | (1 for +tau, 0 for -tau); words rise with their index
"""
MESSAGE = """
numbers little-endian; in a byte the most significant bit first; what fills up a byte is 0
bytes 0-3    "GTC1"
      4      format: 0 index, 1 two-bit, 2 rice
      5      c of rice; 0 in the other formats
      6-7    0
      8-11   n                                  uint32
      12-15  m, the number of entries           uint32
      16-23  tau                                float64
body:
  index      m words, uint32
  two-bit    n codes of 2 bits: 00 nothing, 11 +tau, 10 -tau
  rice       c = floor(log2(floor(n / m))), 0 for m = 0; the gap of an entry is its index less
             the index before it less 1 (the first: its index); three planes, each filled up to
             a byte: m signs (1 for +tau); m remainders, gap mod 2^c, of c bits; m quotients,
             gap >> c, each as so many zeros and a one
"""
CHOSEN = """
a total of zero is +0.0
format auto: the smaller of index and two-bit; at equal size index; smallest: of all three
"""
ONEBIT = """
a = mean of |x|, its sum in float64, rounded to float32; 0 for no values
message: a as float64 (8 bytes, little-endian), then a bit for each value, 1 where x >= 0,
most significant bit first, filled up with 0;  Q(x) = +a where the bit is 1, else -a
"""
COLUMNS = """
columns: shapes lie end to end in a vector; of each, neighbours along its last axis are a column,
  and so is what a chunk has of one.  In a column
low = mean of x < 0, high = mean of x >= 0, sums in float64, rounded to float32; of no values: 0
message of a chunk: low and high of each column as float32, little-endian, then a bit for each
value, 1 where x >= 0, most significant bit first, filled up with 0;  Q(x) = high or low
"""
TOPK = """
message of E entries in C chunks, little-endian: places in their chunks, E uint16; then E float32,
or with two_bit log2 t of each chunk, C int16 (-32768 for t = 0), and E codes of two bits: minus?,
3/2?, most significant bit first, filled up with 0
"""
REFUSED = """
accepted: the bytes are a message to the last bit, as it is written here,
"""
WHAT = Setting("what", "array", "what each message is: the first as written, then what is wrong")

MOST = Setting("most", "integer", "entries of a chunk")
LENGTH = Setting("length", "integer", "values of a chunk")
TWO_BIT = Setting("two_bit", "boolean", "whether values are sent in two bits")


def accepts(name: str, message: str, further: str, *settings: Setting) -> Operation:
    """Return the operation that says of several messages whether they are any."""
    return Operation(
        name,
        "Whether what came is a message: what cannot have been written must be refused.",
        message + REFUSED + further,
        (
            given("message", "|u1", "message byte", "filled up with zeros to the longest"),
            given("message_size", "<i8", "message", "bytes of each"),
            out("accepted", "<i8", "message", "1, or 0 where it is refused"),
        ),
        settings,
    )


OPERATIONS = (
    Operation(
        "gtc_encode",
        "Residuals after each step, and what was sent of them.",
        "for each step:\n" + ENCODE,
        (
            given("gradient", "<f4", "step element", "summed over the worker's frames"),
            given("residual", "<f4", "element", "before the first step"),
            out("entries", "<i8", "step", "how many words there are"),
            out("words", "<u4", "step entry", "filled up with zeros to the longest"),
            out("residual_after", "<f4", "step element", "r"),
        ),
        (TAU,),
    ),
    Operation(
        "gtc_message",
        "Words as the bytes of a message.",
        MESSAGE,
        (
            given("words", "<u4", "entry", "rising"),
            out("message", "|u1", "byte", "header and body"),
        ),
        (N, TAU, Setting("format", {"enum": [*FORMATS]}, "of the body")),
    ),
    Operation(
        "gtc_decode",
        "What a message says.",
        "values[i] = +tau or -tau for the words' entries, 0 elsewhere\n" + MESSAGE,
        (
            given("message", "|u1", "byte", "header and body"),
            out("words", "<u4", "entry", "those that were written"),
            out("values", "<f4", "element", "what they stand for"),
        ),
        (N, TAU),
    ),
    Operation(
        "gtc_exchange",
        "What all ranks make of each other's messages, step after step.",
        "for each step, on every rank, residuals 0 at first:\n"
        + ENCODE
        + "total = (ranks that sent +tau less those that sent -tau), an integer, times tau\n"
        + CHOSEN
        + MESSAGE,
        (
            given("gradient", "<f4", "step rank element", "of each rank, summed over its frames"),
            out("residual", "<f4", "step rank element", "r after the step"),
            detail("message_size", "<i8", "step rank", "bytes of the message"),
            detail("message", "|u1", "step rank byte", "filled up with zeros to the longest"),
            out("total", "<f4", "step rank element", "equal on all ranks"),
        ),
        (TAU, Setting("format", {"enum": [*CHOICES]}, "of the messages"), RANKS),
    ),
    Operation(
        "gtc_adapt",
        "The threshold after each step, steered to a density.",
        """
for each step:  entries > target n:  tau = tau / f          f = 0.9659363289248456
                entries < target n:  tau = tau f            (0.5 ^ (1/20); equal: tau stays)
                tau = tau rounded to float32, within its normal numbers, before the next step
""",
        (
            given("entries", "<i8", "step", "what all ranks sent in the step"),
            out("tau", "<f8", "step", "after the step: a float32 number, written as float64"),
        ),
        (
            Setting("tau", "number", "before the first step"),
            Setting("target", "number", "the density to hold"),
            Setting("n", "integer", "values that could have been sent in a step"),
        ),
    ),
    Operation(
        "gtc_sparse",
        "What is sent of a long vector of which a few values are not 0, and what stays there.",
        "for each step, the residual 0 at first; gradient = value at index, 0 elsewhere:\n"
        + ENCODE
        + MESSAGE,
        (
            given("index", "<i8", "entry", "rising"),
            given("value", "<f4", "step entry", "the gradient at these indices"),
            out("entries", "<i8", "step", "how many words there are"),
            out("words", "<u4", "step entry", "filled up with zeros to the longest"),
            out("message_size", "<i8", "step", "bytes of the message"),
            out("message", "|u1", "step byte", "filled up with zeros to the longest"),
            out("residual_at", "<f4", "step entry", "r at these indices"),
        ),
        (N, TAU, Setting("format", {"enum": [*CHOICES]}, "of the message")),
    ),
    Operation(
        "gtc_total",
        "The sum of what many ranks sent.",
        "total = (ranks that sent +tau less those that sent -tau), an integer, times tau\n"
        + MESSAGE,
        (
            given("message", "|u1", "rank byte", "filled up with zeros to the longest"),
            given("message_size", "<i8", "rank", "bytes of each"),
            out("total", "<f4", "element", "of all messages"),
        ),
        (N, TAU),
    ),
    accepts("gtc_accepts", MESSAGE, "and has its n and its tau", N, TAU, WHAT),
    Operation(
        "onebit_encode",
        "Values as a scale and their signs.",
        ONEBIT + "residual = x - Q(x)",
        (
            given("x", "<f4", "element", "a chunk of a residual"),
            out("message", "|u1", "byte", "scale and bits"),
            out("residual", "<f4", "element", "what the message does not say"),
        ),
    ),
    Operation(
        "onebit_allreduce",
        "Sums with one bit per value and way, error feedback at both ends.",
        """
for each step, all residuals and owned 0 at first; chunks as in allgather:
  r = r + gradient;  of each chunk j:  Q(r_j) goes to its owner, rank j;  r_j = r_j - Q(r_j)
  owner:  o = o + Q of rank 0 + Q of rank 1 + ..., in this order;  Q(o) goes to all;  o = o - Q(o)
  result = the chunks Q(o), end to end
"""
        + ONEBIT,
        (
            given("gradient", "<f4", "step rank element", "of each rank"),
            out("residual", "<f4", "step rank element", "r after the step"),
            out("owned", "<f4", "step rank element", "o after the step, filled up with zeros"),
            out("result", "<f4", "step rank element", "equal on all ranks"),
        ),
        (RANKS,),
    ),
    Operation(
        "onebit_columns",
        "Sums with one bit per value and two values per column, as CNTK rounds.",
        "for each step, as onebit_allreduce, with another Q:" + COLUMNS,
        (
            given("gradient", "<f4", "step rank element", "of each rank"),
            out("message_size", "<i8", "step rank", "bytes of the rank's messages"),
            out(
                "message",
                "|u1",
                "step rank byte",
                "to all owners, end to end, then the owner's to all; filled up with zeros",
            ),
            out("residual", "<f4", "step rank element", "r after the step"),
            out("owned", "<f4", "step rank element", "o after the step, filled up with zeros"),
            out("result", "<f4", "step rank element", "equal on all ranks"),
        ),
        (RANKS, Setting("shapes", "array", "the shape of each parameter, end to end")),
    ),
    accepts("onebit_accepts", ONEBIT, "for n values; a scale is not below 0", N, WHAT),
    Operation(
        "topk_exchange",
        "Sums of the largest values of every chunk, step after step.",
        """
for each step, residuals 0 at first:
  r = decay r + gradient, in float32;  cut into chunks of length values, the last may be shorter
  entries of a chunk: its `most` values of largest magnitude, of equal ones the first
  (all values of a chunk that is shorter)
  an entry is sent as it is, or with two_bit as
     t = the largest power of two <= the chunk's largest magnitude (0 below 2^-126)
     |r| < t:  1/2 t, else 3/2 t, with the sign of r; a zero as +1/2 t
  r = r - what is sent
  total = the sum of what ranks sent, 0 + rank 0 + rank 1 + ...; with over_senders then times
  ranks, divided by how many ranks sent this value
"""
        + TOPK.lstrip(),
        (
            given("gradient", "<f4", "step rank element", "of each rank"),
            detail("message", "|u1", "step rank byte", "equally long on all ranks"),
            out("residual", "<f4", "step rank element", "r after the step"),
            out("total", "<f4", "step rank element", "equal on all ranks"),
        ),
        (
            MOST,
            LENGTH,
            Setting("decay", "number", "what a step leaves of the residual"),
            TWO_BIT,
            Setting("over_senders", "boolean", "whether the mean is over those that sent a value"),
            RANKS,
        ),
    ),
    accepts(
        "topk_accepts",
        TOPK,
        "for n values, `most` of every `length`; places rise in their chunks; t is 0 or normal",
        N,
        WHAT,
        MOST,
        LENGTH,
        TWO_BIT,
    ),
)
