"""The mediator as one more agent: each step of the wrapped environment becomes two.

In the first phase the agents choose, own action or commit, while the mediator waits; in the second the mediator, who
now sees the coalition, chooses for its members while the agents wait.  Any library that trains PettingZoo agents can
thereby train a mediator without knowing what one is.

=============  ====================================================================================
actions        agents: `Discrete(n + 1)`, commit last; `mediator`: `MultiDiscrete`, one action per possible
               agent.  Who waits has a mask that leaves one action, which is ignored
payoffs        first phase 0; second phase the environment's rewards for the agents, and for the mediator the sum of
               the members' rewards (the naive objective)
observations   agents: `observation`, `action_mask`, `commitment`, `phase`; mediator: `observation` (the
               state, or all observations in one vector), `coalition` int8 `[N]`, `action_mask` (a tuple of one
               mask per agent), `phase`.  `phase` is 0 while the agents choose, 1 while the mediator does
arguments      `env`; `window`; `lock_out`, see `mediated_marl.pettingzoo`
history        0.1.0 first version
=============  ====================================================================================
"""

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gt_core.errors import InputError
from numpy.typing import NDArray
from pettingzoo import ParallelEnv  # type: ignore[import-untyped]  # PettingZoo ships no types

from mediated_marl.commitment import LockOut
from mediated_marl.parallel_commitments import (
    Commitments,
    checked_actions,
    flat_observations,
    global_state,
    masked_space,
)
from mediated_marl.pettingzoo import Infos, Observations, StepResult

__all__ = ["TwoPhaseParallelEnv", "only_first"]

MEDIATOR = "mediator"
PHASE = gymnasium.spaces.Box(0, 1, (1,), np.int8)


