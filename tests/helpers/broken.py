"""Backends with a bug, for the tests that the check finds it: test_golden_mutants_*.py.

A backend here is refimpl with a bug, inside the library (``monkeypatch``) or in what one operation
gives or is given (`instead`).
"""

import numpy as np
from witness import GOLDEN

from refimpl.golden import Reference, check, check_backend

BUNDLES = check.loaded(GOLDEN)


def first(backend, pattern="*"):
    """Return the name that the check gives first."""
    report = check_backend(backend, BUNDLES, pattern, say=lambda text: None)
    assert not report.right, "not noticed"
    return report.first.name


def only(*names):
    """Return a backend that has these operations of the reference."""
    return type("Some", (), {name: staticmethod(getattr(Reference, name)) for name in names})()


def instead(name, change):
    """Return a backend with one operation: change(right, inputs, settings) -> its outputs."""
    right = getattr(Reference, name)
    return type("Broken", (), {name: lambda self, i, s: change(right, i, s)})()


def after(name, change):
    """Return a backend with one operation, whose outputs are changed: change(outputs, inputs)."""

    def changed(right, inputs, settings):
        kept = {key: value.copy() for key, value in inputs.items()}
        outputs = right(inputs, settings)
        change(outputs, kept)
        return outputs

    return instead(name, changed)


def settings(name, **other):
    """Return a backend with one operation that takes other settings than it is given."""
    return instead(name, lambda right, i, s: right(i, s | other))


def times(name, factor):
    def change(outputs, inputs):
        outputs[name] = np.asarray(outputs[name] * np.float32(factor))

    return change
