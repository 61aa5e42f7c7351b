"""Networks: layers with hand-written backward passes over flat vectors owned by somebody else.

file            what it holds
functional.py   forward and backward rules as pure functions, beside their equations
init.py         initial values, by name
layers.py       the rules with workspaces; layers in a row
dropout.py      the layer that leaves out values at random, in training
loss.py         softmax and cross-entropy, the same
flat.py         all parameters in one vector, padded and cut for p ranks: arithmetic only
"""

from refimpl.nn.dropout import Dropout
from refimpl.nn.flat import Layout, Unit, named
from refimpl.nn.functional import errors
from refimpl.nn.init import Initial
from refimpl.nn.layers import Affine, Layer, MicroBatch, Parameter, Relu, Sequential, Sigmoid, Tanh
from refimpl.nn.loss import SoftmaxCrossEntropy

__all__ = [
    "Affine",
    "Dropout",
    "Initial",
    "Layer",
    "Layout",
    "MicroBatch",
    "Parameter",
    "Relu",
    "Sequential",
    "Sigmoid",
    "SoftmaxCrossEntropy",
    "Tanh",
    "Unit",
    "errors",
    "named",
]
