"""Ranks that were told or have different things; mistakes that all ranks make at once."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.mistakes.case import (
    IMAGES,
    NET,
    SPEECH,
    Case,
    add,
    all_of,
    arrays,
    bytes_of,
    first,
    idx,
    net,
    plain_part,
    put,
    setting,
    swap,
    without,
)
from benchmarks.mistakes.speech import GOOD


# fmt: off
def ranks() -> Iterator[Case]:
    """Ranks that were told or have different things."""
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


def lines() -> Iterator[Case]:
    """Mistakes of all sorts on two ranks: one line, and none of the MPI's or the launcher's."""
    for words, said in (
        ("train mlp --lr 0 --out out", "--lr"), ("train nothing --out out", "nothing"),
        ("train mlp --data nowhere --out out", "nowhere"),
        ("train mlp --strategy mics --partition 3 --out out", "partition groups of 3"),
        ("train mlp --strategy serial --out out", "serial"),
        ("train mlp --out imagerun", "imagerun is not empty"),
        (f"{IMAGES} --strategy diloco --fragments 99", "--fragments 99: a fragment is one unit"),
        ("train mlp --data images --batch 1000 --out out", "frames|images|batch"),
        ("train mlp --data images --set hidden=4 --batch 4 --lr 1e30 --out out2", "diverged"),
        ("compare mlp --strategies none", "none"), ("evaluate nowhere --data images", "nowhere"),
        ("evaluate imagerun --data nowhere", "nowhere"), ("decode nowhere x.wav", "nowhere"),
        ("decode speechrun x.wav y.wav", "x.wav"), ("report nowhere", "nowhere|matplotlib"),
        ("golden check nowhere", "nowhere"), ("golden list --cases none.at.all", "none.at.all"),
        ("golden describe none", "none"),
        ("golden list --edition 9", "edition 9"), ("golden pack golden.tar", ".zip"),
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
