"""Arrays that NumPy and torch share, and what both do to them."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Array", "Step", "add_shift", "centred", "empty", "mean", "product", "ready", "relu", "relu_backward", "take",
    "tanh_backward", "to_array", "weighted_sum",
]  # fmt: skip

_ATEN = torch.ops.aten

Array = NDArray[Any]
Step = Callable[[], object]
"""An operation on arrays that are fixed beforehand."""


def to_array(tensor: Tensor) -> Array:
    """The tensor's numbers as an array whose rows are one stretch of memory each."""
    return tensor.detach().contiguous().numpy()


def empty(like: Array, *shape: int) -> Array:
    """An array with any content; torch begins its memory where vector instructions like it to."""
    return torch.empty(shape, dtype=torch.from_numpy(like).dtype).numpy()


def ready(function: Callable[..., object], *arrays: Array, out: Array) -> Step:
    """A function of torch as a step on these arrays; where rows are broadcast it takes a third of NumPy's time."""
    return partial(function, *map(torch.from_numpy, arrays), out=torch.from_numpy(out))


def product(left: Array, right: Array, out: Array, *, add: bool = False) -> Step:
    """The step out = left @ right, or out += left @ right, of matrices."""
    return ready(torch.addmm, out, left, right, out=out) if add else ready(torch.mm, left, right, out=out)


def add_shift(x: Array, shift: Array, out: Array) -> Step:
    """The step out = x + shift for a shift of each row, x [rows, .]."""
    return ready(torch.add, x, shift[:, None], out=out)


def weighted_sum(weights: Array, parts: Array, out: Array, *, add: bool = False) -> list[Step]:
    """The steps to out = sum_k weights[k] parts[k], or out += that sum, of a few."""
    pairs = list(zip(weights, parts, strict=True))
    begin = [] if add else [ready(torch.mul, *pairs.pop(0), out=out)]
    return [*begin, *(ready(torch.addcmul, out, *pair, out=out) for pair in pairs)]


def take(steps: Iterable[Step]) -> None:
    """Take steps one after the other."""
    for step in steps:
        step()


def relu(x: Array) -> Step:
    """The step x = max(x, 0)."""
    return partial(torch.relu_, torch.from_numpy(x))


def relu_backward(y: Array, at_y: Array) -> Step:
    """The step from the derivative by y = max(x, 0) to that by x, in its place."""
    gradient = torch.from_numpy(at_y)
    return partial(_ATEN.threshold_backward, gradient, torch.from_numpy(y), 0, grad_input=gradient)


def tanh_backward(y: Array, at_y: Array) -> Step:
    """The step from the derivative by y = tanh(x) to that by x, in its place."""
    gradient = torch.from_numpy(at_y)
    return partial(_ATEN.tanh_backward, gradient, torch.from_numpy(y), grad_input=gradient)


def mean(x: Array, axis: int, out: Array) -> None:
    """The mean over an axis."""
    np.add.reduce(x, axis=axis, out=out)
    np.multiply(out, 1 / x.shape[axis], out=out)


def centred(weight: Tensor, axis: int = 1) -> Tensor:
    """A weight that ignores what a norm takes away, the mean over the channels along its axis."""
    return weight - weight.mean(axis, keepdim=True)
