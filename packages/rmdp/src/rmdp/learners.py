"""Gradient steps of policies and critics, on minibatches that are copied out of the experience.

Representatives pass through the networks in groups that stay in a core's cache; the gradients of what all share add up
over the groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from rmdp.adam import Adam
from rmdp.arrays import Array, empty, namespace, take, to_array
from rmdp.backpropagation import Layer, Pass, Rows, join, layers_of
from rmdp.distributions import distribution_of
from rmdp.policies import Critics, Policies

__all__ = ["CriticLearners", "Experience", "PPOConfig", "PolicyLearner", "Valuer", "groups_of"]

_ROWS = 64
"""How many samples of each representative are valued at once."""


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
    learning_rate: float
    """Adam's."""


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


def groups_of(members: range, size: int) -> list[slice]:
    """Consecutive representatives, `size` in a group."""
    return [slice(start, min(start + size, members.stop)) for start in members[::size]]


class PolicyLearner:
    """Moves k policies at once, whose hidden layers may be shared.

    Args:
        policies: Moved in place.
        k: How many.
        together: How many to a group.
    """

    def __init__(self, policies: Policies, k: int, together: int) -> None:
        own, *shared = join(policies, k)
        groups = groups_of(range(k), together)
        self._descent = _Descent(Adam(own), shared, several=len(groups) > 1)
        self._groups = [_PolicyGroup(policies, members) for members in groups]
        self.distributions = [group.distribution for group in self._groups]

    def epoch(self, experience: Experience, batches: Sequence[Array], learns: Array, config: PPOConfig) -> Array:
        """One pass: means over its steps of the divergence from the drawing policies, loss and entropy, (3, k)."""
        with np.errstate(all="ignore"):  # what ends up infinite is reported by name
            return sum(self._step(experience, order, learns, config) for order in batches) / len(batches)

    def _step(self, experience: Experience, order: Array, learns: Array, config: PPOConfig) -> Array:
        figures = []
        for group in self._groups:
            figures.append(group.differentiate(experience, order, learns, config))
            self._descent.add()
        self._descent.step(config, resting=learns == 0)
        return namespace(learns).concatenate(figures, 1)

    def state_dict(self) -> dict[str, Any]:
        """Of the optimisers."""
        own, *shared = self._descent.adams
        return {"own": own.state_dict(), "shared": [adam.state_dict() for adam in shared]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken."""
        for adam, kept in zip(self._descent.adams, [state["own"], *state["shared"]], strict=True):
            adam.load_state_dict(kept)


class CriticLearner:
    """Moves a few critics that have their own layers, or the one that all representatives share.

    Args:
        critics: Moved in place.
        rows: Their parameters (see `join`).
        members: The representatives whose values are learnt.
        together: How many of them to a group.
    """

    def __init__(self, critics: Critics, rows: Sequence[Rows], members: slice, together: int) -> None:
        own, *shared = rows
        groups = groups_of(range(members.start, members.stop), together)
        self._descent = _Descent(Adam(own, members), shared, several=len(groups) > 1)
        self._groups = [_CriticGroup(critics, group) for group in groups]

    @property
    def adams(self) -> list[Adam]:
        """The optimisers."""
        return self._descent.adams

    def epoch(self, observation: Array, target: Array, batches: Sequence[Array], config: PPOConfig) -> Array:
        """One pass: means over its steps of the mean squared errors, (members,)."""
        with np.errstate(all="ignore"):
            return sum(self._step(observation, target, order, config) for order in batches) / len(batches)

    def _step(self, observation: Array, target: Array, order: Array, config: PPOConfig) -> Array:
        losses = []
        for group in self._groups:
            losses.append(group.differentiate(observation, target, order))
            self._descent.add()
        self._descent.step(config)
        return namespace(losses[0]).concatenate(losses)


class CriticLearners:
    """Several learners, one after the other.

    Args:
        critics: Moved in place.
        rows: Their parameters (see `join`).
        units: The members of each learner.
        together: How many of them to a group.
    """

    def __init__(self, critics: Critics, rows: Sequence[Rows], units: Sequence[slice], together: int) -> None:
        self._learners = [CriticLearner(critics, rows, members, together) for members in units]
        self._adams = [adam for learner in self._learners for adam in learner.adams]

    def begin(self, observation: Tensor, value_target: Tensor, config: PPOConfig) -> list[Any]:
        """Take the samples, as in `Experience`, and the plan of the next passes; nothing to say."""
        self._samples, self._config = (to_array(observation), to_array(value_target)), config
        return []

    def epoch(self, batches: Sequence[Array]) -> list[Array]:
        """One pass: of each learner the means over its steps of the mean squared errors, (members,)."""
        return [learner.epoch(*self._samples, batches, self._config) for learner in self._learners]

    @property
    def optimisers(self) -> int:
        """How many there are."""
        return len(self._adams)

    def state_dict(self) -> list[dict[str, Any]]:
        """Of each optimiser."""
        return [adam.state_dict() for adam in self._adams]

    def load_state_dict(self, states: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Continue where the states were taken; nothing to say."""
        for adam, state in zip(self._adams, states, strict=True):
            adam.load_state_dict(state)
        return []


class Valuer:
    """Evaluates the critics of a group.

    Args:
        critics: Of all representatives.
        members: The group.
    """

    def __init__(self, critics: Critics, members: slice) -> None:
        self._members, self._layers = members, layers_of(critics.net, members)
        self._memory: dict[int, Pass] = {}

    def values(self, observation: Array, out: Array) -> None:
        """Write the members' values of observations (k, S, D) to their rows of `out`, (k, S, n)."""
        rows, values = observation[self._members], out[self._members]
        for start in range(0, rows.shape[1], _ROWS):
            part = rows[:, start : start + _ROWS]
            batch = _pass(self._memory, self._layers, len(part), part.shape[1])
            batch.inputs[:] = part
            batch.forward()
            values[:, start : start + _ROWS] = batch.output


class _Descent:
    """Optimisers of what representatives have of their own, and of what all share.

    Args:
        own: Of their own parameters.
        shared: What all share.
        several: Whether gradients come from several groups.
    """

    def __init__(self, own: Adam, shared: Sequence[Rows], *, several: bool) -> None:
        self.adams = [own, *(Adam(rows) for rows in shared)]
        gradients = [to_array(rows.gradient) for rows in shared] if several else []
        self._sums = [(gradient, gradient.copy()) for gradient in gradients]

    def add(self) -> None:
        """A group's gradients are there."""
        for gradient, total in self._sums:
            total += gradient

    def step(self, config: PPOConfig, resting: Array | None = None) -> None:
        """Follow the sums; see `Adam.step`."""
        for gradient, total in self._sums:
            gradient[:] = total
            total[:] = 0
        own, *shared = self.adams
        own.step(config.learning_rate, config.gradient_norm, resting)
        for adam in shared:
            adam.step(config.learning_rate, config.gradient_norm)


class _PolicyGroup:
    """The gradient of the clipped surrogate by the parameters of some policies."""

    def __init__(self, policies: Policies, members: slice) -> None:
        self._members, self._layers = members, layers_of(policies.net, members)
        self.distribution = distribution_of(policies, members)
        self._memory: dict[int, Pass] = {}
        self._parts: dict[int, list[Array]] = {}

    def differentiate(self, experience: Experience, order: Array, learns: Array, config: PPOConfig) -> Array:
        """Overwrite the gradients; divergence, loss and entropy of each, (3, members)."""
        xp, learns, size = namespace(learns), learns[self._members], len(order)
        sources = [part[self._members] for part in experience[:4]]
        batch = _pass(self._memory, self._layers, len(learns), size)
        if size not in self._parts:
            self._parts[size] = [empty(part, (len(learns), size, *part.shape[2:])) for part in sources[1:]]
        action, drawn, advantage = self._parts[size]
        for source, part in zip(sources, (batch.inputs, action, drawn, advantage), strict=True):
            take(source, order, part)
        batch.forward()
        log_probability, entropy = self.distribution.judge(batch.output, action)
        log_ratio = log_probability - drawn
        ratio = xp.exp(log_ratio)
        gain, clipped = ratio * advantage, xp.clip(ratio, 1 - config.clip, 1 + config.clip) * advantage
        by_log_probability = xp.where(gain <= clipped, gain, 0) * (-learns / size)[:, None]
        self.distribution.backward(batch.output, by_log_probability, -config.entropy * learns)
        batch.backward()
        divergence = (ratio - 1 - log_ratio).mean(1)  # the estimator k3 of joschu.net/blog/kl-approx.html
        loss = -learns * (xp.minimum(gain, clipped).mean(1) + config.entropy * entropy)
        return xp.stack([divergence, loss, entropy])


class _CriticGroup:
    """The gradient of the squared error by the parameters of some critics."""

    def __init__(self, critics: Critics, members: slice) -> None:
        self._members, self._layers = members, layers_of(critics.net, members)
        self._memory: dict[int, Pass] = {}
        self._wanted: dict[int, Array] = {}

    def differentiate(self, observation: Array, target: Array, order: Array) -> Array:
        """Overwrite the gradients; mean squared errors, (members,)."""
        observation, target, size = observation[self._members], target[self._members], len(order)
        batch = _pass(self._memory, self._layers, len(target), size)
        if size not in self._wanted:
            self._wanted[size] = empty(batch.output, batch.output.shape)
        wanted = self._wanted[size]
        take(observation, order, batch.inputs)
        take(target, order, wanted)
        batch.forward()
        error, xp = batch.output, namespace(wanted)
        error -= wanted
        flat = error.reshape(len(error), -1)
        loss = xp.linalg.vecdot(flat, flat) / flat.shape[1]
        error *= 2 / flat.shape[1]
        batch.backward()
        return loss


def _pass(memory: dict[int, Pass], layers: Sequence[Layer], k: int, size: int) -> Pass:
    """The pass for batches of this size, made when it is first needed."""
    if size not in memory:
        memory[size] = Pass(layers, k, size)
    return memory[size]
