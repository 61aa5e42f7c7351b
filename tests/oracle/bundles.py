"""Golden bundles for whoever has no refimpl: what is asked, and where answers go.  NumPy alone."""

import json
from pathlib import Path

import numpy as np


def cases(golden):
    """Yield every case: its bundle's name, what the manifest says, and its inputs."""
    for manifest in sorted(Path(golden).glob("*/manifest.json")):
        told = json.loads(manifest.read_text())
        with np.load(manifest.with_name("arrays.npz"), allow_pickle=False) as arrays:
            for case in told["cases"]:
                names = [a["name"] for a in case["arrays"] if a["role"] == "input"]
                given = {name: arrays[f"{case['name']}/{name}"] for name in names}
                yield told["bundle"], case, given


def answered(golden, operations):
    """Yield what operations(given, settings) say: bundle, case/array and value of each output."""
    for bundle, case, given in cases(golden):
        if case["operation"] in operations:
            found = operations[case["operation"]](given, case["settings"])
            for key, value in found.items():
                yield bundle, f"{case['name']}/{key}", value


def write(theirs, answers):
    """Write answers (bundle, case/array, value) into the folder, an archive for each bundle."""
    bundles = {}
    for bundle, name, value in answers:
        bundles.setdefault(bundle, {})[name] = value
    for bundle, arrays in bundles.items():
        folder = Path(theirs) / bundle
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "arrays.npz", **arrays)
