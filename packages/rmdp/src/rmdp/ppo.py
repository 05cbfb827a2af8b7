"""Proximal policy optimisation of k policies at once; knows advantages and actions, no environment.

For each representative j the clipped surrogate (Schulman et al., arXiv 1707.06347, equation 7) is maximised, with the
advantage of the *sum of its users' rewards*:

    A_j = sum over users i of alpha_ij * TD_i,    TD_i = generalised advantage of user i (arXiv 1506.02438),

normalised to mean 0 and deviation 1 over the representative's own samples, so that a small cluster learns as fast as a
large one. The critics fit the lambda-returns of all users. Time limits are bootstrapped from the state they cut.

Representatives do not disturb each other: gradients are clipped, and updates halted by the KL limit, one by one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rmdp.backpropagation import backward, forward
from rmdp.policies import Critics, Policies

__all__ = ["Experience", "PPOConfig", "UpdateFigures", "clip_per_representative", "generalised_advantages", "improve"]


@dataclass(frozen=True)
class PPOConfig:
    """What an update is made of."""

    epochs: int
    """Passes over the experience."""
    minibatches: int
    """Gradient steps per pass."""
    clip: float
    """How far the probability ratio may usefully move from one."""
    entropy: float
    """Weight of the entropy bonus."""
    kl_limit: float
    """Mean KL divergence within a pass beyond which a representative skips the remaining passes."""
    gradient_norm: float
    """Largest norm of one representative's gradient."""


class Experience(NamedTuple):
    """Samples of each representative, S of them in random order or not."""

    observation: Tensor
    """Normalised, (k, S, D)."""
    action: Tensor
    """In the policy's units, (k, S, A) or (k, S)."""
    log_probability: Tensor
    """When drawn, (k, S)."""
    advantage: Tensor
    """Of the representative's users, normalised, (k, S)."""
    value_target: Tensor
    """Lambda-returns of all users, (k, S, n)."""


class UpdateFigures(NamedTuple):
    """What an update did, as means over representatives and the steps taken."""

    policy_loss: float
    value_loss: float
    kl: float
    entropy: float


def generalised_advantages(
    reward: Tensor, value: Tensor, next_value: Tensor, terminated: Tensor, ended: Tensor, *, gamma: float, decay: float
) -> Tensor:
    """Exponentially weighted sums of temporal differences (arXiv 1506.02438, equation 16).

    Args:
        reward: (T, ..., n).
        value: Values of the states acted in, (T, ..., n).
        next_value: Values of the states led to, before any reset, (T, ..., n).
        terminated: Whether the process ended there, so that the next value counts as zero, (T, ...).
        ended: Whether the episode ended there for whatever reason, so that the sum stops, (T, ...).
        gamma: Discount per step.
        decay: Lambda, the weight of each further difference.

    Returns:
        Advantages, (T, ..., n).
    """
    difference = reward + gamma * next_value * ~terminated.unsqueeze(-1) - value
    carry = gamma * decay * (~ended).unsqueeze(-1)
    advantage, later = torch.empty_like(difference), torch.zeros_like(difference[0])
    for t in range(len(reward) - 1, -1, -1):
        later = difference[t] + carry[t] * later
        advantage[t] = later
    return advantage


def improve(
    policies: Policies,
    critics: Critics,
    optimiser: torch.optim.Optimizer,
    experience: Experience,
    config: PPOConfig,
    generator: torch.Generator,
) -> UpdateFigures:
    """Take all passes over the experience.

    Args:
        policies: Improved in place.
        critics: Improved in place.
        optimiser: Of both.
        experience: Samples of the present policies.
        config: See `PPOConfig`.
        generator: Shuffles the samples, all representatives alike.
    """
    k, samples = experience.log_probability.shape
    learns = torch.ones(k, device=experience.advantage.device)
    figures = []
    for _ in range(config.epochs):
        order = torch.randperm(samples, generator=generator, device=generator.device).to(learns.device)
        divergences = []
        shuffled = [part.index_select(1, order).tensor_split(config.minibatches, dim=1) for part in experience]
        for parts in zip(*shuffled, strict=True):
            batch = Experience(*parts)
            divergence, step = _step(policies, critics, optimiser, batch, learns, config)
            divergences.append(divergence)
            figures.append(step)
        learns = learns * (torch.stack(divergences).mean(0) <= config.kl_limit)
        if not learns.any():
            break
    return UpdateFigures(*torch.stack(figures).mean(0).tolist())


def clip_per_representative(module: nn.Module, k: int, largest: float) -> None:
    """Shorten the gradient of each representative to the norm `largest`; weights shared by all count as one more."""
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    for own in (True, False):
        group = [gradient for gradient in gradients if (len(gradient) == k) == own]
        if group:
            norms = torch.stack([torch.linalg.vector_norm(gradient, dim=(1, 2)) for gradient in group])
            factor = (largest / torch.linalg.vector_norm(norms, dim=0).clamp_min(largest)).view(-1, 1, 1)
            for gradient in group:
                gradient *= factor


@torch.no_grad()
def _step(
    policies: Policies,
    critics: Critics,
    optimiser: torch.optim.Optimizer,
    batch: Experience,
    learns: Tensor,
    config: PPOConfig,
) -> tuple[Tensor, Tensor]:
    """One gradient step; the KL divergence of each representative from the drawing policy, (k,), and figures."""
    k, samples = batch.advantage.shape
    received = forward(policies.net, batch.observation)
    parameters = policies.squash(received[-1])
    log_probability, entropy = policies.judge(parameters, batch.action)
    log_ratio = log_probability - batch.log_probability
    ratio = log_ratio.exp()
    gain, clipped = ratio * batch.advantage, ratio.clamp(1 - config.clip, 1 + config.clip) * batch.advantage
    policy_loss = -(learns * (torch.minimum(gain, clipped).mean(1) + config.entropy * entropy)).sum()
    by_log_probability = torch.where(gain <= clipped, gain, 0) * (-learns / samples).unsqueeze(1)
    slope = policies.backward(parameters, batch.action, by_log_probability, -config.entropy * learns)
    backward(policies.net, received, slope)

    received = forward(critics.net, batch.observation)
    error = received[-1] - batch.value_target
    value_losses = torch.linalg.vector_norm(error, dim=(1, 2)).square() / error[0].numel()
    backward(critics.net, received, error * (2 / error[0].numel()))

    for module in (policies, critics):
        clip_per_representative(module, k, config.gradient_norm)
    with _at_rest(policies, learns == 0):
        optimiser.step()
    divergence = (ratio - 1 - log_ratio).mean(1)  # the estimator k3 of joschu.net/blog/kl-approx.html
    return divergence, torch.stack([policy_loss / k, value_losses.mean(), divergence.mean(), entropy.mean()])


@contextmanager
def _at_rest(policies: Policies, resting: Tensor) -> Iterator[None]:
    """Keep the resting policies where they are: without a gradient Adam's momentum would still move them."""
    own = [p for p in policies.parameters() if len(p) == len(resting)] if resting.any() else []
    kept = [parameter[resting].clone() for parameter in own]
    yield
    for parameter, rows in zip(own, kept, strict=True):
        parameter[resting] = rows
