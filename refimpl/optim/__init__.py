"""Optimizers on flat vectors, learning-rate schedules, gradient clipping.

file          what it holds
base.py       the interface: allocate, advance, update
sgd.py        gradient descent, momentum, Nesterov
adam.py       Adam and AdamW
clip.py       clipping by the global norm, of a vector cut into shards
named.py      by name, with hyper-parameters
schedule.py   the learning rate over time
"""

from __future__ import annotations

from collections.abc import Callable

from refimpl.optim import clip, named, schedule
from refimpl.optim.adam import Adam
from refimpl.optim.base import Optimizer
from refimpl.optim.sgd import SGD

__all__ = ["OPTIMIZERS", "SGD", "Adam", "Optimizer", "clip", "hyper", "make", "schedule"]


def _sgd(weight_decay: float = 0.0) -> Optimizer:
    return SGD(momentum=0.0, weight_decay=weight_decay)


def _momentum(momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    return SGD(momentum=momentum, weight_decay=weight_decay)


def _nesterov(momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    return SGD(momentum=momentum, nesterov=True, weight_decay=weight_decay)


def _adam(
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0
) -> Optimizer:
    return Adam(beta1, beta2, eps, weight_decay)


def _adamw(
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01
) -> Optimizer:
    return Adam(beta1, beta2, eps, weight_decay, decoupled=True)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adam": _adam,
    "adamw": _adamw,
}


def hyper(name: str) -> dict[str, float]:
    """Return the hyper-parameters of the optimizer of this name, with their defaults.

    >>> hyper("momentum")
    {'momentum': 0.9, 'weight_decay': 0.0}
    """
    return named.defaults("optimizer", OPTIMIZERS, name)


def make(name: str, **given: float) -> Optimizer:
    """Return the optimizer of this name; hyper-parameters as keywords.

    Raises `UserError` for an unknown name, a hyper-parameter that it does not have, or a value out
    of range.
    """
    return named.made("optimizer", OPTIMIZERS, name, **given)
