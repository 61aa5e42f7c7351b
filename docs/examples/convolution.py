"""Image classifier with a layer of its own, a convolution: a model file like those in models/.

layer                in -> out                         shape after, of 28 x 28 pixels
edges                5 x 5 patches, 2 apart -> 8       (B, 12 * 12 * 8)
relu
digits               affine -> 10                      (B, 10)
"""

import math

import numpy as np

from refimpl import nn
from refimpl.run.config import Recipe
from refimpl.support.errors import require


class Convolution(nn.Layer):
    """y = patch w + b for every patch of an image, with the same w and b.

    A row of x is an image (height, width, channels), row after row; a row of y the same of the
    patches' places and ``outputs`` channels.  All patches of B images are the rows of one affine
    layer, which holds the parameters, w (kernel rows * columns * channels, outputs) and b.
    """

    def __init__(self, name, image, kernel, outputs, stride, seed):
        height, width, channels = image
        rows, columns = kernel
        require(rows <= height and columns <= width, f"layer {name!r}: {kernel} beyond {image}")
        self.places = (height - rows) // stride + 1, (width - columns) // stride + 1
        self.affine = nn.Affine(name, rows * columns * channels, outputs, seed)
        self.name, self.parameters = name, self.affine.parameters
        self.image, self.kernel, self.stride = image, kernel, stride
        self.inputs, self.outputs = math.prod(image), math.prod(self.places) * outputs

    def plan(self, batch, inputs, dtype, in_place=False):
        self.patches = np.zeros((batch, *self.places, *self.kernel, self.image[2]), dtype)
        self.dx = np.zeros((batch, *self.image), dtype)
        self.affine.plan(batch * math.prod(self.places), self.affine.inputs, dtype)
        return self.outputs

    def bind(self, parameters, gradients=None):
        self.affine.bind(parameters, gradients)

    def initialise(self, parameters):
        self.affine.initialise(parameters)

    def _rows(self, x):
        return len(x) * math.prod(self.places)  # 0 of no images: the last batch may have none

    def _windows(self, images):
        """Yield (row, column, what the patches have there: (B, *places, channels)), in images."""
        (down, across), s = self.places, self.stride
        for i, j in np.ndindex(*self.kernel):
            yield i, j, images[:, i : i + s * (down - 1) + 1 : s, j : j + s * (across - 1) + 1 : s]

    def forward(self, x):
        patches = self.patches[: len(x)]
        for i, j, there in self._windows(x.reshape(len(x), *self.image)):
            patches[:, :, :, i, j] = there
        y = self.affine.forward(patches.reshape(self._rows(x), self.affine.inputs))
        return y.reshape(len(x), self.outputs)

    def backward(self, dy, input_gradient=True):
        count, dy = len(dy), dy.reshape(self._rows(dy), self.affine.outputs)
        below = self.affine.backward(dy, input_gradient)
        if below is None:
            return None
        dx = self.dx[:count]
        patches = below.reshape(count, *self.patches.shape[1:])
        dx.fill(0)  # a pixel is in several patches: their gradients are added in a fixed order
        for i, j, there in self._windows(dx):
            there += patches[:, :, :, i, j]
        return dx.reshape(count, self.inputs)


def build(seed, inputs=784, classes=10, channels=8, kernel=5, stride=2):
    side = math.isqrt(inputs)
    require(
        side * side == inputs, f"{inputs} pixels are no square: this model takes square images"
    )
    edges = Convolution("edges", (side, side, 1), (kernel, kernel), channels, stride, seed)
    return nn.Sequential(edges, nn.Relu(), nn.Affine("digits", edges.outputs, classes, seed))


def recipe():
    return Recipe(task="images", epochs=3, batch=32, lr=0.05, momentum=0.9, methods={"tau": 2.0})
