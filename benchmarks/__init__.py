"""What stands beside the package: peers, links and published figures to hold it against.

    step.py           a training step on one rank beside its matrix products
    torch_hsdp.py     training beside PyTorch's
    compare_mpi.py    MPIs beside each other
    bad_inputs.py     a thousand mistakes of users: each one line, on all ranks, nothing left
    same_bits.py      the same bits and messages from two commits?
    surroundings.py   the environment variables of the ranks of both
    cluster/          a cluster in a box: slow links on one machine
    published/        published runs beside what the cost functions say about them
    workers/          the published error rates of 32, 64 and 128 workers, asked again

Each is run from a checkout, whose refimpl it takes.
"""
