"""PettingZoo faces: every game of this package as a ParallelEnv, and a mediator around anybody's ParallelEnv.

`GameParallelEnv` plays one copy of a batched game.  `MediatedParallelEnv` extends each agent's discrete actions by a
last one, *commit*: the agents act at once and unseen by each other, those who commit form the coalition, a mediator
who sees the coalition chooses their actions, and the environment steps with the merged joint action (paper,
section 3).  `TwoPhaseParallelEnv` (its own module) makes the mediator one more agent instead.

=============  ====================================================================================
actions        `Discrete(n)` becomes `Discrete(n + 1)` with the same start; commit is the last action
payoffs        those of the wrapped environment, untouched
observations   with `mask`: a `Dict` of `observation` (a `Dict` observation keeps its own entries),
               `action_mask` int8 `[n + 1]` and `commitment` in {-1, 0, 1} (bound to stay out, free, bound to
               stay in); without `mask`: the wrapped environment's observations and the mask in `infos`
               only, unless the environment has masks of its own, which are extended in any case
infos          `coalition` (names), `committed`, `executed_action`, `lock`, `action_mask`
arguments      `env`; `mediator`; `window` k >= 1; `lock_out` "window" or "episode"; `mask`
illegal move   an agent bound to stay in commits whatever it says; one bound to stay out that tries to commit
               plays its first legal action, and `committed` is False
history        0.1.0 first version
=============  ====================================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import gymnasium
import numpy as np
import torch
from gt_core.errors import InputError
from numpy.typing import NDArray
from pettingzoo import ParallelEnv  # type: ignore[import-untyped]  # PettingZoo ships no types

from mediated_marl.commitment import LockOut
from mediated_marl.games.protocol import Game
from mediated_marl.parallel_commitments import (
    Commitments,
    checked_actions,
    flat_observations,
    global_state,
    has_mask,
    masked_space,
)

__all__ = ["GameParallelEnv", "MediatedParallelEnv", "Mediator", "MediatorView"]

State = TypeVar("State")
Observations = dict[str, Any]
Infos = dict[str, dict[str, Any]]
StepResult = tuple[Observations, dict[str, float], dict[str, bool], dict[str, bool], Infos]


class GameParallelEnv(ParallelEnv, Generic[State]):  # type: ignore[misc]  # PettingZoo ships no types
    """One copy of a batched game; agents are called `agent_0`, `agent_1` and so on.

    Args:
        game: any game of `mediated_marl.games`.
    """

    def __init__(self, game: Game[State]) -> None:
        self.game = game
        self.metadata = {"name": f"mediated_marl_{game.name}", "render_modes": []}
        self.render_mode = None
        self.possible_agents = [f"agent_{index}" for index in range(game.n_agents)]
        self.agents: list[str] = []
        seen = gymnasium.spaces.Box(-np.inf, np.inf, (game.observation_size,), np.float32)
        self.observation_spaces = dict.fromkeys(self.possible_agents, seen)
        self.action_spaces = {
            agent: gymnasium.spaces.Discrete(count)
            for agent, count in zip(self.possible_agents, game.action_counts, strict=True)
        }
        self.state_space = gymnasium.spaces.Box(-np.inf, np.inf, (game.state_size,), np.float32)
        self._generator = torch.Generator()
        self._generator.seed()
        self._state: State | None = None

    def observation_space(self, agent: str) -> gymnasium.spaces.Box:
        """The box of `agent`'s features."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.spaces.Discrete:
        """The discrete actions of `agent`."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observations, Infos]:
        """Start an episode; with a seed, the same one every time.  `options` are ignored."""
        del options
        if seed is not None:
            self._generator.manual_seed(seed)
        self.agents = list(self.possible_agents)
        self._state = self.game.reset(self._generator)
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: Mapping[str, int]) -> StepResult:
        """Step with one action per agent.

        Raises:
            RuntimeError: before reset or after the end.
            InputError: an agent without an action, or an action outside its space.
        """
        if self._state is None or not self.agents:
            raise RuntimeError("the episode has not started or is over; call reset() before step()")
        for agent in self.agents:
            if agent not in actions or not self.action_spaces[agent].contains(actions[agent]):
                raise InputError(
                    f"the action of {agent} is {actions.get(agent)}; give an integer of {self.action_spaces[agent]}"
                )
        played = self.game.step(self._state, torch.tensor([int(actions[agent]) for agent in self.agents]))
        self._state, live = played.state, self.agents
        rewards = dict(zip(live, played.rewards.tolist(), strict=True))
        over, cut = bool(played.terminated), bool(played.truncated)
        observations = self._observations()
        self.agents = [] if over or cut else live
        return observations, rewards, dict.fromkeys(live, over), dict.fromkeys(live, cut), {a: {} for a in live}

    def state(self) -> NDArray[np.float32]:
        """The whole state as the mediator sees it.

        Raises:
            RuntimeError: before the first reset.
        """
        if self._state is None:
            raise RuntimeError("there is no state yet; call reset() first")
        return self.game.features(self._state).numpy().astype(np.float32)

    def render(self) -> None:
        """These games have no picture."""

    def _observations(self) -> Observations:
        assert self._state is not None  # noqa: S101  # for the type checker; both callers set it
        seen = self.game.observe(self._state).numpy().astype(np.float32)
        return dict(zip(self.agents, seen, strict=True))


@dataclass(frozen=True)
class MediatorView:
    """What the mediator is shown once the coalition has formed."""

    coalition: tuple[str, ...]
    """The members, in the environment's order."""
    observations: Observations
    """The wrapped environment's observations of all live agents."""
    legal: dict[str, NDArray[np.int64]]
    """For each member the actions of the wrapped environment that it may be given."""
    state: NDArray[Any] | None
    """The environment's global state, or None if it offers none."""


