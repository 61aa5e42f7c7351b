"""refimpl: MiCS, GTC and BMUF in NumPy and MPI, written out to be read and to be trusted.

The folders in reading order, which is also the direction of imports:

    topology.py       who talks to whom: the rank grid, the nodes, the communicators
    ledger.py         what was sent, by class of link and purpose
    communicator.py   the only way in which this package sends anything
    collectives/      ring, halving-doubling, tree, hierarchical, MPI's own; their costs
    exact.py          sums that do not depend on their order
    compression/      GTC and one-bit messages: encode, exchange, decode
    nn/  optim/       layers with hand-written backward passes, optimizers, schedules
    data/  acoustic/  images; speech, from wav files to word errors, and a synthesizer
    parallel/         strategies: sharding, gradient methods, BMUF, and one step of them all
    config.py  modelfile.py  trainer.py  runs.py  steplog.py      one run
    compare.py  picture.py  plan/  bench/             runs side by side, on paper, by the clock
    cli/              the command line

Nothing here starts MPI when it is imported.
"""

__version__ = "0.1.0"
