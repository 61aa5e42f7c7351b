"""Huge and tiny numbers, settings that make no sense, sizes of images."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator

from benchmarks.mistakes.case import (
    IMAGES,
    NET,
    SIMULATE,
    Case,
    Edit,
    all_of,
    bytes_of,
    directory,
    fifo,
    idx,
    put,
    recipe,
    without,
)


# fmt: off
def numbers() -> Iterator[Case]:
    """Huge and tiny numbers, sizes."""
    def case(words: str, said: str | None, edit: Edit | None = None, **how) -> Case:
        return Case("numbers", words.replace(IMAGES, "train"), words, said, edit, **how)

    for option, values in {
        "--lr": "0 -1 nan inf 1e400 1e-400 x ''", "--batch": "0 -1 1.5 nan 1e9 10000000000 ''",
        "--microsteps": "0 -1 10000000000000", "--epochs": "0 -1 1e3 10000000000000",
        "--steps": "0 -1 1e400 99999999999999999999", "--momentum": "nan inf -1 1.5 1e400",
        "--weight-decay": "nan inf -1 1e400", "--clip": "-0.0 -1 nan inf 1e-400",
        "--seed": "-1 1.5 99999999999999999999999",
        "--ranks-per-node": "0 -1 99999999999999999999", "--log-every": "-1 1.5",
        "--dtype": "float16 int8 ''", "--reduction": "sum ''", "--collectives": "star ''",
        "--optimizer": "lbfgs ''", "--schedule": "cos ''",
        "--set hidden=": "0 -1 nan 1.5 99999999999999999999 1000000 x",
        "--set depth=": "-1 nan 99999999999999999999 100000000", "--set hidden": "''",
        "--set unknown=": "3",
    }.items():
        for value in values.split():
            flag = option + value if option.endswith("=") else f"{option} {value}"
            last = option.split()[-1]
            said = (
                "--set|option|hidden" if "--set" in option else last.strip("-").replace("-", ".")
            )
            if flag != "--epochs 1e3":
                yield case(f"{IMAGES} {flag}", said)
    for row, option, values in (
        ("gtc", "--tau", "0 -1 nan inf 1e400 1e-400"), ("gtc", "--target-density", "0 -1 2 nan"),
        ("gtc", "--local-clip", "0 -1 nan inf"), ("gtc", "--momentum-correction", "-1 1 nan"),
        ("gtc", "--gtc-warmup", "-1 nan 1.5"), ("gtc", "--residual-clip", "-1 nan inf"),
        ("gtc", "--residual-clip-every", "-1 nan"), ("gtc", "--wire-format", "morse"),
        ("gtc", "--tau-units", "feet"), ("gtc-bmuf", "--gtc-group", "0 -1 3 99999999999999999999"),
        ("gtc-bmuf", "--residuals", "eat"),
        ("bmuf", "--block-steps", "0 -1 nan 99999999999999999999999"),
        ("bmuf", "--warm-start", "-1 nan 1.5"),
        ("bmuf", "--block-momentum", "nan inf -1 1 2"), ("bmuf", "--block-lr", "nan inf -1 0"),
        ("bmuf", "--block-method", "xbm"), ("bmuf", "--local-momentum", "lose"),
        ("mics", "--partition", "0 -1 2 3 nan 99999999999999999999"),
        ("mics", "--zero-stage", "0 4 nan"), ("ddp", "--sync", "never"),
    ):
        for value in values.split():
            said = (
                option.strip("-").replace("-", ".").replace("gtc.group", "(gtc.group|GTC groups)")
            )
            long = option == "--block-steps" and len(value) > 9  # longer than any run: no block
            words = f"{IMAGES} --strategy {row} {option} {value}"
            yield case(words, None if long else said, codes=(0,) if long else ())
    for words, said in (
        ("train mlp --strategy ddq --out out", "ddq"),
        ("train mlp --strategy serial --tau 3 --out out", "--tau"),
        ("train mlp --strategy zero1 --partition 2 --out out", "--partition"),
        (
            "train mlp --batch 100000000 --out out",
            "parameters: with gradients|--batch|memory|frames",
        ),
        ("train mlp --set hidden=100000 --set depth=100 --out out", "parameters"),
        (f"{IMAGES} --log-every 99999999999999999999999", "--log-every"),
        ("compare mlp --strategies serial,serial", "each once"),
        ("compare mlp --strategies ''", "--strategies"),
        ("compare mlp --strategies serial,none", "none"),
        ("compare mlp --strategies serial --for 'ddp --lr 1'", "begin with one of"),
        ("compare mlp --strategies serial --for 'serial --lr nan'", "--lr"),
        ("compare mlp --strategies serial --for 'serial \"'", "--for"),
        ("compare mlp --strategies serial --for ''", "--for"),
        ("compare mlp --strategies serial --seeds 0", "--seeds"),
        ("compare mlp --strategies serial --seeds 99999999999", "--seeds"),
        ("bench --repeats 0", "--repeats"), ("bench --repeats 99999999999", "--repeats"),
        ("bench song", "song"), ("bench step --collectives star", "star"), ("topology -n 0", "-n"),
        ("topology -n 4 --strategy mics --partition 3", "partition"),
        (f"{IMAGES} --strategy onebit --onebit-mask", "--onebit-mask: needs --gtc-warmup"),
        (f"{IMAGES} --strategy bmuf --block-mean words", "--block-mean words: choose one of"),
        (f"{IMAGES} --strategy onebit --onebit-values row", "--onebit-values row: choose one of"),
        ("topology -n 4 --strategy onebit --onebit-values column --parameters 9", "by the shapes"),
        (f"{IMAGES} --strategy gtc --residual-clip 3", "3: needs --residual-clip-every N"),
        ("topology -n 4 --strategy diloco --fragments 2 --parameters 9", "all as one unit"),
        ("topology -n 4 --parameters 9x", "--parameters"),
        ("topology -n 99999999999", "-n"), ("topology -n 4 --parameters nan", "--parameters"),
        ("topology -n 4 --parameters 10 --density 2", "density"), ("topology", "-n"),
        ("explain", "FAMILY|argument|required"), ("explain star", "star"),
        ("explain ring -p 0", "-p"), ("explain ring -p 99999999999999", "-p|99999999999999"),
        ("explain hierarchical -p 4 -k 3", "nothing to explain under .hierarchical"),
        ("plan", "plan|--preset|--parameters"), ("plan --preset none", "none"),
        ("plan -n 4 --parameters inf --flops 1e14", "--parameters"),
        ("plan -n 4 --parameters 1e9 --flops 0", "--flops"),
        ("plan -n 4 --parameters 1e9 --flops nan", "--flops"),
        ("plan -n 99999999 --parameters 1e9 --flops 1e14", "-n"),
        ("plan -n 4 --parameters 1e9 --flops 1e14 --memory -1", "--memory"),
        ("plan -n 4 --parameters 9 --flops 1 --secondary-shards node --overlap 1", "--overlap"),
        (f"{SIMULATE} --flops 0", "--flops"), (f"{SIMULATE} --flops nan", "--flops"),
        (f"{SIMULATE} -n 0", "-n"), (f"{SIMULATE} -n 2000", "each rank is a thread here"),
        (f"{SIMULATE} --scale 0", "--scale"), (f"{SIMULATE} --scale 1e30", "--scale 1e.30: "),
        (f"{SIMULATE} --intra 1", "1 value where 2"), (f"{SIMULATE} --inter nan,1", "--inter"),
        (f"{SIMULATE} --links measure", "nothing is here to measure"),
        (f"{SIMULATE} --links nowhere", "nowhere"), (f"{SIMULATE} --links images", "images"),
        (f"{SIMULATE} --links net.py", "net.py is not JSON"),
        (f"{SIMULATE} --data images", "inputs are drawn here"),
        (f"{SIMULATE} --trace nowhere/t", "no folder nowhere"),
        (f"{SIMULATE} --strategy mics --partition 3", "partition groups of 3"),
        (f"{SIMULATE} --set hidden=50000 -n 1000", "1000 ranks of .* need"),
        ("simulate net.py -n 4", "--flops"), ("simulate song -n 4 --flops 1e9", "song"),
        ("timeline", "TRACE"), ("timeline net.py", "net.py is no trace"),
        ("timeline images", "images"), ("timeline nowhere", "nowhere"),
        ("timeline net.py --steps 2:1", "--steps"), ("timeline net.py --step 0", "--step"),
        ("timeline net.py --svg x.png", "is no trace|ends in .svg"),
        (f"{IMAGES} --links nowhere", "nowhere"), (f"{IMAGES} --links images", "images"),
        (f"{IMAGES} --collectives auto --links net.py", "net.py is not JSON"),
        (f"{IMAGES} --links measure", "leave it out, or use auto"),
        ("data synth new --seed -1", "--seed"), ("data synth new --rate 44100", "--rate"),
        ("data synth new --rate x", "--rate"),
        ("golden list --cases nothing.at.all", "nothing.at.all"),
        ("golden write images", "images holds"), ("report", "RUN"),
        ("report images", "images|matplotlib"),
        ("decode imagerun x.wav", "does not decode speech"),
        ("evaluate images --data images", "images is not finished|no summary"),
        ("evaluate imagerun --data corpus", "no t10k"),
        ("evaluate speechrun --data images", "images"),
        ("compare mlp --batch 8 --global-batch 32", "give one of them"),
        ("", "COMMAND"), ("trian mlp", "trian"), ("train", "MODEL"), ("train mlp extra", "extra"),
    ):
        yield case(words, said)
    train, labels = "images/train-images-idx3-ubyte", "images/train-labels-idx1-ubyte"
    tests = "images/t10k-images-idx3-ubyte"
    for name, edit, said in (
        (
            "other sizes in test",
            put(tests, idx((24, 11, 12), bytes(24 * 132))),
            "t10k are 11 x 12",
        ),
        ("more labels", put(labels, idx((121,), bytes(121))), "120 images but 121 labels"),
        ("a label of 10", put(labels, idx((120,), b"\12" * 120)), "a label 10"),
        (
            "no images",
            all_of(put(train, idx((0, 12, 12), b"")), put(labels, idx((0,), b""))),
            "no pixel|0 training",
        ),
        ("no pixels", put(train, idx((120, 0, 12), b"")), "holds no pixel"),
        (
            "three images",
            all_of(put(train, idx((3, 12, 12), bytes(432))), put(labels, idx((3,), bytes(3)))),
            "3 training images",
        ),
        (
            "no test images",
            all_of(
                put(tests, idx((0, 12, 12), b"")),
                put("images/t10k-labels-idx1-ubyte", idx((0,), b"")),
            ),
            "no pixel",
        ),
        ("a header of 2^96", put(train, idx((2**32 - 1,) * 3, b"abc")), "elements but has room"),
        ("floats", put(train, idx((120, 12, 12), bytes(17280), 13)), "element type 13"),
        ("one dimension", put(train, idx((17280,), bytes(17280))), "1 dimensions"),
        ("half of it", bytes_of(train, lambda c: c[: len(c) // 2]), "truncated"),
        ("a byte more", bytes_of(train, lambda c: c + b"x"), "more elements"),
        ("a header's half", put(train, b"\0\0\10\3\0\0"), "ends in its header"),
        ("empty", put(train, b""), "is not an idx file"),
        ("a text", put(train, b"hello"), "is not an idx file"),
        ("not there", without(train), "no train-images-idx3-ubyte"),
        ("a folder", directory(train), "no train-images"),
        ("a pipe", fifo(train), "no train-images"),
        (
            "a gzip bomb",
            all_of(
                without(train), put(train + ".gz", gzip.compress(idx((2**20, 32, 32), bytes(100))))
            ),
            "elements but has room",
        ),
        (
            "a gzip of zeros",
            all_of(
                without(train), put(train + ".gz", gzip.compress(idx((120, 12, 12), bytes(10**8))))
            ),
            "more elements",
        ),
        (
            "a gzip's half",
            all_of(
                without(train),
                put(train + ".gz", gzip.compress(idx((120, 12, 12), os.urandom(17280)))[:9000]),
            ),
            "cannot read",
        ),
        ("no gzip", all_of(without(train), put(train + ".gz", b"hello")), "cannot read"),
        (
            "a gzip",
            all_of(
                without(train), put(train + ".gz", gzip.compress(idx((120, 12, 12), bytes(17280))))
            ),
            None,
        ),
    ):
        yield Case("numbers", f"idx: {name}", IMAGES, said, edit, 2 if name == "no images" else 1)
    for name, value in (
        ("bands", "10**9"), ("bands", "0"), ("bands", "40.5"), ("frame_shift", "1e-9"),
        ("frame_shift", "float('nan')"), ("frame_length", "float('inf')"), ("context", "10**9"),
        ("context", "-1"), ("flat_passes", "10**9"), ("realign_epochs", "(0,)"), ("cmvn", "'all'"),
        ("realign_epochs", "3"), ("word_penalty", "float('nan')"), ("silence", "''"),
        ("word_penalties", "(float('nan'),)"), ("word_penalties", "()"), ("sample_rate", "0"),
        ("word_penalties", "tuple(range(10**6))"), ("acoustic_scale", "0.0"), ("low", "-1.0"),
        ("high", "1.0"), ("high", "8000.0"), ("energy_floor", "0.0"), ("sample_rate", "16000"),
        ("prior_scale", "float('inf')"), ("cmvn_prior", "-1.0"), ("preemphasis", "7.0"),
        ("silence", "7"), ("no_such", "7"), ("alignment", "'exact'"), ("frame_length", "0.001"),
        ("bands", "512"),
    ):
        edit = recipe(f"task='acoustic', epochs=1, lr=0.1, settings={{'{name}': {value}}}")
        words = NET.replace("images", "corpus")
        said = {
            "alignment": "ctm", "frame_length": "frame", "bands": "bands?", "high": "high|hertz",
            "sample_rate": "sample.rate|sampled",
        }
        yield Case("numbers", f"settings: {name} {value}", words, said.get(name, name), edit)
