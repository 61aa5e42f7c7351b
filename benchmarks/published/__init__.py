"""Published clusters and runs beside what the cost functions of refimpl say about them.

    python -m benchmarks.published p4d-100b

    quantities.py   a number with its provenance; a preset is made of them
    presets.py      published clusters and runs, as data
    calibrate.py    the numbers of a preset that are fitted
    comparison.py   what is assumed, fitted and predicted, side by side with what was published
    sensitivity.py  how far the result hangs on each assumption
    text.py         all of it as text; pieces.py has what all presets' texts share

    interspeech2019.py, speedups.py, speedup_text.py    the same for GTC, BMUF and their hybrid

In a checkout `refimpl plan --preset NAME` prints the same.  Docs: docs/plan.md.
"""
