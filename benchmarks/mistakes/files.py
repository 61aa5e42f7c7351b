"""Files that were written, and then damaged or edited."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.mistakes.case import (
    DELETE,
    HOST,
    Case,
    Edit,
    all_of,
    arrays,
    bytes_of,
    directory,
    entry,
    fifo,
    first,
    plain_part,
    put,
    setting,
    swap,
    with_first,
    without,
)
from benchmarks.mistakes.speech import GOOD


# fmt: off
def files() -> Iterator[Case]:
    """Files that were damaged or edited."""
    evaluate, decode = "evaluate imagerun --data images", "decode speechrun x.wav"

    def case(name: str, words: str, said: str | None, edit: Edit, **how) -> Case:
        return Case("files", name, words, said, all_of(put("x.wav", GOOD), edit), **how)

    model, speech = "imagerun/model.npz", "speechrun/model.npz"
    for name, change in {
        "NaN": first(with_first(np.nan)), "inf": first(with_first(np.inf)),
        "-inf": first(with_first(-np.inf)), "complex": first(lambda a: a.astype(complex)),
        "bool": first(lambda a: a > 0), "text": first(lambda a: a.astype(str)),
        "bytes": first(lambda a: a.astype("S8")), "integers": first(lambda a: a.astype(np.int32)),
        "float64": first(lambda a: a.astype(np.float64)),
        "float16": first(lambda a: a.astype(np.float16)),
        "big-endian": first(lambda a: a.astype(">f4")),
        "objects": first(lambda a: a.astype(object)),
        "dates": first(lambda a: a.astype("i8").astype("M8[s]")),
        "a structure": first(lambda a: np.zeros(a.shape, [("x", "f4")])),
        "one row less": first(lambda a: a[:-1]), "flat": first(np.ravel),
        "transposed": first(lambda a: a.T), "no rows": first(lambda a: a[:0]),
        "no dimension": first(lambda a: a.flat[0]),
        "one parameter less": lambda found: found.pop(next(iter(found))),
        "one parameter more": lambda found: found.update(more=np.zeros(3, np.float32)),
        "none": dict.clear,
    }.items():
        yield case(f"model.npz: {name}", evaluate, "imagerun/model.npz", arrays(model, change))
    yield case(
        "model.npz: NaN, speech",
        decode,
        "speechrun/model.npz",
        arrays(speech, first(with_first(np.nan))),
        ranks=2,
    )
    zeros = arrays(model, first(np.zeros_like), compressed=True)
    yield case("model.npz: compressed", evaluate, "imagerun/model.npz", zeros)
    yield case(
        "model.npz: column by column", evaluate, None, arrays(model, first(np.asfortranarray))
    )
    for name, change in {
        "half": lambda c: c[: len(c) // 2], "empty": lambda c: b"", "a text": lambda c: b"hello",
        "a flipped bit": lambda c: c[:300] + bytes([c[300] ^ 1]) + c[301:],
        "an npy": lambda c: _npy(np.zeros(3)), "a zip of nothing": lambda c: b"PK\5\6" + bytes(18),
        "a zip of a text": lambda c: _zip({"a.txt": b"hello"}),
        "an npy header of nonsense": lambda c: _zip({"a.npy": b"\x93NUMPY\1\0\4\0abcd"}),
        "an npy that claims 2^60": lambda c: _zip({"a.npy": _header("(1152921504606846976,)")}),
        "an npy of -1": lambda c: _zip({"a.npy": _header("(-1,)")}),
        "an npy of version 9": lambda c: _zip({"a.npy": b"\x93NUMPY\11\0\4\0abcd"}),
        "an npy of deep brackets": lambda c: _zip({"a.npy": _header("(" * 3000)}),
    }.items():
        for words, run in ((evaluate, "imagerun"), (decode, "speechrun")):
            file = "model.npz" if run == "imagerun" else "task.npz"
            edit = bytes_of(f"{run}/{file}", change)
            yield case(f"{file}: {name}", words, f"{run}/{file}", edit)
    for name in ("model.npz", "task.npz", "config.json", "model.py"):
        said = f"imagerun/{name}"
        yield case(
            f"no {name}",
            evaluate,
            said,
            without(f"imagerun/{name}"),
            ranks=2 if name == "task.npz" else 1,
        )
        yield case(f"{name} is a folder", evaluate, said, directory(f"imagerun/{name}"))
        yield case(f"{name} is a pipe", evaluate, said, fifo(f"imagerun/{name}"))
    yield case("no summary.json", evaluate, "imagerun", without("imagerun/summary.json"))
    no_summary = without("imagerun/summary.json")
    for name, content in {
        "deep": "[" * 100_000, "none": "", "a list": "[]", "running as text": '{"state": 7}',
        "a process of text": '{"state": "running", "host": "x", "process": "y"}',
        "a process of 10^30": f'{{"state": "running", "host": "{HOST}", "process": {10**30}}}',
        "a process of -1": f'{{"state": "running", "host": "{HOST}", "process": -1}}',
        "no UTF-8": b"\xff\xfe",
    }.items():
        edit = all_of(no_summary, put("imagerun/state.json", content))
        yield case(f"state.json: {name}", evaluate, "imagerun", edit)
    for where, value, said in (
        ("habits.steps", "5", "checkpoints' steps is '5'"), ("log_every", "x", "log_every is 'x'"),
    ):
        yield case(
            f"state.json: {where} {value}", "train --resume imagerun",
            f"imagerun/state.json: {said}", setting("imagerun/state.json", where, value),
        )
    task = "speechrun/task.npz"
    for name, change in {
        "priors zero": entry("priors", with_first(0.0)),
        "priors negative": entry("priors", with_first(-0.5)),
        "priors NaN": entry("priors", with_first(np.nan)),
        "priors too few": entry("priors", lambda a: a[:-1]),
        "priors double": entry("priors", lambda a: 2 * a),
        "priors float32": entry("priors", lambda a: a.astype(np.float32)),
        "priors complex": entry("priors", lambda a: a.astype(complex)),
        "priors text": entry("priors", lambda a: a.astype(str)),
        "priors of two axes": entry("priors", lambda a: a[None]),
        "loops of 2": entry("loops", with_first(2.0)),
        "loops of 1": entry("loops", with_first(1.0)),
        "loops of 0": entry("loops", with_first(0.0)),
        "loops NaN": entry("loops", with_first(np.nan)),
        "loops too many": entry("loops", lambda a: np.append(a, 0.5)),
        "variance below 0": entry("inside_variance", with_first(-1.0)),
        "variance NaN": entry("speakers_variance", with_first(np.nan)),
        "mean inf": entry("inside_mean", with_first(np.inf)),
        "mean too short": entry("speakers_mean", lambda a: a[:-1]),
        "no plain part": lambda found: found.pop("plain"),
        "plain part of numbers": entry("plain", lambda a: np.zeros(3)),
        "plain part deep": entry("plain", lambda a: np.array("[" * 100_000)),
        "plain part a list": entry("plain", lambda a: np.array("[]")),
        "no priors": lambda found: found.pop("priors"),
        "one array more": lambda found: found.update(more=np.zeros(3)),
    }.items():
        yield case(f"task.npz: {name}", decode, "task.npz", arrays(task, change))
    for where, value in (
        ("format", 2), ("format", True), ("format", 1.0), ("format", None), ("format", DELETE),
        ("word_penalty", "x"), ("word_penalty", 1e300), ("word_penalty", None),
        ("word_penalty", float("nan")), ("pronunciations", {}), ("pronunciations", []),
        ("pronunciations", {"on": "ah"}), ("pronunciations", {"on": [[]]}),
        ("pronunciations", {"on": [["sil"]]}), ("pronunciations", DELETE), ("settings", {}),
        ("settings", []), ("settings.bands", 10**9), ("settings.bands", 41), ("settings.more", 3),
        ("settings.context", 4), ("settings.sample_rate", None), ("settings.sample_rate", 0),
        ("settings.silence", 3), ("settings.word_penalties", "x"), ("inside_frames", 0),
        ("inside_frames", "x"), ("speakers_frames", -1), ("speakers_frames", 1e30), ("more", 3),
        ("settings.cmvn", "all"), ("settings.acoustic_scale", 1e300),
    ):
        told = "DELETE" if value is DELETE else value
        yield case(
            f"task.npz: {where} {told}", decode, "speechrun", plain_part(task, where, value)
        )
    yield case(
        "task.npz: images, inputs 0",
        evaluate,
        "task.npz",
        plain_part("imagerun/task.npz", "inputs", 0),
    )
    yield case(
        "task.npz: images, inputs text",
        evaluate,
        "task.npz",
        plain_part("imagerun/task.npz", "inputs", "x"),
    )
    yield case(
        "task.npz: images, inputs 9",
        evaluate,
        "imagerun|inputs",
        plain_part("imagerun/task.npz", "inputs", 9),
    )
    yield case(
        "task.npz: images, inputs 10^9",
        evaluate,
        "imagerun|inputs|memory|parameters",
        plain_part("imagerun/task.npz", "inputs", 10**9),
    )
    config = "imagerun/config.json"
    for where, value in (
        ("seed", 1.5), ("seed", "1"), ("seed", None), ("seed", -1), ("seed", True), ("steps", "x"),
        ("steps", True), ("recipe", []), ("recipe", None), ("recipe.lr", None), ("recipe.lr", "x"),
        ("recipe.batch", "64"), ("recipe.batch", 0), ("recipe.task", "video"), ("recipe.more", 1),
        ("recipe.epochs", 1e3), ("recipe.task", DELETE), ("recipe.optimizer", "lbfgs"),
        ("recipe.settings", {"bands": 3}), ("recipe.settings", []), ("recipe.methods", {"x": 1}),
        ("options", []), ("options", {"hidden": 4}), ("options", {"hidden": "5"}),
        ("options", {"no": "5"}), ("options", {"hidden": "x"}), ("strategy", 5),
        ("strategy", "none"), ("methods", {"tau": "x"}), ("methods", []), ("dtype", "float16"),
        ("dtype", "float64"), ("dtype", 4), ("reduction", "sum"), ("collectives", "star"),
        ("ranks_per_node", 0), ("model", DELETE), ("model", 7), ("more", 3), ("data", 7),
        ("recipe.lr", 10**400), ("recipe.task", "acoustic"),
    ):
        told = "DELETE" if value is DELETE else str(value)[:20]
        yield case(
            f"config.json: {where} {told}",
            evaluate,
            "imagerun/(config.json|model.npz|task.npz)|option|model",
            setting(config, where, value),
        )
    for name, content in {
        "deep": "[" * 100_000, "deep objects": '{"a":' * 100_000, "none": "", "a list": "[]",
        "no JSON": "hello", "null": "null", "NaN": "NaN", "no UTF-8": b"\xff\xfe{}",
        "twice a key": '{"model": 1, "model": "mlp"}', "a number of 10,000 digits": "9" * 10_000,
    }.items():
        yield case(f"config.json: {name}", evaluate, "imagerun/config.json", put(config, content))
    for name, new, said in (
        ("raises", "raise ValueError('mine')\n", "model.py.*mine"),
        ("exits", "raise SystemExit(0)\n", "model.py"),
        ("os._exit", "import os; os._exit(0)\n", "model.py"),
        ("is nonsense", "def build(:\n", "model.py"), ("is empty", "", "model.py"),
        ("has a zero byte", "x = 1\n\0", "model.py"), ("is no UTF-8", b"# \xe9\n", "model.py"),
    ):
        yield case(f"model.py {name}", evaluate, said, put("imagerun/model.py", new))
    wider = swap("imagerun/model.py", "hidden=512", "hidden=512, more=3")
    yield case("model.py has one more option", evaluate, None, wider)
    other = swap("imagerun/model.py", '"digits"', '"other"')
    yield case("model.py has another name", evaluate, "imagerun/model.npz", other)

    check = "golden check theirs --against golden"
    manifest, held = "golden/layers/manifest.json", "golden/layers/arrays.npz"

    def golden(name: str, said: str | None, edit: Edit, words: str = check, **how) -> Case:
        theirs = lambda folder: shutil.copytree(folder / "golden", folder / "theirs")  # noqa: E731
        return Case("files", f"golden: {name}", words, said, all_of(theirs, edit), **how)

    yield golden("as it is", None, lambda folder: None)
    for where, value in (
        ("format", True), ("format", 1.0), ("format", "1"), ("format", 99), ("format", DELETE),
        ("rung", 99), ("rung", True), ("rung_name", "none"), ("bundle", "other"), ("bundle", 3),
        ("bundle", DELETE), ("cases", []), ("cases", {}), ("cases", DELETE), ("cases.0.name", 3),
        ("cases.0.name", ""), ("cases.0.arrays", []), ("cases.0.settings", []), ("more", 3),
        ("cases.0.arrays.0.shape", [-1]), ("cases.0.arrays.0.shape", [10**30]),
        ("cases.0.arrays.0.dtype", "<f16"), ("cases.0.arrays.0.dtype", "object"),
        ("cases.0.arrays.0.sha256", "0" * 64), ("cases.0.arrays.0.role", "guess"),
        ("cases.0.arrays.0.axes", ["x"] * 9), ("cases.0.arrays.0.name", "../../etc"),
        ("cases.0.operation", 3), ("cases.0.settings", {"x": float("nan")}), ("text", 3),
    ):
        told = "DELETE" if value is DELETE else str(value)[:20]
        yield golden(f"{where} {told}", "golden/layers|layers", setting(manifest, where, value))

    def outputs(value: object) -> Edit:
        def edit(folder: Path) -> None:
            plain = json.loads((folder / manifest).read_text())
            ruled = [one for case in plain["cases"] for one in case["arrays"] if "rule" in one]
            ruled[0] |= {"rule": "ulp", "ulp": "ULP"}
            text = json.dumps(plain).replace('"ULP"', str(value))
            (folder / manifest).write_text(text)

        return edit

    for value in ("1" + "0" * 400, "-1", "1e400", "NaN", '"x"', "true", "null"):
        yield golden(f"ulp {value[:8]}", "golden/layers", outputs(value))

    def doubled(folder: Path) -> None:
        plain = json.loads((folder / manifest).read_text())
        plain["cases"].append(plain["cases"][0])
        (folder / manifest).write_text(json.dumps(plain))

    yield golden("a case twice", "is there twice", doubled)
    for name, content in {
        "deep": "[" * 100_000, "none": "", "a list": "[]", "no UTF-8": b"\xff",
    }.items():
        yield golden(f"manifest: {name}", "golden/layers", put(manifest, content))
        yield golden(f"arrays: {name}", "golden/layers", put(held, content))
    yield golden("no manifest", "golden", without(manifest))
    yield golden("no arrays", "arrays.npz is missing", without(held))
    yield golden("a pipe as manifest", "golden", fifo(manifest))
    yield golden("a pipe as arrays", "golden/layers", fifo(held))
    yield golden("half the arrays", "golden/layers", bytes_of(held, lambda c: c[: len(c) // 2]))
    yield golden(
        "a bit", "golden/layers", bytes_of(held, lambda c: c[:500] + bytes([c[500] ^ 1]) + c[501:])
    )
    # What is theirs is measured, not refused: what is wrong is told for each array, exit code 1.
    theirs = "theirs/layers/arrays.npz"
    for name, edit in {
        "NaN": arrays(theirs, first(with_first(np.nan))),
        "complex": arrays(theirs, first(lambda a: a.astype(complex))),
        "objects": arrays(theirs, first(lambda a: a.astype(object))),
        "text": arrays(theirs, first(lambda a: a.astype(str))),
        "one row less": arrays(theirs, first(lambda a: a[:-1])), "no arrays": without(theirs),
        "half": bytes_of(theirs, lambda c: c[: len(c) // 2]),
        "a bit": bytes_of(theirs, lambda c: c[:500] + bytes([c[500] ^ 1]) + c[501:]),
        "a pipe": fifo(theirs), "empty": put(theirs, b""),
        "a bomb": arrays(theirs, first(lambda a: np.zeros(1 << 25, a.dtype)), compressed=True),
    }.items():
        yield golden(f"theirs: {name}", "", edit, codes=(1,), lines=0)


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
