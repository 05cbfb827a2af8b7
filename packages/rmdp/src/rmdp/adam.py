"""Adam for rows of parameters, each with a gradient of limited norm (Kingma and Ba, arXiv 1412.6980).

With the moments m = sum of beta1^(t-s) g_s and v = sum of beta2^(t-s) g_s^2 over the steps s <= t, without the factors
1 - beta that the paper has inside, its step is

    x <- x - a m / (sqrt(v) + e),    c = sqrt((1 - beta2^t) / (1 - beta2)),
    a = rate c (1 - beta1) / (1 - beta1^t),    e = epsilon c,

which takes fewer passes over memory. The gradient of each row is shortened to a given norm before.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from rmdp.arrays import Array, namespace, to_array
from rmdp.backpropagation import Rows

__all__ = ["Adam", "shorten"]

_BETAS, _EPSILON = (0.9, 0.999), 1e-5


class Adam:
    """An optimiser of a matrix.

    Args:
        rows: The matrix.
        members: Its rows that this optimiser moves.
    """

    def __init__(self, rows: Rows, members: slice = slice(None)) -> None:
        self._values, self._gradient = (to_array(part)[members] for part in rows)
        self._moments = torch.zeros_like(rows.values[members]), torch.zeros_like(rows.values[members])
        self._steps = 0

    def step(self, rate: float, gradient_norm: float, resting: Array | None = None) -> None:
        """Shorten the gradient and follow it.

        Args:
            rate: The learning rate.
            gradient_norm: Largest norm of a row.
            resting: Which rows stay where they are, (rows,): without a gradient their momentum would still move them.
        """
        values, gradient = self._values, self._gradient
        (beta1, beta2), (mean, square), xp = _BETAS, map(to_array, self._moments), namespace(values)
        self._steps += 1
        correction = math.sqrt((1 - beta2**self._steps) / (1 - beta2))
        pace = rate * correction * (1 - beta1) / (1 - beta1**self._steps)
        shorten(gradient, gradient_norm)
        mean *= beta1
        mean += gradient
        square *= beta2
        xp.multiply(gradient, gradient, out=gradient)
        square += gradient
        xp.sqrt(square, out=gradient)
        gradient += _EPSILON * correction
        xp.divide(mean, gradient, out=gradient)
        gradient *= pace
        if resting is not None and resting.any():
            gradient[resting] = 0
        values -= gradient

    def state_dict(self) -> dict[str, Any]:
        """Both moments and the number of steps."""
        return {"mean": self._moments[0], "square": self._moments[1], "steps": self._steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        for moment, name in zip(self._moments, ("mean", "square"), strict=True):
            moment.copy_(state[name])
        self._steps = state["steps"]


def shorten(gradient: Array, largest: float) -> None:
    """Shorten each row of a matrix to the norm `largest`."""
    xp = namespace(gradient)
    norm = xp.sqrt(xp.linalg.vecdot(gradient, gradient))
    gradient *= (largest / xp.clip(norm, largest, None))[:, None]
