"""Commitments in a PettingZoo parallel environment: who may, who must, who did, and the masks that say so.

The rules are those of `mediated_marl.commitment`; here they meet named agents that may differ in their actions, may
bring a mask of their own, and may leave early.  Both `MediatedParallelEnv` and `TwoPhaseParallelEnv` are built on it.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

import gymnasium
import numpy as np
import torch
from gt_core.errors import InputError
from numpy.typing import NDArray

from mediated_marl.commitment import LockOut, checked_window, may_act, may_commit, next_locks

__all__ = [
    "Commitments",
    "checked_actions",
    "discrete_space",
    "flat_observations",
    "global_state",
    "has_mask",
    "masked_space",
]

Observations = dict[str, Any]


class Commitments:
    """Who may commit, who must, and the masks that say so, for the agents of one environment.

    Args:
        env: the environment whose actions are extended.
        window: k.
        lock_out: see `mediated_marl.commitment`.

    Raises:
        InputError: an agent whose actions are not discrete.
        InputError: no agents, or a window that does not fit.
    """

    def __init__(self, env: Any, window: int, lock_out: LockOut) -> None:  # noqa: ANN401
        game = getattr(env, "game", None)
        checked_window(window, lock_out, getattr(game, "horizon", None))
        self.names: list[str] = list(getattr(env, "possible_agents", []))
        if not self.names:
            raise InputError("env.possible_agents is empty; wrap a PettingZoo ParallelEnv that names its agents")
        self.spaces = {agent: discrete_space(env, agent) for agent in self.names}
        self.window, self.lock_out = window, lock_out
        self.locks = torch.zeros(len(self.names), dtype=torch.int64)

    def extended(self, agent: str) -> gymnasium.spaces.Discrete:
        """`agent`'s actions with one more, commit."""
        space = self.spaces[agent]
        return gymnasium.spaces.Discrete(int(space.n) + 1, start=int(space.start))

    def clear(self) -> None:
        """Everybody is free to choose."""
        self.locks = torch.zeros_like(self.locks)

    def lock(self, agent: str) -> int:
        """`agent`'s lock."""
        return int(self.locks[self.names.index(agent)])

    def resolve(self, live: list[str], actions: Mapping[str, int], seen: Observations) -> dict[str, int | None]:
        """What each live agent plays itself; None if it is in the coalition.

        Raises:
            InputError: an agent without an action, or an action outside its extended space.
        """
        chosen: dict[str, int | None] = {}
        for agent in live:
            space, action = self.extended(agent), actions.get(agent)
            if action is None or not space.contains(action):
                raise InputError(f"the action of {agent} is {action}; give an integer of {space}, the last is commit")
            lock, commits = self.lock(agent), int(action) == int(space.start + space.n) - 1
            if lock > 0 or (commits and lock == 0):
                chosen[agent] = None
            else:
                first_legal = int(space.start) + int(self.own_mask(agent, seen.get(agent)).argmax())
                chosen[agent] = first_legal if commits else int(action)
        return chosen

    def advance(self, live: list[str], coalition: tuple[str, ...]) -> None:
        """Move the locks of the agents that just acted."""
        acted = torch.tensor([name in live for name in self.names])
        committed = torch.tensor([name in coalition for name in self.names])
        self.locks = torch.where(acted, next_locks(self.locks, committed, self.window, self.lock_out), self.locks)

    def own_mask(self, agent: str, seen: Any) -> NDArray[np.int8]:  # noqa: ANN401
        """The environment's own mask of `agent`'s actions, or all ones."""
        given = seen.get("action_mask") if isinstance(seen, dict) else None
        return np.ones(int(self.spaces[agent].n), np.int8) if given is None else np.asarray(given, np.int8)

    def action_mask(self, agent: str, seen: Any) -> NDArray[np.int8]:  # noqa: ANN401
        """The extended mask, int8 `[n + 1]`, under the agent's lock."""
        lock = self.locks[self.names.index(agent)]
        own = self.own_mask(agent, seen) * np.int8(bool(may_act(lock)))
        return np.append(own, np.int8(bool(may_commit(lock))))

    def masked(self, agent: str, seen: Any) -> dict[str, Any]:  # noqa: ANN401
        """An observation with its mask and the sign of the lock."""
        entries = dict(seen) if isinstance(seen, dict) and "action_mask" in seen else {"observation": seen}
        commitment = np.array([np.sign(self.lock(agent))], np.int8)
        return {**entries, "action_mask": self.action_mask(agent, seen), "commitment": commitment}

    def legal_actions(self, coalition: tuple[str, ...], seen: Observations) -> dict[str, NDArray[np.int64]]:
        """The environment's actions that each member may be given."""
        starts = {agent: int(self.spaces[agent].start) for agent in coalition}
        return {agent: starts[agent] + np.flatnonzero(self.own_mask(agent, seen[agent])) for agent in coalition}


def checked_actions(mediated: Mapping[str, int], legal: dict[str, NDArray[np.int64]]) -> dict[str, int]:
    """The mediator's actions, if each member got a legal one.

    Raises:
        InputError: a member was left out or was given an illegal action.
    """
    for agent, actions in legal.items():
        if mediated.get(agent) not in actions:
            raise InputError(
                f"the mediator chose {mediated.get(agent)} for {agent}; choose one of {actions.tolist()} for it, and "
                f"one action for each member of the coalition {list(legal)}"
            )
    return {agent: int(mediated[agent]) for agent in legal}


def discrete_space(env: Any, agent: str) -> gymnasium.spaces.Discrete:  # noqa: ANN401
    """The action space of `agent`, if it is discrete.

    Raises:
        InputError: otherwise.
    """
    space = env.action_space(agent)
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise InputError(
            f"the actions of {agent} are {space}; a mediator needs Discrete actions: discretise them, or flatten a "
            "MultiDiscrete space to one Discrete index"
        )
    return space


def has_mask(space: gymnasium.Space[Any]) -> TypeGuard[gymnasium.spaces.Dict]:
    """Whether observations of this space carry an action mask of their own."""
    return isinstance(space, gymnasium.spaces.Dict) and "action_mask" in space.spaces


def masked_space(space: gymnasium.Space[Any], n_actions: int) -> gymnasium.spaces.Dict:
    """The space of an observation with its extended action mask and commitment."""
    entries = dict(space.spaces) if has_mask(space) else {"observation": space}
    entries["action_mask"] = gymnasium.spaces.Box(0, 1, (n_actions,), np.int8)
    entries["commitment"] = gymnasium.spaces.Box(-1, 1, (1,), np.int8)
    return gymnasium.spaces.Dict(entries)


def global_state(env: Any) -> NDArray[Any] | None:  # noqa: ANN401
    """The environment's state, or None if it offers none."""
    try:
        return np.asarray(env.state())
    except (NotImplementedError, AttributeError):
        return None


def flat_observations(env: Any, seen: Observations) -> NDArray[Any]:  # noqa: ANN401
    """All observations in one vector; an agent that left contributes zeros."""
    parts: list[NDArray[Any]] = []
    for agent in env.possible_agents:
        space = env.observation_space(agent)
        size = gymnasium.spaces.flatdim(space)
        parts.append(np.asarray(gymnasium.spaces.flatten(space, seen[agent])) if agent in seen else np.zeros(size))
    return np.concatenate(parts)
