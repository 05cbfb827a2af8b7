r"""Small stacked networks by hand: forward and backward passes and Adam, in NumPy.

In one-step games networks have so few units that what a library does around the arithmetic, above all automatic
differentiation, takes ten times as long as the arithmetic.  These functions say the same as `mediated_marl.networks`
and `torch.optim.Adam`, on arrays that share their memory with the torch parameters: tests hold the two together.

Adam's arithmetic is the same for every parameter, so all parameters of a run are one vector.  With the L2 penalty w,
gradients g, decays b_1, b_2 and step t (Kingma and Ba, arXiv:1412.6980, algorithm 1),

    g <- g + w p,    m <- b_1 m + (1 - b_1) g,    v <- b_2 v + (1 - b_2) g^2,
    p <- p - rate / (1 - b_1^t) * m / (sqrt(v / (1 - b_2^t)) + 1e-8).
"""

from collections.abc import Iterable
from functools import cache, reduce
from typing import Any

import numpy as np
import torch
from torch import nn

from mediated_marl.networks import StackedMLP

__all__ = ["Array", "FlatAdam", "NetworkArrays", "flatten_parameters", "log_policy_gradient", "log_softmax", "total"]

Array = np.ndarray[Any, np.dtype[Any]]

EPSILON = 1e-8


def flatten_parameters(parameters: Iterable[nn.Parameter]) -> Array:
    """Move parameters into one vector; each becomes a view of its part, and what changes one changes the other."""
    parts = list(parameters)
    vector = torch.cat([part.detach().flatten() for part in parts])
    for part, values in zip(parts, vector.split([part.numel() for part in parts]), strict=True):
        part.data = values.view_as(part)
    return vector.numpy()


def log_softmax(logits: Array) -> Array:
    """Log-probabilities over the last dimension."""
    shifted = logits - reduce(np.maximum, columns(logits))
    shifted -= np.log(total(np.exp(shifted)))
    return shifted


def log_policy_gradient(log_probabilities: Array, gains: Array, bonus: Array | float) -> Array:
    """The slope of `sum_a gains_a log pi_a + bonus * entropy(pi)` in the logits of a softmax policy pi.

    With `y = gains - bonus pi log pi` it is `y - pi sum(y)`; an illegal action, of probability 0, has none.

    Args:
        log_probabilities: `[*batch, A]`.
        gains: `[*batch, A]`, say the advantages summed by the action that earned them.
        bonus: weight of the entropy, broadcast to `[*batch, A]`.
    """
    probabilities = np.exp(log_probabilities)
    pull = gains - bonus * (probabilities * log_probabilities)
    slope: Array = pull - probabilities * total(pull)
    return slope


def total(amounts: Array) -> Array:
    """Sums over the last dimension, which is kept."""
    return reduce(np.add, columns(amounts))


def columns(amounts: Array) -> list[Array]:
    """Where the last dimension is short, reducing its entries one by one is faster than along it."""
    return [amounts[..., entry : entry + 1] for entry in range(amounts.shape[-1])]


@cache
def ones(count: int) -> Array:
    """A row of ones, `[1, count]`, by which matrices are summed."""
    return np.ones((1, count), np.float32)


class NetworkArrays:
    """The parameters of stacked networks as arrays that share their memory, M networks in one dimension.

    Args:
        network: the networks, once `flatten_parameters` has moved them.
    """

    def __init__(self, network: StackedMLP) -> None:
        self.weights = [weight.detach().numpy() for weight in network.weights]
        self.biases = [bias.detach().numpy() for bias in network.biases]

    def layers(self, inputs: Array) -> list[Array]:
        """What each layer reads, and last the output, `[M, B, features]`, from `[B, inputs]` shared by all networks."""
        layers, last = [inputs], len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            output = layers[-1] @ weight
            output += bias
            layers.append(output if layer == last else np.maximum(output, 0, out=output))
        return layers

    def gradients(self, layers: list[Array], slope: Array) -> list[Array]:
        """The gradient of every parameter, in the order of `StackedMLP.parameters()`.

        Args:
            layers: what `layers` returned.
            slope: the derivative of a scalar by the output, `[M, B, outputs]`.
        """
        weights, biases = [], []
        for layer in reversed(range(len(self.weights))):
            weights.append(layers[layer].swapaxes(-1, -2) @ slope)
            biases.append(ones(slope.shape[1]) @ slope)
            if layer:
                slope = slope @ self.weights[layer].swapaxes(1, 2)
                slope *= layers[layer] > 0
        return weights[::-1] + biases[::-1]


class FlatAdam:
    """Adam on one vector.

    Args:
        parameters: the vector, changed in place.
        decays: of the mean of gradients and of their squares.
        weight_decay: the L2 penalty.
    """

    def __init__(self, parameters: Array, decays: tuple[float, float], weight_decay: float = 0.0) -> None:
        self.parameters, self.decays, self.weight_decay = parameters, decays, weight_decay
        self._step = 0
        self._mean, self._squares = np.zeros_like(parameters), np.zeros_like(parameters)

    def descend(self, gradient: Array, rates: Array) -> None:
        """One step against a gradient, which is used up; `rates` is the learning rate of every entry."""
        first, second = self.decays
        self._step += 1
        if self.weight_decay:
            gradient += self.weight_decay * self.parameters
        self._mean *= first
        self._mean += (1 - first) * gradient
        gradient *= gradient
        self._squares *= second
        self._squares += (1 - second) * gradient
        spread = np.sqrt(self._squares, out=gradient)
        spread *= (1 - second**self._step) ** -0.5
        spread += EPSILON
        step = self._mean / spread
        step *= rates
        step *= 1 / (1 - first**self._step)
        self.parameters -= step

    def state_dict(self) -> dict[str, Any]:
        """The running means and the count of steps; the parameters are their modules' own."""
        return {
            "step": self._step,
            "mean": torch.from_numpy(self._mean.copy()),
            "squares": torch.from_numpy(self._squares.copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._step = state["step"]
        self._mean[:] = state["mean"].numpy()
        self._squares[:] = state["squares"].numpy()
