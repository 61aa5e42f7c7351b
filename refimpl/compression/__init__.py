"""Gradients as signs: fewer bits per value, and what was not sent is kept.

    file           what travels                              where the rest stays
    threshold.py   +-tau where the residual is beyond it     in the sender's residual       (GTC)
    bits.py        (how what is beyond is found)
    wire.py        the bytes of such a message, three ways
    exchange.py    everybody's messages to everybody
    guard.py       a threshold that sends nothing, or nearly everything, is told
    onebit.py      the sign of every value, and a scale      in the sender's and the owner's

Both are *error feedback*: what was sent plus what stays is exactly what was there, so over time
the sum of messages follows the sum of gradients.
"""
