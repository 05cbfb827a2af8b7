"""Any other Gymnasium environment, scalar or multi-objective, as a batch through Gymnasium's vector interface.

Observations of any space that Gymnasium can flatten to a vector become that vector (a Discrete observation becomes a
one-hot one); actions are Box, flattened, or Discrete, numbered from zero. The step's information: `reward`, (B,), the
environment's own reward; for an environment of MO-Gymnasium `vector_reward`, (B, m); and every numeric entry of the
environment's `info` that all copies report.

Every episode is seeded by a draw of the passed-in generator, so that a saved batch needs no insight into the
simulator: `restore` starts the running episodes from their seeds and replays their actions.
"""

import difflib
from collections.abc import Mapping
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gt_core.errors import InputError
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from rmdp.envs.batch import Actions, BoxActions, DiscreteActions, Step, require_copies
from rmdp.envs.generators import generator_words, restore_generators

__all__ = ["GymBatch"]

_LARGEST_SEED = (1 << 31) - 1


class GymBatch:
    """B copies of a registered environment; a `BatchEnv`.

    Args:
        name: Gymnasium's name; `module:name` imports the module first, as Gymnasium does.
        copies: B.
        generator: Draws the seed of each episode.
        options: Keyword arguments of the environment.

    Attributes:
        frames_per_second: at what rate the environment means to be watched.
        objectives: how many rewards a multi-objective environment has; None for one reward.

    Raises:
        InputError: Unknown environment, no copies, or a space that is neither flattenable nor Box or Discrete.
    """

    def __init__(
        self, name: str, copies: int, generator: np.random.Generator, options: Mapping[str, Any] | None = None
    ) -> None:
        self.copies, self._generator = require_copies(copies), generator
        _require_registered(name)
        self._vector = SyncVectorEnv(
            [lambda: _make(name, dict(options or {}))] * copies, copy=False, autoreset_mode=AutoresetMode.DISABLED
        )
        first = self._vector.envs[0]
        self.actions, self._space = _actions(name, first.action_space), first.action_space
        self.observation_size = int(np.prod(_flat(name, first.observation_space).shape))
        self.horizon = first.spec.max_episode_steps if first.spec else None
        self.objectives: int | None = _objectives(first)
        self.frames_per_second = float(first.metadata.get("render_fps") or 30)
        self.diverged = 0
        self._seeds = np.zeros(copies, dtype=np.int64)
        self._played: list[list[NDArray[Any]]] = [[] for _ in range(copies)]

    @property
    def elapsed(self) -> NDArray[np.int64]:
        """Steps since each copy's reset, (B,)."""
        return np.array([len(actions) for actions in self._played])

    def reset(self) -> NDArray[np.float64]:
        """Start a new episode in every copy.

        Returns:
            Observations, (B, D).
        """
        return self._start(np.ones(self.copies, dtype=bool))

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply one action per copy and reset the copies whose episode ends.

        Args:
            actions: (B, A) numbers, or (B,) indices for Discrete actions.
        """
        for copy, action in enumerate(actions):
            self._played[copy].append(np.array(action))
        observation, reward, terminated, truncated, info = self._vector.step(self._native(actions))
        final = np.array(observation, dtype=np.float64)
        ended = terminated | truncated
        named = {"reward": reward.copy()} | {key: info[key] for key in info if _is_complete(info, key)}
        now = self._start(ended) if ended.any() else final
        return Step(now, final, terminated, truncated, named)

    def state(self) -> dict[str, NDArray[Any]]:
        """See `BatchEnv`: the seeds and actions of the running episodes."""
        return {
            "seeds": self._seeds.copy(),
            "lengths": np.array([len(actions) for actions in self._played]),
            "played": np.array([action for actions in self._played for action in actions], dtype=np.float64),
            "generators": generator_words([self._generator]),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """See `BatchEnv`: equal to the saved batch when the environment is a function of its seed and actions."""
        self._vector.reset(seed=list(state["seeds"].tolist()))
        self._seeds = state["seeds"].copy()
        shares = np.split(state["played"], np.cumsum(state["lengths"])[:-1])
        observations = [self._replay(copy, list(share)) for copy, share in enumerate(shares)]
        restore_generators([self._generator], state["generators"])
        return np.array(observations, dtype=np.float64)

    def render(self) -> list[NDArray[np.uint8]]:
        """One picture of each copy, made with the option `render_mode="rgb_array"`; (height, width, 3) each."""
        return [np.asarray(picture, dtype=np.uint8) for picture in self._vector.render() or ()]

    def close(self) -> None:
        """Close the environments."""
        self._vector.close()

    def _start(self, which: NDArray[np.bool_]) -> NDArray[np.float64]:
        self._seeds[which] = self._generator.integers(_LARGEST_SEED, size=int(which.sum()))
        for copy in np.flatnonzero(which).tolist():
            self._played[copy] = []
        observation, _ = self._vector.reset(seed=list(self._seeds.tolist()), options={"reset_mask": which})
        return np.array(observation, dtype=np.float64)

    def _replay(self, copy: int, actions: list[NDArray[Any]]) -> NDArray[np.float64]:
        env, self._played[copy] = self._vector.envs[copy], actions
        observation, _ = env.reset(seed=int(self._seeds[copy]))
        for action in actions:
            observation = env.step(self._native(action[None])[0])[0]
        return np.asarray(observation, dtype=np.float64)

    def _native(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Actions as the environment wants them: its shape, its first index, its type."""
        if isinstance(self._space, spaces.Discrete):
            return np.asarray(actions.astype(self._space.dtype) + self._space.start)
        return actions.reshape(len(actions), *(self._space.shape or ())).astype(self._space.dtype)


