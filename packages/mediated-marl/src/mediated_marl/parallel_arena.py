"""A user's PettingZoo environment as an arena: several copies stepped side by side in a Python loop.

Observations are flattened and padded to the longest; an `action_mask` of the environment's own is respected; agents may
differ in their actions and may leave early.  The mediator sees the environment's `state()`, or all observations where
it has none.  An agent's first action is 0 here whatever its space's `start`.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from gt_core.errors import InputError
from gt_core.imports import import_named
from numpy.typing import NDArray
from torch import Tensor

from mediated_marl.parallel_commitments import discrete_space, flat_observations, global_state, has_mask
from mediated_marl.rollout import Moment, Outcome

__all__ = ["ParallelArena"]

SEEDS = 2**31 - 1


class ParallelArena:
    """The arena of a PettingZoo `ParallelEnv` with discrete actions.

    Args:
        factory: makes one copy of the environment.
        horizon: steps after which an episode is cut.

    Raises:
        InputError: no agents, actions that are not discrete, or observations that cannot be flattened.
    """

    always_legal = False

    def __init__(self, factory: Callable[[], Any], horizon: int) -> None:
        self.factory, self.horizon = factory, horizon
        env = factory()
        self.names: list[str] = list(getattr(env, "possible_agents", []))
        if not self.names:
            raise InputError(f"{env!r} has no possible_agents; give a PettingZoo ParallelEnv that names its agents")
        self._signature = signature(env, self.names)
        self.spaces = {name: discrete_space(env, name) for name in self.names}
        self.n_agents, self.n_actions = len(self.names), max(int(space.n) for space in self.spaces.values())
        self.observation_size = max(observation_size(env, name) for name in self.names)
        self._copies, self._seen, self._shape = [env], [dict[str, Any]()], (1, 1)
        self.state_size = self.begin(torch.Generator().manual_seed(0), (1, 1)).features.shape[-1]

    @classmethod
    def named(cls, name: str, horizon: int) -> "ParallelArena":
        """The arena of the factory `package.module:factory`.

        Raises:
            InputError: a factory that cannot be imported or called, or an environment that cannot be used.
        """
        factory = import_named(name)
        if not callable(factory):
            raise InputError(f"{name} is {factory!r}; name a function without arguments that makes a ParallelEnv")
        try:
            factory()
        except TypeError as error:
            raise InputError(f"{name} cannot be called without arguments: {error}; wrap it in a function") from error
        return cls(factory, horizon)

    def begin(self, generator: torch.Generator, batch_shape: tuple[int, int]) -> Moment:
        """See `Arena`; every copy is reset with a seed of its own.

        Raises:
            InputError: a copy with other agents or spaces than the first, or one that starts without some agent.
        """
        count = batch_shape[0] * batch_shape[1]
        while len(self._copies) < count:
            self._copies.append(self._checked(self.factory()))
        self._shape = batch_shape
        seeds = torch.randint(SEEDS, (count,), generator=generator).tolist()
        self._seen = []
        for env, seed in zip(self._copies, seeds, strict=False):
            seen, _ = env.reset(seed=seed)
            if set(env.agents) != set(self.names) or set(seen) != set(self.names):
                raise InputError(
                    f"an episode starts with agents {sorted(env.agents)} and observations of {sorted(seen)}, but "
                    f"possible_agents is {self.names}; all must be there at reset, they may leave later"
                )
            self._seen.append(dict(seen))
        return self._moment()

    def advance(self, actions: Tensor) -> Outcome:
        """See `Arena`."""
        rewards = np.zeros((len(self._seen), self.n_agents), np.float32)
        terminated = np.ones((len(self._seen), self.n_agents), bool)
        flat = actions.reshape(-1, self.n_agents).tolist()
        for index, (env, row) in enumerate(zip(self._copies, flat, strict=False)):
            live = list(env.agents)
            if not live:
                continue
            chosen = {name: self._action(name, row[self.names.index(name)]) for name in live}
            seen, paid, ended, _, _ = env.step(chosen)
            self._seen[index].update(seen)
            for name in live:
                place = self.names.index(name)
                rewards[index, place], terminated[index, place] = paid[name], ended[name]
        shape = (*self._shape, self.n_agents)
        return Outcome(
            torch.from_numpy(rewards).reshape(shape), self._moment(), torch.from_numpy(terminated).reshape(shape)
        )

    def fork(self, copies: int, generator: torch.Generator) -> "ParallelArena":
        """See `Arena`; luck is copied with the environments.

        Raises:
            InputError: an environment that cannot be copied.
        """
        del generator
        fork = copy.copy(self)
        fork._shape = (self._shape[0], self._shape[1] * copies)
        try:
            fork._copies = [copy.deepcopy(env) for env in self._copies[: len(self._seen)] for _ in range(copies)]
        except Exception as error:  # whatever an environment of unknown make raises
            raise InputError(
                f"{self._copies[0]!r} cannot be copied ({error}); an audit plays on from copies, so give the "
                "environment a working __deepcopy__"
            ) from error
        fork._seen = [dict(seen) for seen in self._seen for _ in range(copies)]
        return fork

    def _action(self, name: str, action: int) -> int:
        return int(self.spaces[name].start) + action

    def _checked(self, env: Any) -> Any:  # noqa: ANN401  # a PettingZoo ParallelEnv, which ships no types
        if signature(env, list(getattr(env, "possible_agents", []))) != self._signature:
            raise InputError(
                f"the factory's environments differ: possible_agents, actions or observations of {env!r} are not those "
                f"of the first, {self.names}; make all alike"
            )
        return env

    def _moment(self) -> Moment:
        count = len(self._seen)
        observations = np.zeros((count, self.n_agents, self.observation_size), np.float32)
        legal = np.zeros((count, self.n_agents, self.n_actions), bool)
        alive = np.zeros((count, self.n_agents), bool)
        features: list[NDArray[Any]] = []
        for index, (env, seen) in enumerate(zip(self._copies, self._seen, strict=False)):
            for place, name in enumerate(self.names):
                entry, mask = parted(env, name, seen[name])
                observations[index, place, : len(entry)] = entry
                legal[index, place, : int(self.spaces[name].n)] = mask
                alive[index, place] = name in env.agents
            known = global_state(env)
            features.append((flat_observations(env, seen) if known is None else known).ravel().astype(np.float32))
        return Moment(
            self._shaped(observations), self._shaped(np.stack(features)), self._shaped(legal), self._shaped(alive)
        )

    def _shaped(self, rows: NDArray[Any]) -> Tensor:
        return torch.from_numpy(rows).reshape(*self._shape, *rows.shape[1:])


def signature(env: Any, names: list[str]) -> list[tuple[str, Any, Any]]:  # noqa: ANN401
    """What two copies of an environment must share."""
    return [(name, env.action_space(name), env.observation_space(name)) for name in names]


def observation_size(env: Any, name: str) -> int:  # noqa: ANN401
    """The length of an agent's flat observation, its mask left out.

    Raises:
        InputError: an observation without a fixed length.
    """
    space = env.observation_space(name)
    bare = without_mask(space)
    if not bare.is_np_flattenable:
        raise InputError(f"the observations of {name} are {space}; networks need a fixed length, give Box or Discrete")
    return int(gymnasium.spaces.flatdim(bare))


def without_mask(space: gymnasium.Space[Any]) -> gymnasium.Space[Any]:
    """An observation space without its action mask."""
    if not has_mask(space):
        return space
    entries = space.spaces.items()
    return gymnasium.spaces.Dict({key: entry for key, entry in entries if key != "action_mask"})


def parted(env: Any, name: str, seen: Any) -> tuple[NDArray[Any], NDArray[Any]]:  # noqa: ANN401
    """An observation as a flat vector, and the mask of its actions (all ones if it has none)."""
    space = env.observation_space(name)
    n_actions = int(env.action_space(name).n)
    bare = without_mask(space)
    if not has_mask(space):
        return np.asarray(gymnasium.spaces.flatten(bare, seen)), np.ones(n_actions, bool)
    entries = cast("Mapping[str, Any]", seen)
    kept = {key: entry for key, entry in entries.items() if key != "action_mask"}
    return np.asarray(gymnasium.spaces.flatten(bare, kept)), np.asarray(entries["action_mask"]) > 0
