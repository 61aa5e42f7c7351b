"""Published clusters and runs beside what the cost functions of refimpl say about them.

    python -m benchmarks.published p4d-100b

    quantities.py   a number with its provenance; a preset is made of them
    presets.py      published clusters and runs, as data
    calibrate.py    the numbers of a preset that are fitted
    comparison.py   what is assumed, fitted and predicted, side by side with what was published
    sensitivity.py  how far the result hangs on each assumption
    text.py         all of it as text

In a checkout `refimpl plan --preset NAME` prints the same.  Docs: docs/plan.md.
"""
