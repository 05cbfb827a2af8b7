"""What every game offers: a Markov game whose chance is drawn at reset.

A state carries all the luck of its own episode (which payoffs, which endowments, where the next coins fall), so
`step` is a pure function of state and actions.  Two consequences are used elsewhere: a counterfactual step ("what if
agent i had stayed out?") meets the same luck as the real one, and no generator has to travel through a rollout.

Shapes: `[*batch]` stands for any leading dimensions, `N` for agents, `D` and `F` for feature counts.
Rewards are in the units of the payoff table of the game; they are never normalised here.
"""

from typing import Generic, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["Game", "Step", "flags", "progress"]

State = TypeVar("State")


class Step(NamedTuple, Generic[State]):
    """What one step returns.

    Attributes:
        rewards: `[*batch, N]`.
        state: the next state.
        terminated: `[*batch]` bool, the game is over by its own rules: no value lies beyond.
        truncated: `[*batch]` bool, the episode was cut although the game would go on: bootstrap from the next state.
    """

    rewards: Tensor
    state: State
    terminated: Tensor
    truncated: Tensor


class Game(Protocol[State]):
    """A batched Markov game with discrete actions and a fixed horizon.

    Attributes:
        name: a word for file names and logs.
        n_agents: `N`.
        action_counts: the number of actions of each agent.
        n_actions: the largest of them; actions are integers in `[0, action_counts[i])`.
        horizon: steps per episode.
        observation_size: `D`.
        state_size: `F`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def n_agents(self) -> int: ...  # noqa: D102
    @property
    def action_counts(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def n_actions(self) -> int: ...  # noqa: D102
    @property
    def horizon(self) -> int: ...  # noqa: D102
    @property
    def observation_size(self) -> int: ...  # noqa: D102
    @property
    def state_size(self) -> int: ...  # noqa: D102

    def reset(self, generator: torch.Generator, batch_shape: tuple[int, ...] = ()) -> State:
        """Draw first states; they live on the generator's device."""
        ...

    def observe(self, state: State) -> Tensor:
        """What each agent sees, `[*batch, N, D]`."""
        ...

    def features(self, state: State) -> Tensor:
        """What the mediator sees: the whole state, `[*batch, F]`."""
        ...

    def step(self, state: State, actions: Tensor) -> Step[State]:
        """Play `actions` `[*batch, N]` (int64, in range; the PettingZoo face checks, this hot path does not)."""
        ...


def flags(batch_shape: tuple[int, ...], *, value: bool, device: torch.device) -> Tensor:
    """A bool tensor `[*batch]` that says the same for all games of a batch."""
    return torch.full(batch_shape, value, dtype=torch.bool, device=device)


def progress(step: int, horizon: int) -> float:
    """The elapsed share of the episode, in [0, 1]."""
    return step / horizon