class Mediator(Protocol):
    """Chooses for the members of the coalition; learnt or written by hand."""

    def act(self, view: MediatorView) -> Mapping[str, int]:
        """One action of the wrapped environment for each member."""
        ...


class MediatedParallelEnv(ParallelEnv):  # type: ignore[misc]  # PettingZoo ships no types
    """A mediator around any parallel environment with discrete actions; see the table above.

    Args:
        env: the environment; its agents may differ in their actions and may leave early.
        mediator: chooses the members' actions.
        window: for how many steps a choice to commit or not binds.
        lock_out: "episode" bars an agent that once stayed out until the episode ends.
        mask: whether observations carry the action mask.

    Raises:
        InputError: an agent whose actions are not discrete.
        InputError: no agents, a window below 1 or beyond the horizon of a game of this package.
    """

    def __init__(
        self,
        env: Any,  # noqa: ANN401  # a PettingZoo ParallelEnv, which ships no types
        mediator: Mediator,
        *,
        window: int = 1,
        lock_out: LockOut = "window",
        mask: bool = True,
    ) -> None:
        self.env, self.mediator, self.mask = env, mediator, mask
        self.commitments = Commitments(env, window, lock_out)
        self.possible_agents: list[str] = list(env.possible_agents)
        self.metadata = {**env.metadata, "name": f"mediated_{env.metadata.get('name', type(env).__name__)}"}
        self.render_mode = getattr(env, "render_mode", None)
        self.coalition: tuple[str, ...] = ()
        self.action_spaces = {agent: self.commitments.extended(agent) for agent in self.possible_agents}
        self.observation_spaces = {agent: self._space(agent) for agent in self.possible_agents}
        self._seen: Observations = {}

    @property
    def agents(self) -> list[str]:
        """The live agents."""
        return list(self.env.agents)

    @property
    def lock(self) -> dict[str, int]:
        """Each live agent's lock, see `mediated_marl.commitment`."""
        return {agent: self.commitments.lock(agent) for agent in self.agents}

    @property
    def unwrapped(self) -> Any:  # noqa: ANN401
        """The innermost environment."""
        return self.env.unwrapped

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """The space of `agent`'s observations, mask included."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.spaces.Discrete:
        """`agent`'s own actions and, last, commit."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observations, Infos]:
        """Reset the environment; everybody is free to choose."""
        self._seen, infos = self.env.reset(seed=seed, options=options)
        self.commitments.clear()
        self.coalition = ()
        return self._observe(self._seen), {a: {**infos.get(a, {}), **self._info(a)} for a in self.agents}

    def step(self, actions: Mapping[str, int]) -> StepResult:
        """Form the coalition, let the mediator choose for it, step, and move the locks.

        Raises:
            InputError: an agent without an action or with one outside its space, or a mediator that leaves out a
                member or chooses an illegal action.
        """
        live = self.agents
        chosen = self.commitments.resolve(live, actions, self._seen)
        self.coalition = tuple(agent for agent in live if chosen[agent] is None)
        mediated = self._ask_mediator()
        executed = {agent: mediated[agent] if own is None else own for agent, own in chosen.items()}
        self._seen, rewards, terminated, truncated, infos = self.env.step(executed)
        self.commitments.advance(live, self.coalition)
        for agent in live:
            infos[agent] = {**infos.get(agent, {}), **self._info(agent), "executed_action": executed[agent]}
        return self._observe(self._seen), rewards, terminated, truncated, infos

    def state(self) -> NDArray[Any]:
        """The environment's state, or all live agents' observations in one vector if it has none."""
        known = global_state(self.env)
        return known if known is not None else flat_observations(self.env, self._seen)

    def render(self) -> Any:  # noqa: ANN401
        """Whatever the environment renders."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _ask_mediator(self) -> dict[str, int]:
        if not self.coalition:
            return {}
        legal = self.commitments.legal_actions(self.coalition, self._seen)
        view = MediatorView(self.coalition, self._seen, legal, global_state(self.env))
        return checked_actions(self.mediator.act(view), legal)

    def _space(self, agent: str) -> gymnasium.Space[Any]:
        space = self.env.observation_space(agent)
        return masked_space(space, int(self.action_spaces[agent].n)) if self.mask or has_mask(space) else space

    def _observe(self, seen: Observations) -> Observations:
        dressed = (agent for agent in seen if self.mask or has_mask(self.env.observation_space(agent)))
        return {**seen, **{agent: self.commitments.masked(agent, seen[agent]) for agent in dressed}}

    def _info(self, agent: str) -> dict[str, Any]:
        return {
            "coalition": self.coalition,
            "committed": agent in self.coalition,
            "lock": self.commitments.lock(agent),
            "action_mask": self.commitments.action_mask(agent, self._seen.get(agent)),
        }
