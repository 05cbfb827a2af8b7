r"""Small stacked networks by hand: forward and backward passes and Adam, in NumPy.

In one-step games networks have so few units that what a library does around the arithmetic, above all automatic
differentiation, takes ten times as long as the arithmetic.  These functions say the same as `mediated_marl.networks`
and `torch.optim.Adam`, on arrays that share their memory with the torch parameters: tests hold the two together.

Adam's arithmetic is the same for every parameter, so all parameters of a run are one vector.  With the L2 penalty w,
gradients g, decays b_1, b_2 and step t (Kingma and Ba, arXiv:1412.6980, algorithm 1),

    g <- g + w p,    m <- b_1 m + (1 - b_1) g,    v <- b_2 v + (1 - b_2) g^2,
    p <- p - rate / (1 - b_1^t) * m / (sqrt(v / (1 - b_2^t)) + 1e-8).

Samples are the last dimension of everything that networks read and return, since products, sums over a network's few
outputs and whatever is done entry by entry are fastest along many numbers that lie together.  Every layer reads a last
row of ones, so that its biases are the last row of its weights and one product does for both.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from mediated_marl.networks import StackedMLP

__all__ = [
    "Array",
    "FlatAdam",
    "NetworkArrays",
    "NetworkElsewhere",
    "Part",
    "Rooms",
    "entries",
    "flatten_parameters",
    "log_policy_gradient",
    "log_softmax",
    "network_arrays",
    "spread_rates",
    "total",
    "with_ones",
]

Array = np.ndarray[Any, np.dtype[Any]]
Part = nn.Parameter | StackedMLP

EPSILON = 1e-8


def flatten_parameters(parts: Sequence[Part]) -> Array:
    """Move parameters into one vector; each becomes a view of its part, and what changes one changes the other.

    Of a network's layers weights and biases lie together, `[M, inputs + 1, outputs]`, the biases last.
    """
    blocks = [block for part in parts for block in parameter_blocks(part)]
    vector = torch.cat([block.flatten() for block in blocks])
    values = vector.split([block.numel() for block in blocks])
    places = iter([place.view_as(block) for place, block in zip(values, blocks, strict=True)])
    for part in parts:
        if isinstance(part, nn.Parameter):
            part.data = next(places)
            continue
        for weight, bias in zip(part.weights, part.biases, strict=True):
            place = next(places)
            weight.data, bias.data = place[:, :-1], place[:, -1:]
    return vector.numpy()


def parameter_blocks(part: Part) -> list[Tensor]:
    """What of a part lies together."""
    if isinstance(part, nn.Parameter):
        return [part.detach()]
    return [
        torch.cat([layer[0].detach(), layer[1].detach()], 1) for layer in zip(part.weights, part.biases, strict=True)
    ]


def spread_rates(parts: Sequence[tuple[Part, float]], dtype: DTypeLike) -> list[Array]:
    """Each part's learning rate, once for every entry that `flatten_parameters` makes of it."""
    return [np.full(sum(block.numel() for block in parameter_blocks(part)), rate, dtype) for part, rate in parts]


def log_softmax(logits: Array, axis: int = -1) -> Array:
    """Log-probabilities over a dimension."""
    shifted = logits - reduce(np.maximum, entries(logits, axis))
    shifted -= np.log(total(np.exp(shifted), axis))
    return shifted


def log_policy_gradient(log_probabilities: Array, gains: Array, bonus: Array | float, axis: int = -1) -> Array:
    """The slope of `sum_a gains_a log pi_a + bonus * entropy(pi)` in the logits of a softmax policy pi.

    With `y = gains - bonus pi log pi` it is `y - pi sum(y)`; an illegal action, of probability 0, has none.

    Args:
        log_probabilities: `[*batch, A]`, or with A elsewhere.
        gains: of the same shape, say the advantages summed by the action that earned them.
        bonus: weight of the entropy, broadcast to that shape.
        axis: where A is.
    """
    probabilities = np.exp(log_probabilities)
    slope: Array = probabilities * log_probabilities
    slope *= bonus
    np.subtract(gains, slope, out=slope)
    probabilities *= total(slope, axis)
    slope -= probabilities
    return slope


def total(amounts: Array, axis: int = -1) -> Array:
    """Sums over a dimension, which is kept."""
    return reduce(np.add, entries(amounts, axis))


def entries(amounts: Array, axis: int) -> list[Array]:
    """Where a dimension is short, reducing its entries one by one is faster than along it."""
    before = (slice(None),) * (axis % amounts.ndim)
    return [amounts[(*before, slice(entry, entry + 1))] for entry in range(amounts.shape[axis])]


def with_ones(rows: Array) -> Array:
    """Inputs `[B, inputs]` as networks read them, `[inputs + 1, B]`."""
    return np.concatenate([rows.T, np.ones_like(rows.T[:1])])


