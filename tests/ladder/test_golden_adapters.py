"""The adapters answer the committed values, and what is wrong in them is named at its rung.

What the chapter says of the way to a first red line and a first green rung, by either template,
is run and timed by tests/helpers/five_minutes.py.
"""

import os
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest
from witness import GOLDEN

from refimpl import cli
from refimpl.golden import Report, check, read

CC = shutil.which(os.environ.get("CC", "cc"))
RUSTC = shutil.which(os.environ.get("RUSTC", "rustc"))
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler: CC=... names one")
ALONE = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

# One bundle of each kind that the C adapter answers.
BUNDLES = [
    *(f"collectives.{name}" for name in ("ring", "halving-doubling", "tree", "hierarchical")),
    *(f"collectives.{name}" for name in ("recursive-doubling", "bruck", "chain", "pairwise")),
    *("compression.gtc", "compression.onebit", "compression.topk"),
    *("blocks.bmuf", "blocks.diloco", "layers", "optimizers"),
    *("one-step.mics", "one-step.gtc", "one-step.mics-gtc"),
]

LADDER = [read.load(GOLDEN / name) for name in BUNDLES]

SOME = [one for one in BUNDLES if one not in ("collectives.bruck", "collectives.chain")]

# What stands in the C adapter, what a bug makes of it, and the first rung that is then red.
BUGS = [
    ("over_tree(w, root, i)", "over_tree(w, 0, i)", "collectives.tree/reduce.*/result"),
    ("(node + a)", "(node + a + 1)", "collectives.hierarchical/reduce-scatter.*/result"),
    ("residual[i] > tau", "residual[i] >= tau", "compression.gtc/encode.*"),
    ("ratio > 1", "ratio > 0", "compression.gtc/message.rice.*/message"),
    ("tau = (float)tau", "tau = tau * 1", "compression.gtc/adapt/tau"),
    ("(uint32_t)i << 1 | 1", "(uint32_t)(uint16_t)i << 1 | 1", "compression.gtc/sparse.*"),
    (
        "gaps[e] += (uint32_t)1 << k",
        "gaps[e] = (uint8_t)(gaps[e] + ((uint32_t)1 << k))",
        "compression.gtc/decode.rice.far/words",
    ),
    ("(float)sum[i]", "(float)(int8_t)sum[i]", "compression.gtc/total.n130/total"),
    ("!memcmp(again, bytes, (size_t)size)", "1", "compression.gtc/accepted.*"),
    ("x[i] >= 0", "x[i] > 0", "compression.onebit/encode.*/message"),
    ("place <= before", "place < before", "compression.topk/accepted.float/accepted"),
    ("W[i] + eta * D[i]", "W[i] + D[i]", "blocks.bmuf/nbm.*/start"),
    ("db[o] += dy[r * O + o]", "db[o] += dy[r * O + o] / (float)B", "layers/affine.*/db"),
    ("(1 - pow(beta1, (double)t))", "1", "optimizers/optimizer.adam*/w_after"),
    ('1 / number(c, "frames")', '1 / number(c, "microsteps")', "one-step.mics/*"),
    ("debt[k * p + s]", "debt[s]", "one-step.gtc/*"),
]


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The committed bundles, also as .safetensors."""
    folder = tmp_path_factory.mktemp("golden")
    for one in LADDER:
        one.write(folder, tensors=True)
    return folder


def template(language, folder):
    assert cli.main(["golden", "template", language, str(folder)]) == 0
    return folder / {"c": "golden.c", "python": "golden.py", "rust": "golden.rs"}[language]


def built(source):
    """Compile without a warning."""
    program = source.with_suffix("")
    flags = ["-std=c99", "-O0", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run([CC, *flags, "-o", program, source, "-lm"], check=True)
    return program


def answers(program, golden, theirs, bundles=BUNDLES, **more):
    for bundle in bundles:
        (theirs / bundle).mkdir(parents=True, exist_ok=True)
        subprocess.run([program, golden / bundle, theirs / bundle], check=True, env=ALONE | more)
    return theirs


def report(theirs):
    left_out = []
    return Report(list(check.folders(theirs, LADDER, left_out=left_out)), left_out)


@needs_cc
def test_the_c_adapter_answers_its_bundles(golden, tmp_path):
    theirs = answers(built(template("c", tmp_path)), golden, tmp_path)
    found = report(theirs)
    assert found.right, found.summary()
    new = {f"{one.name}/{case.name}" for one in LADDER for case in one.cases if case.since > 1}
    assert set(found.skipped) <= new, "of the first edition it answers all"


@needs_cc
def test_each_bug_in_the_c_adapter_is_named_at_its_rung(golden, tmp_path):
    """One program with all of them; the environment says which one is in it.

    What stands above a bug's own bundle cannot be the first that is red.
    """
    source = template("c", tmp_path)
    text = source.read_text("utf-8")
    head = "#include <string.h>\n"
    text = text.replace(
        head, head + 'static int bug(int n) { return atoi(getenv("BUG")) == n; }\n'
    )
    for number, (right, wrong, _) in enumerate(BUGS):
        assert text.count(right) == 1, right
        text = text.replace(right, f"(bug({number}) ? ({wrong}) : ({right}))")
    source.write_text(text)
    program = built(source)
    for number, (_, wrong, name) in enumerate(BUGS):
        below = [
            one for one in SOME if BUNDLES.index(one) <= BUNDLES.index(name.partition("/")[0])
        ]
        theirs = answers(program, golden, tmp_path / str(number), below, BUG=str(number))
        found = report(theirs)
        assert found.first and fnmatchcase(found.first.name, name), (wrong, found.first)


@pytest.mark.skipif(RUSTC is None, reason="no Rust compiler: RUSTC=... names one")
def test_the_rust_adapter_answers_with_its_standard_library_alone(golden, tmp_path):
    source, program = template("rust", tmp_path), tmp_path / "answers"
    command = [RUSTC, "--edition", "2021", "-D", "warnings", "-o", program, source]
    subprocess.run(command, check=True)
    some = ("blocks.bmuf", "layers", "optimizers")
    found = report(answers(program, golden, tmp_path / "theirs", some))
    assert found.right, found.summary()
    assert found.counts["cases"] >= 20


def test_the_python_adapter_answers_with_numpy_alone(golden, tmp_path):
    source = template("python", tmp_path)
    (tmp_path / "refimpl.py").write_text("raise ImportError('there is no refimpl here')\n")
    command = [sys.executable, source, golden, tmp_path / "theirs"]
    subprocess.run(command, check=True, env=ALONE, cwd=tmp_path)
    found = report(tmp_path / "theirs")
    assert found.right, found.summary()


def test_a_template_replaces_no_file(tmp_path, capsys):
    template("python", tmp_path / "new" / "folder")
    assert cli.main(["golden", "template", "python", str(tmp_path / "new" / "folder")]) == 2
    assert "golden.py is there already: give another folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.main(["golden", "template", "c", str(tmp_path / "file")]) == 2
    assert "cannot write" in capsys.readouterr().err
