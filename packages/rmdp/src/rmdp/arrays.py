"""One spelling for NumPy's arrays and torch's tensors.

Networks of this size take a few microseconds per operation, less than torch needs to begin one, and half of what torch
then spends goes to its hyperbolic tangent, for which NumPy's vectorised one takes a seventh of the time. On the CPU
learning and acting therefore work on NumPy's arrays, which share memory with the parameters; elsewhere on tensors. The
functions that they call are called the same in both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

__all__ = ["Array", "empty", "namespace", "one_blas_thread", "take", "to_array"]

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
