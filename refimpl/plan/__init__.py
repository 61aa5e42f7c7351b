"""What a training step would take on a cluster that is not here: arithmetic, no MPI.

    model.py    from the size of the units, the speed of a rank and the links to one step's
                compute, gather, reduce-scatter and second hop; bytes per rank
    advise.py   a user's own model: a table over all p, and which p to take
    simulate.py the real step on ranks that are threads, in virtual time
    rings.py    rings that have their links to themselves, worked out at once
    text.py     advice and simulation as text

The times come from the cost functions that the collectives state (`refimpl.collectives.cost`);
nothing here knows how long a message takes.  Published clusters and runs, to which the same
equations are held, are in benchmarks/published, beside the package.
"""
