"""Values and gradients of the stacked networks, the gradients by hand, in memory that is used again and again.

For a layer y = x W + b with the derivative g of a loss by y,

    dL/dW = x' g,    dL/db = sum of the rows of g,    dL/dx = g W',    and by u, where x = tanh(u):  dL/dx (1 - x^2).

The result is that of automatic differentiation up to rounding.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmdp.arrays import Array, empty, namespace, to_array
from rmdp.policies import StackedLinear

__all__ = ["Layer", "Pass", "Rows", "adopt", "join", "layers_of", "rows_of"]


class Rows(NamedTuple):
    """Parameters as a matrix."""

    values: Tensor
    """A row for each representative, with all its own parameters; or one row that all share."""
    gradient: Tensor
    """Of a loss by the values."""


class Layer(NamedTuple):
    """A stack of affine maps and the gradients of a loss by them."""

    weight: Array
    """(stack, inputs, outputs)."""
    bias: Array
    """(stack, 1, outputs); or one for each representative in a layer whose weight they share."""
    by_weight: Array
    """Like the weight."""
    by_bias: Array
    """Like the bias."""


def join(module: nn.Module, k: int) -> list[Rows]:
    """Lay the parameters of each of k representatives side by side, those shared by all in one more matrix.

    The module's parameters and their gradients become views of these matrices; saving and loading go on as before.
    """
    flattened = [[parameter.detach().flatten(1) for parameter in group] for group in _groups(module, k)]
    return adopt(module, k, [torch.cat(group, 1) for group in flattened])


def adopt(module: nn.Module, k: int, matrices: Sequence[Tensor]) -> list[Rows]:
    """Let the module's parameters be views of the matrices that `join` once made of them."""
    joint = [Rows(matrix, torch.zeros_like(matrix)) for matrix in matrices]
    for group, rows in zip(_groups(module, k), joint, strict=True):
        sizes = [parameter[0].numel() for parameter in group]
        for parameter, values, slopes in zip(group, *(part.split(sizes, 1) for part in rows), strict=True):
            parameter.data, parameter.grad = (part.unflatten(1, parameter.shape[1:]) for part in (values, slopes))
    return joint


def layers_of(net: nn.Sequential, members: slice = slice(None)) -> list[Layer]:
    """The linear layers of some members of a stack; the way back needs gradients (see `join`)."""
    layers = [layer for layer in net if isinstance(layer, StackedLinear)]
    parts = [(layer.weight, layer.bias, layer.weight.grad, layer.bias.grad) for layer in layers]
    return [Layer(*(None if part is None else rows_of(to_array(part), members) for part in four)) for four in parts]


def rows_of(parameter: Array, members: slice) -> Array:
    """The rows of some members of a stack; the only row where all share it."""
    return parameter if len(parameter) == 1 else parameter[members]


class Pass:
    """A batch on its way through a stack of networks, linear layers with tanh in between, and back.

    Args:
        layers: Of the networks.
        k: How many representatives.
        size: Samples of each.

    Attributes:
        inputs: (k, size, D), to be filled before `forward`.
        output: (k, size, outputs), filled by `forward`; to be replaced by the derivative of a loss before `backward`.
    """

    def __init__(self, layers: Sequence[Layer], k: int, size: int) -> None:
        first = layers[0].weight
        self._namespace = namespace(first)
        widths = [first.shape[1], *(layer.weight.shape[2] for layer in layers)]
        values = [empty(first, (k, size, width)) for width in widths]
        self.inputs, self.output = values[0], values[-1]
        slopes = [self.inputs, *(empty(first, value.shape) for value in values[1:-1]), self.output]
        self._stages = []
        for layer, around, slopes_around in zip(layers, pairwise(values), pairwise(slopes), strict=True):
            before, after, below, slope = (
                part.reshape(len(layer.weight), -1, part.shape[-1]) for part in (*around, *slopes_around)
            )
            shifted, falling = (part.reshape(len(layer.bias), -1, part.shape[-1]) for part in (after, slope))
            ones = empty(first, (1, 1, shifted.shape[1]))
            ones[:] = 1
            self._stages.append(_Stage(layer, before, after, below, slope, shifted, falling, ones))

    def forward(self) -> None:
        """Evaluate the networks."""
        xp = self._namespace
        for stage in self._stages:
            xp.matmul(stage.before, stage.layer.weight, out=stage.after)
            xp.add(stage.shifted, stage.layer.bias, out=stage.shifted)
            if stage is not self._stages[-1]:
                xp.tanh(stage.after, out=stage.after)

    def backward(self) -> None:
        """Overwrite the gradients of the layers, and with them what `forward` left in between."""
        xp = self._namespace
        for stage in reversed(self._stages):
            layer, before, below, slope = stage.layer, stage.before, stage.below, stage.slope
            xp.matmul(before.mT, slope, out=layer.by_weight)
            xp.matmul(stage.ones, stage.falling, out=layer.by_bias)
            if stage is not self._stages[0]:
                xp.matmul(slope, layer.weight.mT, out=below)
                xp.multiply(before, before, out=before)
                xp.multiply(before, below, out=before)
                xp.subtract(below, before, out=below)


class _Stage(NamedTuple):
    """One layer of a pass, everything as (stack, rows, width)."""

    layer: Layer
    before: Array
    after: Array
    below: Array  # derivative by what the layer received
    slope: Array  # derivative by what it returned
    shifted: Array  # `after` and `slope` once more, as (biases, rows, width)
    falling: Array
    ones: Array


def _groups(module: nn.Module, k: int) -> list[list[nn.Parameter]]:
    """The parameters that each representative has of its own, and those that all share, where there are any."""
    parameters = list(module.parameters())
    groups = [[parameter for parameter in parameters if (len(parameter) == k) == own] for own in (True, False)]
    return [group for group in groups if group]
