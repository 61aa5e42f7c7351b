"""From samples to features, from likelihoods to paths and words."""

from __future__ import annotations

from typing import Any

from refimpl.golden.operations.declared import Operation, Setting, given, out

WORDS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
LEXICON = (
    Setting("lexicon", "object", "word: its pronunciations, each a row of phones"),
    Setting("silence", "string", "the phone of silence, number 0; the others follow, sorted"),
)
STATES = "phone f has the states, or classes, 3 f, 3 f + 1, 3 f + 2, one after the other\n"
LOOP = given("loop", "<f8", "class", "probability to stay in a state, for one more frame")
LIKELIHOODS = given("likelihoods", "<f8", "frame class", "logarithms, scaled by priors")

OPERATIONS = (
    Operation(
        "log_mel",
        "Log-mel energies of samples.",
        """
length, shift = frame_length, frame_shift in whole samples
frames = 1 + floor((n - length) / shift), 0 if n < length
x = x - mean(x);  x[t] = x[t] - preemphasis x[t-1], x[-1] being x[0]
X = FFT(x (0.5 - 0.5 cos(2 pi t / (length - 1)))^0.85, the next power of two)
mel(f) = 1127 ln(1 + f / 700); bands + 2 edges from mel(low) to mel(high), equally far apart;
M[b, k] rises from 0 at edge b to 1 at b + 1, falls to 0 at b + 2, straight lines in mel
features = log(max(sum over k of M[b, k] |X[k]|^2, energy_floor))            float64
""",
        (
            given("samples", "<f4", "sample", "on the 16-bit scale"),
            out("features", "<f4", "frame band", "none if there are fewer samples than a frame"),
        ),
        (
            Setting("sample_rate", "number", "hertz"),
            Setting("frame_length", "number", "seconds"),
            Setting("frame_shift", "number", "seconds"),
            Setting("preemphasis", "number", "of the sample before"),
            Setting("bands", "integer", "of a frame"),
            Setting("low", "number", "hertz"),
            Setting("high", {"type": ["number", "null"]}, "hertz; null: half the rate"),
            Setting("energy_floor", "number", "smaller energies become this"),
        ),
    ),
    Operation(
        "cmvn",
        "Features of a speaker with mean 0 and variance 1.",
        """
mean, variance of each band over the F frames                     float64
mean = (F mean + weight prior_mean) / (F + weight), variance likewise
normalised = (features - mean) / max(square root of variance, 0.001)
""",
        (
            given("features", "<f4", "frame band", "of one speaker"),
            given("prior_mean", "<f8", "band", "counts as weight frames"),
            given("prior_variance", "<f8", "band", "likewise"),
            out("normalised", "<f4", "frame band", "as if drawn to the prior"),
        ),
        (Setting("weight", "number", "frames that the prior counts as"),),
    ),
    Operation(
        "splice",
        "Frames between their neighbours.",
        """
spliced[t] = features[t - context], ..., features[t], ..., features[t + context], end to end;
at the edges of its utterance the first, or the last, frame is repeated
""",
        (
            given("features", "<f4", "frame band", "of all utterances"),
            given("offsets", "<i8", "edge", "utterance u is offsets[u] to offsets[u + 1] - 1"),
            out("spliced", "<f4", "frame input", "(2 context + 1) bands values each"),
        ),
        (Setting("context", "integer", "frames on either side"),),
    ),
    Operation(
        "utterance_graph",
        "The states that an utterance may pass through.",
        STATES
        + """
silence, then for each word all of its pronunciations, in order, and silence again: each a chain of
nodes, its first reached from the ends of what was said so far; silence may be skipped, so those
ends are the ends of all pronunciations and of the silence behind them
""",
        (
            out("state", "<i8", "node", "the class of a node"),
            out("before", "<i8", "node choice", "from where: itself, then others; -1: none"),
            out("start", "<i8", "node", "1 where a path may begin"),
            out("final", "<i8", "node", "1 where it may end"),
        ),
        (Setting("words", WORDS, "what was said"), *LEXICON),
    ),
    Operation(
        "align",
        "The best path through a graph.",
        """
score[0, j] = likelihoods[0, state j] where start
score[t, j] = max over i of (score[t-1, i] + log p(i -> j)) + likelihoods[t, state j]
p(j -> j) = loop, p(i -> j) = 1 - loop of i's state
ties go to staying, then to the first in before; the path ends in the best node that is final
""",
        (
            LIKELIHOODS,
            LOOP,
            given("state", "<i8", "node", "as in utterance_graph"),
            given("before", "<i8", "node choice", "as in utterance_graph"),
            given("start", "<i8", "node", "as in utterance_graph"),
            given("final", "<i8", "node", "as in utterance_graph"),
            out("path", "<i8", "frame", "the state of each frame"),
            out("score", "<f4", "", "of the best path"),
        ),
    ),
    Operation(
        "decode",
        "The best words.",
        STATES
        + """
as align, with acoustic_scale times the likelihoods, over a loop of silence and all words, sorted:
a chain is entered from the best end of any chain, a word adds penalty, silence nothing;
ties go to staying, then to the chain that comes first
""",
        (LIKELIHOODS, LOOP, out("words", "<i8", "word", "their numbers among the sorted words")),
        (
            *LEXICON,
            Setting("penalty", "number", "added for each word"),
            Setting("acoustic_scale", "number", "what likelihoods are multiplied with"),
        ),
    ),
    Operation(
        "word_errors",
        "The fewest edits from what was said to what was heard.",
        """
cost[i, j] = min(cost[i-1, j-1] + (said[i-1] != heard[j-1]), cost[i-1, j] + 1, cost[i, j-1] + 1)
read backwards from the end; of equals a match or substitution, then a deletion, then an insertion
""",
        (
            given("said", "<i8", "word", "numbers of words"),
            given("heard", "<i8", "word", "numbers of words"),
            out("counts", "<i8", "kind", "substitutions, deletions, insertions, words said"),
        ),
    ),
)
