"""A tiny run whose model does something of its own on a rank in a step, on ranks as threads."""

from types import SimpleNamespace

import numpy as np

from refimpl import nn
from refimpl.run.care import Care
from refimpl.run.config import Recipe, Run
from refimpl.run.modelfile import ModelFile
from refimpl.run.resume import Job
from refimpl.tasks.images.task import ImageExamples, ImageTask


def images():
    """A task of 96 images of 6 pixels, of three kinds."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (96, 2, 3)).astype(np.uint8)
    labels = rng.integers(0, 3, 96)
    return ImageTask(6, {name: ImageExamples(pixels, labels) for name in ("train", "dev", "test")})


def trained(comm, path, hook, care=None, say=lambda text: None, hung=print, **run):
    """Train on ranks that are threads, in a folder; hook(layer, rank, step) is called in steps.

    ``tasks.prepare`` is to give `images`.
    """

    class Hooked(nn.Affine):
        steps = 0

        def bind(self, parameters, gradients=None):
            super().bind(parameters, gradients)
            self.own = parameters

        def backward(self, dy, input_gradient=True):
            self.steps += 1
            hook(self, comm.rank, self.steps)
            return super().backward(dy, input_gradient)

    def build(seed, inputs, classes):
        first = nn.Affine("a", inputs, 4, seed)
        return nn.Sequential(first, nn.Tanh(), Hooked("b", 4, classes, seed))

    module = SimpleNamespace(build=build, __spec__=SimpleNamespace(origin="here"))
    recipe = Recipe(task="images", epochs=9, lr=0.1, batch=4)
    run = Run("net", recipe, **{"steps": 6} | run)
    job = Job(comm, path, run, ModelFile("net", "", module), care=care or Care())
    return job.train(say, hung=hung)
