"""One spelling for NumPy's arrays and torch's tensors.

Networks of this size take a few microseconds per operation, less than torch needs to begin one, and half of what torch
then spends goes to its hyperbolic tangent, for which NumPy's vectorised one takes a seventh of the time. On the CPU
learning and acting therefore work on NumPy's arrays, which share memory with the parameters; elsewhere on tensors. The
functions that they call are called the same in both.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor

__all__ = [
    "Array",
    "copy",
    "empty",
    "flat",
    "limited",
    "namespace",
    "one_blas_thread",
    "stack",
    "take",
    "to_array",
    "to_numpy",
]

Array = Any
"""NumPy's array, or torch's tensor."""


def to_array(tensor: Tensor) -> Array:
    """The tensor's numbers, in the same memory."""
    tensor = tensor.detach()
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def namespace(array: Array) -> ModuleType:
    """The module whose functions work on this array."""
    return torch if isinstance(array, Tensor) else np


def empty(like: Array, shape: tuple[int, ...]) -> Array:
    """An array of the same kind, dtype and place, with any content."""
    return like.new_empty(shape) if isinstance(like, Tensor) else np.empty(shape, like.dtype)


def to_numpy(array: Array) -> NDArray[Any]:
    """NumPy's array of the same numbers."""
    return array.cpu().numpy() if isinstance(array, Tensor) else array


def copy(array: Array) -> Array:
    """The same numbers in memory of their own."""
    return array.clone() if isinstance(array, Tensor) else array.copy()


def flat(array: Array) -> Array:
    """The first two dimensions as one."""
    return array.reshape(-1, *array.shape[2:])


def limited(array: Array, limit: float, out: Array | None = None) -> Array:
    """The numbers no further from zero than `limit`."""
    if isinstance(array, Tensor):
        return torch.clip(array, -limit, limit, out=out)
    smaller = np.minimum(array, limit, out=out)  # half of the time that NumPy's own function takes for few numbers
    return np.maximum(smaller, -limit, out=smaller)


def stack(arrays: Sequence[Array]) -> Array:
    """Arrays along a new first dimension."""
    return torch.stack(tuple(arrays)) if isinstance(arrays[0], Tensor) else np.array(arrays)


def take(source: Array, order: Array, out: Array) -> None:
    """Copy the samples source[:, order] to `out`."""
    if isinstance(source, Tensor):
        torch.index_select(source, 1, order, out=out)
    else:
        np.take(source, order, axis=1, out=out, mode="clip")  # any other mode copies twice


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep NumPy's matrix products on the calling thread: at this size handing them out takes longer than they do."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()
