"""What stands beside the package: peers, links and published figures to hold it against.

    step.py              a training step on one rank beside its matrix products
    startup.py           what it costs to start many ranks
    overlap.py           what messages that move while a rank computes would win, in virtual time
    tracing.py           what tracing costs
    survive.py           how long it takes to go on when a rank was killed
    kills.py             runs that are killed and resumed beside runs that nobody touched
    torch_hsdp.py        training beside PyTorch's
    torch_hsdp_ranks.py  one rank of either
    compare_mpi.py       MPIs beside each other
    bad_inputs.py        a thousand mistakes of users: each one line, on all ranks, nothing left
    mistakes/            the cases of bad_inputs.py
    same_bits.py         the same bits and messages from two commits?
    surroundings.py      the environment variables of ranks that are measured
    cluster/             a cluster in a box: slow links on one machine
    published/           published runs beside what the cost functions say about them
    workers/             the published error rates of 32, 64 and 128 workers, asked again

Each is run from a checkout, whose refimpl it takes.
"""
