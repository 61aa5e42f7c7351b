"""Bundles read again, and all that is said of them checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refimpl.golden import container, npz, operations, schema
from refimpl.golden.bundle import FORMAT, MANIFEST, Array, Bundle, Case, Rule, digest
from refimpl.support.errors import UserError
from refimpl.support.files import check_is_file, read_json


def names(folder: Path) -> list[str]:
    """Return the bundles in a folder, sorted: its sub-folders that hold a manifest."""
    return sorted(path.parent.name for path in folder.glob(f"*/{MANIFEST}"))


def check_around(folder: Path) -> None:
    """Refuse a folder that is a bundle itself.

    Raises `UserError` if its arrays lie in it and not in sub-folders.
    """
    for name in container.there(folder):
        raise UserError(
            f"{folder} holds {name} itself: give the folder around it, which holds BUNDLE/{name}"
        )


def case_names(folder: Path) -> set[str]:
    """Return the cases of the bundle in a folder; none if there is none that can be read."""
    try:
        return {case["name"] for case in manifest(folder)["cases"]}
    except UserError:
        return set()


def load(folder: Path) -> Bundle:
    """Read one bundle as a reference, all of it checked.

    Raises `UserError` if it is not there, is no manifest of a known format, or its arrays are not
    those that the manifest describes.
    """
    told = manifest(folder)
    try:
        archive = container.read(folder)
    except npz.Damaged as damage:
        raise UserError(f"golden bundle {folder}: {damage}: write it again") from None
    cases = []
    for case in told["cases"]:
        arrays = {}
        for entry in case["arrays"]:
            name = f"{case['name']}/{entry['name']}"
            value = archive.arrays.get(name)
            wrong = archive.damaged.get(name, "missing")
            if value is not None:
                wrong = _differs(value, entry)
            if value is None or wrong:
                raise UserError(
                    f"golden bundle {folder}: array {name} is {wrong}: write the bundle again"
                )
            rule = Rule(entry["why"], entry.get("ulp")) if "rule" in entry else None
            arrays[entry["name"]] = Array(entry["role"], value, tuple(entry["axes"]), rule)
        name, operation, text = (case[key] for key in ("name", "operation", "text"))
        since = case.get("since", 1)
        cases.append(Case(name, operation, text, case["settings"], arrays, since))
    return Bundle(told["bundle"], told["rung_name"], told["text"], tuple(cases), told["place"])


def manifest(folder: Path) -> dict[str, Any]:
    """Read and check a manifest.

    Raises `UserError` if it is missing, no JSON, of another format or against the schema.
    """
    file = folder / MANIFEST
    check_is_file(file)
    try:
        told = read_json(file.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"no golden bundle in {folder}: {MANIFEST}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(
            f"golden bundle {folder}: {MANIFEST} is no JSON: {error}: write the bundle again"
        ) from None
    number = told.get("format") if isinstance(told, Mapping) else None
    if isinstance(number, int) and number != FORMAT:
        raise UserError(
            f"golden bundle {folder} has format {number}, this refimpl reads {FORMAT}: take the "
            "refimpl that wrote it, or write it again with `refimpl golden write`"
        )
    for mistake in schema.mistakes(told):
        raise UserError(f"golden bundle {folder}: {MANIFEST}: {mistake}: write the bundle again")
    for case in told["cases"]:
        for mistake in operations.mistakes(case):
            where = f"{MANIFEST}: case {case['name']}"
            raise UserError(f"golden bundle {folder}: {where}: {mistake}: write the bundle again")
    if told["bundle"] != folder.name:
        raise UserError(
            f"golden bundle {folder} says that it is {told['bundle']}: give its folder that name"
        )
    return told


def _differs(value: np.ndarray, entry: Mapping[str, Any]) -> str:
    """Return in what an array is not the one described; empty if in nothing."""
    shape = tuple(entry["shape"])
    if value.dtype.str != entry["dtype"] or value.shape != shape:
        return f"{value.dtype.str} {value.shape} and not {entry['dtype']} {shape}"
    if len(entry["axes"]) != value.ndim:
        return f"of {value.ndim} axes and not {entry['axes']}"
    return "" if digest(value) == entry["sha256"] else "altered, its sha256 differs"