class TwoPhaseParallelEnv(ParallelEnv):  # type: ignore[misc]  # PettingZoo ships no types
    """See the table above.

    Raises:
        InputError: an agent whose actions are not discrete.
        InputError: no agents, a window that does not fit, or an agent already called `mediator`.
    """

    def __init__(self, env: Any, *, window: int = 1, lock_out: LockOut = "window") -> None:  # noqa: ANN401
        self.commitments = Commitments(env, window, lock_out)
        if MEDIATOR in env.possible_agents:
            raise InputError(
                f"an agent of the environment is called {MEDIATOR!r}; rename it, the mediator joins as that"
            )
        self.env = env
        self.metadata = {**env.metadata, "name": f"two_phase_{env.metadata.get('name', type(env).__name__)}"}
        self.render_mode = getattr(env, "render_mode", None)
        self.possible_agents: list[str] = [*env.possible_agents, MEDIATOR]
        self.agents: list[str] = []
        self.coalition: tuple[str, ...] = ()
        self.action_spaces = self._action_spaces()
        self.observation_spaces: dict[str, gymnasium.Space[Any]] = {}
        self._mediating = False
        self._seen: Observations = {}
        self._chosen: dict[str, int | None] = {}

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """The space of `agent`'s or the mediator's observations.

        An environment that offers a state only after its first reset is reset once for the mediator's space.
        """
        if agent not in self.observation_spaces:
            space = self._mediator_space() if agent == MEDIATOR else self._agent_space(agent)
            self.observation_spaces[agent] = space
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space[Any]:
        """`agent`'s own actions and commit, or one action per possible agent for the mediator."""
        return self.action_spaces[agent]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observations, Infos]:
        """Reset the environment; the agents choose first."""
        self._seen, infos = self.env.reset(seed=seed, options=options)
        self.commitments.clear()
        self.coalition, self._mediating = (), False
        self.agents = [*self.env.agents, MEDIATOR]
        return self._observe(), {agent: dict(infos.get(agent, {})) for agent in self.agents}

    def step(self, actions: Mapping[str, Any]) -> StepResult:
        """The agents' phase, or the mediator's.

        Raises:
            InputError: an action that is missing, outside its space, or illegal.
        """
        return self._mediate(actions) if self._mediating else self._choose(actions)

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

    def _choose(self, actions: Mapping[str, Any]) -> StepResult:
        self._chosen = self.commitments.resolve(list(self.env.agents), actions, self._seen)
        self.coalition = tuple(agent for agent, own in self._chosen.items() if own is None)
        self._mediating = True
        nothing = dict.fromkeys(self.agents, False)
        infos: Infos = {agent: {"coalition": self.coalition} for agent in self.agents}
        return self._observe(), dict.fromkeys(self.agents, 0.0), nothing, dict(nothing), infos

    def _mediate(self, actions: Mapping[str, Any]) -> StepResult:
        mediated = self._mediated(actions.get(MEDIATOR))
        executed = {agent: mediated[agent] if own is None else own for agent, own in self._chosen.items()}
        self._seen, rewards, terminated, truncated, infos = self.env.step(executed)
        rewards = {**rewards, MEDIATOR: float(sum(rewards[agent] for agent in self.coalition))}
        self.commitments.advance(list(executed), self.coalition)
        over = not self.env.agents
        terminated = {**terminated, MEDIATOR: over and all(terminated.values())}
        truncated = {**truncated, MEDIATOR: over and not terminated[MEDIATOR]}
        infos = {agent: {**infos.get(agent, {}), "executed_action": executed[agent]} for agent in executed}
        infos[MEDIATOR] = {"coalition": self.coalition}
        seen_by = [*executed, MEDIATOR]
        self._mediating, self.coalition = False, ()
        self.agents = [] if over else [*self.env.agents, MEDIATOR]
        return self._observe(seen_by), rewards, terminated, truncated, infos

    def _mediated(self, action: NDArray[np.int64] | None) -> dict[str, int]:
        space = self.action_spaces[MEDIATOR]
        if action is None or not space.contains(np.asarray(action)):
            raise InputError(f"the mediator's action is {action}; give one action per possible agent, in {space}")
        legal = self.commitments.legal_actions(self.coalition, self._seen)
        return checked_actions(dict(zip(self.env.possible_agents, np.asarray(action), strict=True)), legal)

    def _observe(self, agents: list[str] | None = None) -> Observations:
        phase = np.array([self._mediating], np.int8)
        views: Observations = {}
        for agent in self.agents if agents is None else agents:
            view = self._mediator_view() if agent == MEDIATOR else self._agent_view(agent)
            views[agent] = {**view, "phase": phase}
        return views

    def _agent_view(self, agent: str) -> dict[str, Any]:
        view = self.commitments.masked(agent, self._seen[agent])
        if self._mediating:
            view["action_mask"] = only_first(len(view["action_mask"]))
        return view

    def _mediator_view(self) -> dict[str, Any]:
        masks = []
        for agent in self.env.possible_agents:
            chooses = self._mediating and agent in self.coalition
            own = self.commitments.own_mask(agent, self._seen.get(agent))
            masks.append(own if chooses else only_first(len(own)))
        members = np.array([agent in self.coalition for agent in self.env.possible_agents], np.int8)
        return {"observation": self.state().astype(np.float32), "coalition": members, "action_mask": tuple(masks)}

    def _action_spaces(self) -> dict[str, gymnasium.Space[Any]]:
        own = list(self.commitments.spaces.values())
        counts, starts = [int(space.n) for space in own], [int(space.start) for space in own]
        extended = {agent: self.commitments.extended(agent) for agent in self.env.possible_agents}
        return {**extended, MEDIATOR: gymnasium.spaces.MultiDiscrete(counts, start=starts)}

    def _agent_space(self, agent: str) -> gymnasium.Space[Any]:
        n_actions = int(self.commitments.extended(agent).n)
        space = masked_space(self.env.observation_space(agent), n_actions)
        return gymnasium.spaces.Dict({**space.spaces, "phase": PHASE})

    def _mediator_space(self) -> gymnasium.Space[Any]:
        if not self._seen:
            self.reset()
        state, own = self.state(), self.commitments.spaces.values()
        masks = tuple(gymnasium.spaces.Box(0, 1, (int(space.n),), np.int8) for space in own)
        return gymnasium.spaces.Dict(
            {
                "observation": gymnasium.spaces.Box(-np.inf, np.inf, state.shape, np.float32),
                "coalition": gymnasium.spaces.Box(0, 1, (len(masks),), np.int8),
                "action_mask": gymnasium.spaces.Tuple(masks),
                "phase": PHASE,
            }
        )


def only_first(n_actions: int) -> NDArray[np.int8]:
    """The mask of one who waits."""
    mask = np.zeros(n_actions, np.int8)
    mask[0] = 1
    return mask
