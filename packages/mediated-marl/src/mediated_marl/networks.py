"""Many small networks as one: parameters with leading stack dimensions, one batched product per layer.

Seeds share no parameters, so a run of S seeds trains S networks of a kind.  Their weights are stored as
`[*stack, inputs, outputs]`; a forward pass of all of them is one `baddbmm` per layer, and one optimiser moves them all,
each by its own gradient.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["MASKED", "StackedMLP", "entropy"]

MASKED = -1e9
"""The logit of an illegal action: its probability is exactly 0 and its gradient finite."""


class StackedMLP(nn.Module):
    """Multilayer perceptrons with ReLU, one per element of the stack.

    Args:
        stack: the leading dimensions, say `(seeds, agents)`.
        sizes: features of the input, of every hidden layer, and of the output.
        generator: draws the parameters, uniform within `1 / sqrt(inputs)` as `torch.nn.Linear` does.
    """

    def __init__(self, stack: tuple[int, ...], sizes: Sequence[int], generator: torch.Generator) -> None:
        super().__init__()
        self.stack = stack
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        count = math.prod(stack)
        for inputs, outputs in pairwise(sizes):
            bound = 1 / math.sqrt(inputs)
            self.weights.append(nn.Parameter(_uniform((count, inputs, outputs), bound, generator)))
            self.biases.append(nn.Parameter(_uniform((count, 1, outputs), bound, generator)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply each network to its own batch: `[*stack, B, inputs]` to `[*stack, B, outputs]`."""
        hidden = inputs.reshape(-1, *inputs.shape[-2:])
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = hidden if layer == last else hidden.relu()
        return hidden.reshape(*self.stack, *hidden.shape[-2:])


def entropy(log_probabilities: Tensor) -> Tensor:
    """Entropy in nats over the last dimension; a probability of 0 adds nothing."""
    return -(log_probabilities.exp() * log_probabilities).sum(-1)


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=generator, device=generator.device) * 2 - 1) * bound
