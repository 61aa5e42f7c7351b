"""Templates of a backend, each one file that stands alone; `refimpl golden template` copies one.

file         language                    answers
golden.c     C99, no libraries           collectives to optimizers, one step of plain rows, GTC
golden.py    Python, NumPy alone         a few operations
golden.rs    Rust, standard library      a few operations
"""
