"""What is learned: speech, images.

    protocol.py   what the trainer asks of a task
    table.py      the tasks by name; a run's data become one
    batches.py    which examples are in which micro-batch
    faults.py     several mistakes, told at once
    scoring.py    loss and errors of a classifier, the same on any number of ranks
    images/       digits from idx files, or toy digits
    acoustic/     recordings, targets that are re-aligned, words; synth/ makes recordings

A new task is a folder with a class that keeps `protocol.Task`, and a line in the table.
"""