class _VectorReward(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Moves a vector of rewards into the information and leaves the sum of it as the reward."""

    def step(self, action: object) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        vector = np.asarray(reward, dtype=np.float64)
        return observation, float(vector.sum()), terminated, truncated, info | {"vector_reward": vector}


def _make(name: str, options: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    env: gymnasium.Env[Any, Any] = gymnasium.make(name, disable_env_checker=True, **options)
    if hasattr(env.unwrapped, "reward_space"):
        env = _VectorReward(env)
    flat = _flat(name, env.observation_space)
    return env if flat == env.observation_space else gymnasium.wrappers.FlattenObservation(env)


def _objectives(env: gymnasium.Env[Any, Any]) -> int | None:
    space = getattr(env.unwrapped, "reward_space", None)
    return None if space is None else int(space.shape[0])


def _require_registered(name: str) -> None:
    module, _, plain = name.rpartition(":")
    if not module and plain not in gymnasium.registry:
        near = difflib.get_close_matches(plain, list(gymnasium.registry), n=3)
        hint = f"did you mean {' or '.join(near)}" if near else "import the module that registers it, as module:name"
        raise InputError(f"unknown environment {name!r}: {hint}?")


def _flat(name: str, space: spaces.Space[Any]) -> spaces.Box:
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return space
    flat = spaces.flatten_space(space) if space.is_np_flattenable else space
    if not isinstance(flat, spaces.Box):
        raise InputError(f"{name}: observations {space} cannot be flattened to a vector; wrap the environment so")
    return flat


def _actions(name: str, space: spaces.Space[Any]) -> Actions:
    if isinstance(space, spaces.Discrete):
        return DiscreteActions(int(space.n))
    if isinstance(space, spaces.Box):
        return BoxActions(space.low.ravel(), space.high.ravel())
    raise InputError(f"{name}: actions {space} are neither Box nor Discrete; wrap the environment so that they are")


def _is_complete(info: Mapping[str, Any], key: str) -> bool:
    """Whether every copy reported this entry as numbers."""
    value, reported = info[key], info.get("_" + key)
    return isinstance(value, np.ndarray) and value.dtype != object and reported is not None and bool(reported.all())
