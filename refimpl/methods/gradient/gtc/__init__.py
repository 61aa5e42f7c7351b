"""Gradient threshold compression (GTC): +-tau where the residual is beyond it, the rest stays.

    file           what it is about
    threshold.py   residuals, what is sent of them, and the sum of what was sent
    bits.py        (how what is beyond is found)
    header.py      the head of a message
    codes.py       its body, two bits per value
    rice.py        its body, the gaps between entries
    wire.py        the bytes of a message, three ways
    exchange.py    everybody's messages to everybody
    guard.py       a threshold that sends nothing, or nearly everything, is told
    method.py      the method on the gradient axis

It is *error feedback*: what was sent plus what stays is exactly what was there, so over time the
sum of messages follows the sum of gradients.

Where speed hides an idea, the idea stands above it in a few lines, in a function called `plain`.
"""
