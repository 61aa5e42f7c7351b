"""One array against another: are they equal by the rule, and if not, where and by how much?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from refimpl.golden.bundle import Array, Rule

MOST = 1 << 62


@dataclass(frozen=True)
class Verdict:
    """``right``, and the sentence that says so or what is wrong.

    ``step`` is the first wrong one of an array whose first axis counts steps or blocks; -1 where
    already the form is wrong, infinite for arrays without steps.
    """

    right: bool
    text: str
    step: float = -1


def verdict(have: np.ndarray, want: Array) -> Verdict:
    """Compare an array with the one that is wanted, by its rule; first of all in its form.

    A single number may have the shape (1,) where () is wanted: not every library writes that.
    """
    value = want.value
    if have.shape == (1,) and value.shape == ():
        have = have.reshape(())
    if have.dtype.hasobject:
        return Verdict(False, "holds objects, wanted numbers")
    if have.shape != value.shape:
        return Verdict(False, f"has shape {have.shape}, wanted {value.shape}")
    if have.dtype.str != value.dtype.str:
        return Verdict(False, f"has dtype {have.dtype.str}, wanted {value.dtype.str}")
    rule = want.rule or Rule("an input")
    floating = value.dtype.kind == "f"
    wrong = _unequal(have, value) if rule.ulp is None else ~(_ulps(have, value) <= rule.ulp)
    count = int(np.count_nonzero(wrong))
    nan = int(np.count_nonzero(np.isnan(have))) if floating else 0
    if count == 0:
        return Verdict(True, _praise(have, value, rule))
    distance = _ulps(have, value) if floating else np.abs(have.astype(object) - value)
    shown = np.where(wrong, distance, -1)
    place = np.unravel_index(int(np.argmax(shown)), shown.shape) if shown.ndim else ()
    worst = shown[place]
    text, step = f"{count} of {value.size} differ", math.inf
    if want.axes and want.axes[0] in ("step", "block"):
        step = int(np.nonzero(wrong)[0].min())
        text += f", from {want.axes[0]} {step} on" if len(value) > 1 else ""
    if nan:
        text += f", {nan} of them NaN"
    here, there = have[place], value[place]
    if floating and np.isnan(here):
        text += ", the first NaN"
        place = tuple(i[0] for i in np.nonzero(np.isnan(have))) if have.ndim else ()
        here, there = have[place], value[place]
    elif floating and worst == 0:
        text += ", in the sign of a zero, the first"
    elif floating:
        text += f", worst {_number(worst)} ulp of the largest"
    else:
        text += f", worst by {worst}"
    text += f" at {located(place, want.axes)}: have {spelled(here)}, want {spelled(there)}"
    if rule.ulp is not None:
        text += f"; allowed {rule.ulp} ulp"
    return Verdict(False, text, step)


def _unequal(have: np.ndarray, want: np.ndarray) -> NDArray[np.bool_]:
    """Return where bits differ."""
    bits = np.dtype(f"u{want.itemsize}")
    have, want = (np.asarray(x, order="C").view(bits) for x in (have, want))
    return have != want


def _ulps(have: np.ndarray, want: np.ndarray) -> NDArray[np.float64]:
    """Return |have - want| in units of the spacing of numbers at the largest |want|."""
    largest = np.abs(want).max(initial=0)
    unit = float(np.spacing(largest)) if largest > 0 else float(np.finfo(want.dtype).eps)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.abs(have.astype(np.float64) - want.astype(np.float64)) / unit


def _praise(have: np.ndarray, want: np.ndarray, rule: Rule) -> str:
    if rule.ulp is None:
        return "equal bits"
    worst = float(_ulps(have, want).max(initial=0))
    return f"within {_number(worst)} of {rule.ulp} ulp"


def _number(x: float) -> str:
    return f"{x:.3g}" if x < 1e6 else f"{x:.2e}"


def located(place: tuple, axes: tuple[str, ...]) -> str:
    """Return an index in words.

    >>> located((2, 1), ("step", "rank"))
    '[step 2, rank 1]'
    """
    return "[" + ", ".join(f"{a} {int(i)}" for a, i in zip(axes, place, strict=True)) + "]"


def spelled(x: np.generic) -> str:
    """Return a number exactly, and for people: floats in hex and in decimal.

    >>> spelled(np.float32(0.1)), spelled(np.uint8(200)), spelled(np.float64(-0.0))
    ('0x1.99999a0000000p-4 (0.1)', '0xc8 (200)', '-0x0.0p+0 (-0.0)')
    """
    if x.dtype.kind == "f":
        return f"{float(x).hex()} ({x!s})"
    return f"{int(x):#x} ({int(x)})"
