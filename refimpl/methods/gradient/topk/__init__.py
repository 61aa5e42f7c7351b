"""Chunked top-k: of every chunk the largest values are sent, the rest stays.

file          what it is about
message.py    chunks; what is sent of them, as floats or in two bits; the bytes
exchange.py   everybody's messages to everybody, added up in rank order
method.py     the method on the gradient axis
"""
