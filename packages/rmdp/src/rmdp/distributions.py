"""What the policies' outputs say about actions: draws, probabilities, entropies, and the way back from a loss.

- `Normal`: the output is the mean, squashed by tanh where actions are bounded, with a standard deviation sigma per
  policy and action. With z = (action - mean) / sigma, d log p / d mean = z / sigma and d log p / d log sigma = z^2 - 1
  per action; the entropy is log sigma + log(2 pi e) / 2 per action.
- `Categorical`: the output is logits. With p their softmax and H the entropy, d log p_a / d logits = (1 at a) - p and
  d H / d logits = -p (log p + H). The largest of logits - log e, with standard exponential e, is a draw.
"""

import math
from typing import Protocol

import torch

from rmdp.arrays import Array, namespace, to_array
from rmdp.policies import Policies

__all__ = ["Categorical", "Distribution", "Normal", "distribution_of"]


class Distribution(Protocol):
    """Between the networks' outputs, (k, batch, A), and actions or a loss."""

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Array, ...]:
        """What actions are drawn with while the policies stay as they are: all that does not depend on observations.

        Args:
            shape: (..., k, batch).
            generator: Of what is random.

        Returns:
            Parts with this shape, whose rows `draw` takes.
        """
        ...

    def draw(self, output: Array, *noise: Array) -> tuple[Array, Array]:
        """Actions, (k, batch, A) or (k, batch), and their log-probabilities, (k, batch); overwrites the output."""
        ...

    def judge(self, output: Array, action: Array) -> tuple[Array, Array]:
        """Log-probabilities of actions, (k, batch), and the mean entropy of the distributions, (k,)."""
        ...

    def backward(self, output: Array, by_log_probability: Array, by_entropy: Array) -> None:
        """The chain rule through the last `judge`.

        Args:
            output: What `judge` was given and changed; replaced by the derivative of the loss by the output.
            by_log_probability: Derivative of the loss by each log-probability, (k, batch).
            by_entropy: Derivative by the mean entropies, (k,).
        """
        ...


def distribution_of(policies: Policies, members: slice = slice(None)) -> Distribution:
    """What the outputs of some of these policies mean."""
    return Categorical(policies) if policies.discrete else Normal(policies, members)


class Normal:
    """Of Box actions; see `Distribution`.

    Args:
        policies: Whose outputs these are; `backward` needs a gradient of their sigma (see `join`).
        members: Which of them.
    """

    def __init__(self, policies: Policies, members: slice = slice(None)) -> None:
        self._bounded, sigma = policies.bounded, policies.log_sigma
        self._log_sigma = to_array(sigma)[members]
        self._slope: Array = None if sigma.grad is None else to_array(sigma.grad)[members]

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Array, Array]:
        """See `Distribution`; how far from the mean, and the log-probabilities of that."""
        size = (*shape, self._log_sigma.shape[-1])
        standard = to_array(torch.randn(size, generator=generator, device=generator.device))
        density = self._density(standard)
        standard *= namespace(standard).exp(self._log_sigma)
        return standard, density

    def draw(self, output: Array, *noise: Array) -> tuple[Array, Array]:
        """See `Distribution`."""
        off, density = noise
        if self._bounded:
            namespace(output).tanh(output, out=output)
        output += off
        return output, density

    def judge(self, output: Array, action: Array) -> tuple[Array, Array]:
        """See `Distribution`; replaces the output by the means."""
        xp = namespace(output)
        if self._bounded:
            xp.tanh(output, out=output)
        self._precision = xp.exp(-self._log_sigma)
        self._standard = (action - output) * self._precision
        return self._density(self._standard), (self._log_sigma + 0.5 * math.log(2 * math.pi * math.e)).sum((1, 2))

    def backward(self, output: Array, by_log_probability: Array, by_entropy: Array) -> None:
        """See `Distribution`; overwrites the gradient of sigma."""
        slope = self._standard * by_log_probability[:, :, None]
        self._slope[:, 0] = (slope * self._standard).sum(1) + (by_entropy - by_log_probability.sum(1))[:, None]
        slope *= self._precision
        if self._bounded:
            slope *= 1 - output * output
        output[:] = slope

    def _density(self, standard: Array) -> Array:
        """Logarithms of the densities of standardised actions."""
        squares = namespace(standard).linalg.vecdot(standard, standard)
        return -0.5 * squares - (self._log_sigma + 0.5 * math.log(2 * math.pi)).sum((1, 2))[:, None]


class Categorical:
    """Of Discrete actions; see `Distribution`.

    Args:
        policies: Whose outputs these are.
    """

    def __init__(self, policies: Policies) -> None:
        *_, bias = policies.net.parameters()
        self._choices = to_array(torch.arange(bias.shape[-1], device=bias.device))

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> tuple[Array]:
        """See `Distribution`; logarithms of standard exponentials."""
        size = (*shape, len(self._choices))
        drawn = to_array(torch.empty(size, device=generator.device).exponential_(generator=generator))
        return (namespace(drawn).log(drawn),)

    def draw(self, output: Array, *noise: Array) -> tuple[Array, Array]:
        """See `Distribution`."""
        action = (output - noise[0]).argmax(-1)
        return action, self.judge(output, action)[0]

    def judge(self, output: Array, action: Array) -> tuple[Array, Array]:
        """See `Distribution`; replaces the output by log-probabilities."""
        xp = namespace(output)
        output -= xp.amax(output, axis=-1, keepdims=True)
        output -= xp.log(xp.exp(output).sum(-1))[:, :, None]
        self._chances, self._chosen = xp.exp(output), action[:, :, None] == self._choices
        self._entropy = -xp.linalg.vecdot(self._chances, output)
        return output[self._chosen].reshape(action.shape), self._entropy.mean(1)

    def backward(self, output: Array, by_log_probability: Array, by_entropy: Array) -> None:
        """See `Distribution`."""
        slope = by_log_probability[:, :, None]
        output += self._entropy[:, :, None]
        output *= by_entropy[:, None, None] / output.shape[1]
        output += slope
        output *= -self._chances
        output += slope * self._chosen