class Rooms:
    """Large arrays that are filled again and again: to ask the system for new ones takes longer than to fill them."""

    def __init__(self) -> None:
        self._arrays: dict[tuple[str, tuple[int, ...]], Array] = {}

    def of(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """The array of a name and shape as it was left, at first all ones."""
        key = name, shape
        if key not in self._arrays:
            self._arrays[key] = np.ones(shape, dtype)
        return self._arrays[key]


class NetworkArrays:
    """The parameters of stacked networks as arrays that share their memory, M networks in one dimension.

    Args:
        network: the networks, once `flatten_parameters` has moved them.
    """

    def __init__(self, network: StackedMLP) -> None:
        self.blocks = [
            joined_layer(*layer)[:, np.newaxis] for layer in zip(network.weights, network.biases, strict=True)
        ]
        self._rooms = Rooms()

    def layers(self, inputs: Array) -> list[Array]:
        """What each layer reads, and last the output, `[M, G, outputs, B]`, from G groups of B samples.

        The next call of this shape overwrites it.

        Args:
            inputs: `[M, G, inputs + 1, B]`, or without M and G what all networks read; the last row is ones.
        """
        layers, groups, last = [inputs], math.prod(inputs.shape[1:-2]), len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            networks, outputs = block.shape[0], block.shape[-1]
            shape = (networks, groups, outputs + (layer < last), inputs.shape[-1])
            room = self._rooms.of(f"layer {layer}", shape, block.dtype)
            output = np.matmul(block.swapaxes(2, 3), layers[-1], out=room[:, :, :outputs])
            if layer < last:
                torch.from_numpy(output).relu_()
            layers.append(room)
        return layers

    def gradients(self, layers: list[Array], slope: Array) -> list[Array]:
        """The gradient of every layer's weights and biases, `[M, inputs + 1, outputs]` each.

        Args:
            layers: what `layers` returned, or some of its groups.
            slope: the derivative of a scalar by the output, `[M, G, outputs, B]`.
        """
        gradients = []
        for layer in reversed(range(len(self.blocks))):
            products = layers[layer] @ slope.swapaxes(2, 3)
            gradients.append(products[:, 0] if products.shape[1] == 1 else products.sum(1))
            if layer:
                active = layers[layer][:, :, :-1]
                room = self._rooms.of(f"slope {layer}", active.shape, slope.dtype)
                product = np.matmul if slope.shape[2] > 1 else np.multiply  # faster where there is but one output
                slope = through_relu(product(self.blocks[layer][:, :, :-1], slope, out=room), active)
        return gradients[::-1]


class NetworkElsewhere(NetworkArrays):
    """The same passes on another device: parameters, inputs and slopes go there, outputs and gradients come back.

    Worth it where networks are large or games many; small passes take less time than the way there.

    Args:
        network: the networks, once `flatten_parameters` has moved them.
        device: where to.
    """

    def __init__(self, network: StackedMLP, device: str) -> None:
        super().__init__(network)
        self._device = device

    def layers(self, inputs: Array) -> list[Any]:
        """See `NetworkArrays`; all but the output stay on the device, and nothing is overwritten."""
        last, layers = len(self.blocks) - 1, [self._there(inputs)]
        for layer, block in enumerate(self.blocks):
            output = self._there(block).mT @ layers[-1]
            if layer < last:
                output = torch.cat([output.relu_(), torch.ones_like(output[..., :1, :])], -2)
            layers.append(output)
        return [*layers[:-1], layers[-1].cpu().numpy()]

    def gradients(self, layers: list[Any], slope: Array) -> list[Array]:
        """See `NetworkArrays`."""
        gradients, through = [], self._there(slope)
        for layer in reversed(range(len(self.blocks))):
            gradients.append((layers[layer] @ through.mT).sum(1).cpu().numpy())
            if layer:
                active = layers[layer][..., :-1, :]
                through = (self._there(self.blocks[layer][:, :, :-1]) @ through).mul_(active > 0)
        return gradients[::-1]

    def _there(self, array: Array) -> Tensor:
        return torch.from_numpy(array).to(self._device)


def network_arrays(network: StackedMLP, device: str) -> NetworkArrays:
    """The networks' passes in NumPy on the CPU, or on another device."""
    return NetworkArrays(network) if device == "cpu" else NetworkElsewhere(network, device)


def joined_layer(weight: nn.Parameter, bias: nn.Parameter) -> Array:
    """Weights and, as their last row, biases of a layer, `[M, inputs + 1, outputs]`, where they lie together."""
    networks, inputs, outputs = weight.shape
    if bias.data_ptr() != weight.data_ptr() + inputs * outputs * weight.element_size():
        raise ValueError("weights and biases lie apart; call flatten_parameters first")
    block: Array = weight.detach().as_strided((networks, inputs + 1, outputs), weight.stride()).numpy()
    return block


def through_relu(slope: Array, activations: Array) -> Array:
    """The slope before a ReLU, changed in place, from the slope behind it and what it returned."""
    inside = torch.from_numpy(slope)
    torch.ops.aten.threshold_backward.grad_input(inside, torch.from_numpy(activations), 0, grad_input=inside)
    return slope


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
