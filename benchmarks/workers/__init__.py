"""The published error column, asked again: GTC, BMUF and their hybrid at 32, 64 and 128 workers.

    python benchmarks/workers --out DIR             the whole experiment; some hours of one core
    python benchmarks/workers --out DIR --report    the tables and the picture of what is there
    python benchmarks/workers --report              of the runs kept here: docs/workers.md's
    python benchmarks/workers --quick               everything in small, in seconds

Every worker has its own mini-batches of the same size, so a step's frames grow with the workers.
All see the same frames; learning rate, momentum, clipping, warm start and threshold are searched
for each method and number of workers, by the same number of trials on dev.  It can be stopped at
any moment and goes on where it was.

    fleet.py     all workers in one process, one after the other: the bits of as many ranks
    spliced.py   frames beside their neighbours, for less time
    jobs.py      what one training run is; how large the experiment is
    desk.py      runs trained, scored and kept: one JSON file each
    search.py    the trials for one method and number of workers
    work.py      everything there is to do, in its order; what may be the cause
    table.py     intervals, the tables
    picture.py   the picture
    kept.py      the runs that docs/workers.md tells of, in one file
"""
