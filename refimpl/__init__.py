"""refimpl: MiCS, GTC and BMUF in NumPy and MPI, written out to be read and to be trusted.

The rooms in reading order.  A file imports from its own room or from those above it:

    support/      errors that a caller can make, progress
    world/        the rank grid, the nodes, communicators, what was sent, ranks as threads
    numerics/     draws and sums that do not depend on the cluster
    collectives/  ring, halving-doubling, tree, hierarchical, MPI's own; their costs
    nn/           layers with hand-written backward passes, the flat vector of parameters
    optim/        optimizers, clipping, schedules
    state/        what a run is: named arrays and where each piece of them lives; digests
    methods/      what fills the axes: sharding, gradient methods, BMUF; one step of them all
    tasks/        what is learnt: images; speech, from wav files to word errors, and a synthesizer
    run/          one run: its settings, the training loop, its folder; runs side by side
    golden/       values that other implementations test themselves against
    plan/         step times on paper, and in virtual time
    cli/          the command line

Beside the package stand ``models/`` (one file is one model), ``tests/`` (with the same rooms),
``docs/`` (the book, in the same order) and ``benchmarks/``.

Nothing here starts MPI when it is imported.
"""

__version__ = "0.1.0"
