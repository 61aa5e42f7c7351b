"""The sixth rung: from samples to features, from likelihoods to alignments and words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from refimpl.golden import draw
from refimpl.golden.bundle import Bundle, Case, Rule
from refimpl.golden.cases.ask import COPIES, INTEGERS, Answer, Arrays, Settings, case
from refimpl.golden.cases.truth import rounded
from refimpl.tasks.acoustic import frontend
from refimpl.tasks.acoustic.align import Graph, best_paths
from refimpl.tasks.acoustic.align import utterance_graph as graph_of
from refimpl.tasks.acoustic.decode import WordLoop
from refimpl.tasks.acoustic.examples import Frames
from refimpl.tasks.acoustic.hmm import States, Statistics
from refimpl.tasks.acoustic.lexicon import Lexicon
from refimpl.tasks.acoustic.score import word_errors as errors_of
from refimpl.tasks.acoustic.settings import AcousticSettings

SPECTRA = Rule("Fourier transforms and logarithms differ between libraries", ulp=64)
MOMENTS = Rule("means and variances are sums in some order", ulp=8)
LOGS = Rule("logarithms of probabilities are rounded by the library", ulp=4)

SILENCE = "sil"
LEXICON = {"no": [["n", "ow"]], "on": [["ao", "n"], ["aa", "n"]], "oh": [["ow"]]}

# ---------------------------------------------------------------------------------- operations


def log_mel(inputs: Arrays, settings: Settings) -> Arrays:
    """Turn samples (n,) on the 16-bit scale into log-mel energies: features (frames, bands).

    settings: sample_rate, frame_length and frame_shift (seconds), preemphasis, bands, low and
    high (hertz; null: half the rate), energy_floor.
    """
    made = AcousticSettings(**settings)
    return {"features": frontend.LogMel(made, settings["sample_rate"])(inputs["samples"])}


def cmvn(inputs: Arrays, settings: Settings) -> Arrays:
    """Normalise mean and variance: features (frames, bands) of one speaker -> normalised.

    prior_mean and prior_variance (bands,) count as setting weight frames.
    """
    features = inputs["features"].copy()
    prior = frontend.Moments(1, inputs["prior_mean"], inputs["prior_variance"])
    frontend.normalise({"speaker": [features]}, prior, settings["weight"])
    return {"normalised": features}


def splice(inputs: Arrays, settings: Settings) -> Arrays:
    """Set each frame between its neighbours: features (frames, bands) -> spliced.

    offsets (utterances + 1,) cut the frames; setting context on either side; at an utterance's
    edges its first or last frame is repeated.  spliced (frames, (2 context + 1) bands).
    """
    frames = Frames(inputs["features"], inputs["offsets"], settings["context"])
    spliced = np.zeros((frames.count, frames.inputs), np.float32)
    frames.take(np.arange(frames.count), spliced)
    return {"spliced": spliced}


def _lexicon(settings: Settings) -> tuple[Lexicon, States]:
    said = {w: tuple(map(tuple, some)) for w, some in sorted(settings["lexicon"].items())}
    lexicon = Lexicon(said, settings["silence"])
    return lexicon, States(lexicon.phones)


def utterance_graph(inputs: Arrays, settings: Settings) -> Arrays:
    """Return the states that an utterance may pass through: settings words, lexicon, silence.

    state (nodes,), before (nodes, k): from which nodes a node is reached, itself first, -1 for
    none; start and final (nodes,): 1 where a path may begin and end.
    """
    lexicon, states = _lexicon(settings)
    graph = graph_of(tuple(settings["words"]), lexicon, states)
    return {name: np.asarray(part).astype(np.int64) for name, part in graph._asdict().items()}


def align(inputs: Arrays, settings: Settings) -> Arrays:
    """Find the best path: likelihoods (frames, classes), loop (classes,), a graph -> path, score.

    loop is the probability to stay in a state; likelihoods are logarithms.
    """
    parts = {name: inputs[name] for name in ("state", "before", "start", "final")}
    parts |= {name: parts[name].astype(bool) for name in ("start", "final")}
    statistics = Statistics(np.ones(inputs["loop"].size), inputs["loop"])
    ((score, path),) = best_paths([inputs["likelihoods"]], [Graph(**parts)], statistics)
    return {"path": path, "score": rounded(score)}


def decode(inputs: Arrays, settings: Settings) -> Arrays:
    """Find the best words: likelihoods (frames, classes), loop (classes,) -> words.

    settings: lexicon, silence, penalty, acoustic_scale.  Words are numbers, in sorted order.
    """
    lexicon, states = _lexicon(settings)
    statistics = Statistics(np.ones(inputs["loop"].size), inputs["loop"])
    loop = WordLoop(lexicon, states, statistics)
    (words,) = loop.decode(
        [inputs["likelihoods"]], settings["penalty"], settings["acoustic_scale"]
    )
    return {"words": np.array([lexicon.words.index(word) for word in words], np.int64)}


def word_errors(inputs: Arrays, settings: Settings) -> Arrays:
    """Count substitutions, deletions, insertions and words: said, heard -> counts (4,)."""
    said, heard = (list(map(str, inputs[name].tolist())) for name in ("said", "heard"))
    return {"counts": np.array(errors_of(said, heard))}


# --------------------------------------------------------------------------------------- cases


def bundles() -> Iterator[Bundle]:
    """Yield the bundle of this rung."""
    text = "The front end, alignment, decoding and scoring of the acoustic task."
    yield Bundle("acoustic", "acoustic", text, tuple(_cases()))


def _cases() -> Iterator[Case]:
    yield from _front_end()
    yield from _paths()
    for name, said, heard in (
        ("same", [1, 2, 3], [1, 2, 3]),
        ("one-of-each", [1, 2, 3, 4], [5, 2, 4, 6]),
        ("tie", [1, 2], [2, 3]),
        ("nothing-heard", [1, 2], []),
        ("nothing-said", [], [1]),
    ):
        yield case(
            f"word-errors.{name}",
            word_errors,
            "the fewest edits; matches and substitutions before deletions before insertions",
            {},
            {
                "said": (np.array(said, np.int64), "word"),
                "heard": (np.array(heard, np.int64), "word"),
            },
            {"counts": Answer("kind", INTEGERS)},
        )


def _front_end() -> Iterator[Case]:
    settings: Settings = {
        "sample_rate": 8000,
        "frame_length": 0.025,
        "frame_shift": 0.010,
        "preemphasis": 0.97,
        "bands": 8,
        "low": 20.0,
        "high": None,
        "energy_floor": 1.0,
    }
    noise = draw.integers("samples", -3000, 3000, 800).astype(np.float32)
    pulses = np.zeros(800, np.float32)
    pulses[::100] = 10000
    for name, samples in (
        ("pulses", pulses),
        ("noise", noise),
        ("silence", np.zeros(400, np.float32)),
        ("one-frame", noise[:200]),
        ("too-short", noise[:199]),
    ):
        yield case(
            f"log-mel.{name}",
            log_mel,
            f"{len(samples)} samples at 8000 hertz",
            settings,
            {"samples": (samples, "sample")},
            {"features": Answer("frame band", SPECTRA)},
        )
    features = draw.rough("cmvn", (7, 4), 8.0) + np.float32(3)
    prior = np.array([2.0, 3.0, 4.0, 5.0]), np.array([1.0, 4.0, 9.0, 16.0])
    for name, weight in (("speaker", 0.0), ("prior", 100.0)):
        yield case(
            f"cmvn.{name}",
            cmvn,
            "mean 0 and variance 1 in every band, after the prior's frames have been added",
            {"weight": weight},
            {
                "features": (features, "frame band"),
                "prior_mean": (prior[0], "band"),
                "prior_variance": (prior[1], "band"),
            },
            {"normalised": Answer("frame band", MOMENTS)},
        )
    numbered = np.arange(10, dtype=np.float32).reshape(5, 2)
    yield case(
        "splice",
        splice,
        "two utterances, of 3 and 2 frames, with 2 frames on either side",
        {"context": 2},
        {"features": (numbered, "frame band"), "offsets": (np.array([0, 3, 5]), "edge")},
        {"spliced": Answer("frame input", COPIES)},
    )


def _paths() -> Iterator[Case]:
    told: Settings = {"lexicon": LEXICON, "silence": SILENCE}
    classes = _lexicon(told)[1].count
    loop = draw.integers("loop", 3, 13, classes) / 16.0
    for name, words in (("one", ["oh"]), ("two", ["on", "no"]), ("none", [])):
        graph = case(
            f"graph.{name}",
            utterance_graph,
            f"the words {' '.join(words) or '(none)'}, silence around each, all pronunciations",
            told | {"words": words},
            {},
            {
                "state": Answer("node", INTEGERS),
                "before": Answer("node choice", INTEGERS),
                "start": Answer("node", INTEGERS),
                "final": Answer("node", INTEGERS),
            },
        )
        yield graph
        likelihoods = draw.rough(f"align {name}", (24, classes), 4.0, np.float64)
        parts = {key: (part.value, " ".join(part.axes)) for key, part in graph.arrays.items()}
        yield case(
            f"align.{name}",
            align,
            "the best path through that graph in 24 frames",
            {},
            {"likelihoods": (likelihoods, "frame class"), "loop": (loop, "class")} | parts,
            {"path": Answer("frame", INTEGERS), "score": Answer("", LOGS)},
        )
    for name, penalty in (("free", 0.0), ("few", -6.0)):
        likelihoods = draw.rough("decode", (40, classes), 8.0, np.float64)
        yield case(
            f"decode.{name}",
            decode,
            f"a loop of all words; each word costs {-penalty:g}",
            told | {"penalty": penalty, "acoustic_scale": 0.5},
            {"likelihoods": (likelihoods, "frame class"), "loop": (loop, "class")},
            {"words": Answer("word", INTEGERS)},
        )
