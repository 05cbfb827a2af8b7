r"""Training in games of several steps by policy gradient (paper, sections 4 and 5).

Every iteration plays `games` episodes of every seed and moves everybody at once:

1. agent i climbs `(G_i - V_i(o_i)) log pi_i` wherever it chose and its choice was played; `V_i` follows `G_i`;
2. the mediator climbs `A log pi^M` for every member of C, with

       A = sum_{i in C} (G_i - V_i) + sum_{i in C} lambda^IC_i (G_i - V_i) - sum_{j not in C} lambda^E_j (G_j - V_j),

   V at (s, C); its critic `V(s, C)` follows G for members and outsiders;
3. the multipliers ascend the mean of

       IC:  g_i = V_i(s, C without i) - G_i,        E:  g_j = G_j - V_j(s, C with j),

   positive where violated, over agents that were free to decide.

The derivation has g itself in the advantage.  The values next door are constants for the policy at (s, C), so they and
the baseline `V_i(s, C)` that stands here in their place give the same gradient in expectation; the baseline's has less
variance.  All members' actions feel all constraints of their coalition, coalitions of one included.  Values next door
come from the critic, which sees all coalitions thanks to `exploration` (`mediated_marl.rollout`).

`margin` and `damping` are those of `mediated_marl.constraints`, returns those of `mediated_marl.returns`.  With
`normalise` A is divided by one plus the largest multiplier at (s, C), which changes no optimum of the policy there, but
keeps its entropy from being drowned.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from gt_core.dual import ExponentialAscent
from gt_core.run import require_finite
from gt_core.schedules import geometric
from gt_core.seeding import Streams
from torch import nn

from mediated_marl.by_hand import (
    Array,
    FlatAdam,
    flatten_parameters,
    log_policy_gradient,
    log_softmax,
    network_arrays,
    spread_rates,
    total,
)
from mediated_marl.episodes import Episodes, agents_last, play_episodes
from mediated_marl.markov_by_hand import MarkovArrays
from mediated_marl.markov_config import MarkovConfig
from mediated_marl.markov_multipliers import MAX_DAMPING, MultiplierNetwork, MultiplierTable
from mediated_marl.markov_players import MarkovCritics, MarkovPlayers, build_arena, build_rules
from mediated_marl.returns import bootstrapped_returns
from mediated_marl.rollout import Arena

__all__ = ["Evidence", "MarkovTrainer", "agent_returns", "agents_slope", "mediator_returns", "mediator_slope", "weigh"]


class Evidence(NamedTuple):
    """What episodes say to the mediator, `[S, N, T, B]` each but for the advantages.

    Attributes:
        advantages: `[S, 1, T, B]`.
        ic, e: the sampled g of each constraint.
        members, outsiders: True for agents that have a constraint of that kind.
    """

    advantages: Array
    ic: Array
    e: Array
    members: Array
    outsiders: Array


def cuts(played: Episodes) -> Array:
    """Where the future is the critic's alone, `[S, N, T, B]`: an agent's episode ends, or the next step explores."""
    cut = ~played.alive[:, :, 1:]
    cut[:, :, :-1] |= played.explored[:, :, 1:]
    cut[:, :, -1] = True
    return cut


def mediator_returns(played: Episodes, following: Array, discount: float, decay: float) -> Array:
    """Returns `[S, N, T, B]` from the values of the next step and of the coalition wanted there, `[S, N, T, B]`."""
    shares = np.maximum(cuts(played).astype(following.dtype), 1 - decay)
    return bootstrapped_returns(played.rewards, following, shares, ~played.terminated, discount)


def agent_returns(played: Episodes, values: Array, discount: float, decay: float) -> Array:
    """The agents' returns `[S, N, T, B]` from their critics' values `[S, N, T + 1, B]`; a lock is one macro-step."""
    between = (played.locks[:, :, 1:] <= 0) * values.dtype.type(1 - decay)
    shares = np.maximum(cuts(played), between)
    return bootstrapped_returns(played.rewards, values[:, :, 1:], shares, ~played.terminated, discount)


def agents_slope(logits: Array, played: Episodes, advantages: Array, bonus: float) -> Array:
    """The slope in the agents' logits of what they climb, means over steps and episodes of `A log pi + bonus H(pi)`.

    Args:
        logits: `[S, N, A + 1, K]`, under masks; K samples are T steps of B episodes.
        played: the episodes.
        advantages: A, `[S, N, T, B]`.
        bonus: weight of the entropy H.
    """
    weights = played.learnt * logits.dtype.type(1 / logits.shape[-1])
    wanted, own = played.wanted[:, :, :-1], played.own[:, :, :-1]
    taken = [(own == action) & ~wanted for action in range(logits.shape[2] - 1)]
    return policy_slope(logits, [*taken, wanted], weights, weights * advantages, bonus)


def mediator_slope(logits: Array, played: Episodes, advantages: Array, bonus: float) -> Array:
    """The slope in the mediator's logits of what it climbs, per seed the mean of `A log pi + bonus H(pi)` over members.

    Args:
        logits: `[S, N, A, K]`, under masks.
        played: the episodes, in which a seed may have no members.
        advantages: A, `[S, 1, T, B]`.
        bonus: weight of the entropy H.
    """
    samples = played.committed.sum((1, 2, 3), keepdims=True).clip(min=1).astype(logits.dtype)
    weights = played.committed / samples
    taken = [played.mediated == action for action in range(logits.shape[2])]
    return policy_slope(logits, taken, weights, weights * advantages, bonus)


def policy_slope(logits: Array, taken: list[Array], weights: Array, climbed: Array, bonus: float) -> Array:
    """The slope of `sum climbed log pi(taken) + bonus weights H(pi)` in logits `[S, N, A, K]`, from `[S, N, T, B]`."""
    gains = np.stack([one * climbed for one in taken], 2).reshape(logits.shape)
    bonuses = (bonus * weights).reshape(*logits.shape[:2], 1, -1)
    return log_policy_gradient(log_softmax(logits, 2), gains, bonuses, 2)


def multiplier_slope(log_multipliers: Array, violation: Array, weights: Array) -> Array:
    """The slope of `MultiplierNetwork.gain` in the network's outputs; all are `[S, N, T, B]`."""
    variable = torch.from_numpy(log_multipliers).requires_grad_()
    gain = MultiplierNetwork.gain(variable, torch.from_numpy(violation), torch.from_numpy(weights))
    slope: Array = torch.autograd.grad(gain, variable)[0].numpy()
    return slope


def weigh(
    played: Episodes,
    returns: Array,
    values: Array,
    next_door: Array,
    ic: Array,
    e: Array,
    margin: float = 0.0,
    *,
    normalise: bool = False,
) -> Evidence:
    """Advantages and violations; all arguments but `played` and `margin` are `[S, N, T, B]`.

    Args:
        played: the episodes.
        returns: G.
        values: `V_i(s, C)`.
        next_door: `V_i` at the coalition with agent i's membership changed.
        ic: multipliers, 0 where incentive compatibility is not imposed.
        e: multipliers, 0 where encouragement is not imposed.
        margin: see `mediated_marl.constraints`.
        normalise: divide the advantage by one plus the largest multiplier at (s, C).
    """
    free = played.free
    members, outsiders = played.committed & free, ~played.committed & free
    above = 1 + margin * np.sign(values)
    ic, e = members * ic, outsiders * e
    advantages = total((played.committed + ic - e * above) * (returns - values), 1)
    if normalise:
        advantages /= 1 + (ic + e).max(1, keepdims=True)
    found_ic, found_e = next_door + margin * np.abs(next_door) - returns, returns * above - next_door
    return Evidence(advantages, found_ic, found_e, members, outsiders)


def share_of(some: Array, every: Array) -> float:
    """How many of `every` are in `some`, 0 of none."""
    return float(np.float32(some.sum()) / np.float32(max(every.sum(), 1)))


class MarkovTrainer:
    """All that changes during training; `iterate` is one iteration, `state_dict` everything needed to continue.

    Args:
        config: the run's config.
        arena: the game, by default the config's.
    """

    def __init__(self, config: MarkovConfig, arena: Arena | None = None) -> None:
        self.config = config
        self.step = 0
        self.arena = build_arena(config) if arena is None else arena
        self.rules = build_rules(config, config.exploration)
        self.streams = Streams(config.seed)
        self.players = MarkovPlayers(self.arena, config, self.streams.torch("initialisation"))
        self.critics = MarkovCritics(self.arena, config, self.streams.torch("critics"))
        self.tables = {
            name: MultiplierTable(
                config.multipliers,
                self.arena.n_agents,
                config.seeds,
                config.dual_rate,
                config.multiplier_start,
                self.arena.horizon,
                config.damping,
            )
            for name in self._imposed
            if config.multipliers != "network"
        }
        self.networks = nn.ModuleDict(
            {
                name: MultiplierNetwork(self.arena, config, self.streams.torch(f"multipliers-{name}"))
                for name in self._imposed
                if config.multipliers == "network"
            }
        )
        self._build_optimiser()

    def _build_optimiser(self) -> None:
        """One optimiser for all; without mediator its networks do not learn."""
        config, players, critics = self.config, self.players, self.critics
        parts = [
            (players.agents.network, config.agent_rate),
            (critics.agents.network, config.agent_critic_rate),
            (players.mediator, config.mediator_rate),
            (critics.coalitions.network, config.mediator_critic_rate),
            *((network.network.network, config.dual_rate) for _, network in self._named_networks().items()),
        ]
        vector = flatten_parameters([part for part, _ in parts])
        rates = spread_rates(parts if config.mediated else parts[:2], vector.dtype)
        self._rates = np.concatenate(rates)
        self.optimiser = FlatAdam(vector[: len(self._rates)], (0.9, 0.999))
        self.arrays = MarkovArrays(self.arena, config, players, critics, self.streams.numpy("games"))
        shape = (config.seeds, self.arena.n_agents, self.arena.horizon, config.games)
        self._episodes = Episodes.blank(shape, vector.dtype)
        self._prices = {
            name: network_arrays(network.network.network, config.device)
            for name, network in self._named_networks().items()
        }
        self._second_thread = ThreadPoolExecutor(1) if config.threads > 1 and config.mediated else None

    @property
    def _imposed(self) -> list[str]:
        return [name for name, imposed in (("ic", self.config.imposes_ic), ("e", self.config.imposes_e)) if imposed]

    def iterate(self) -> dict[str, float]:
        """One iteration: play, weigh, primal step, dual step. Returns the figures to log, every `log_every` times."""
        config, progress = self.config, self.step / self.config.iterations
        bonus = geometric(progress, config.entropy_start, config.entropy_end)
        share = geometric(progress, 1.0, config.final_rates)
        played = self.play()
        episodes = played._replace(rewards=played.rewards / played.rewards.dtype.type(config.reward_scale))
        if self._second_thread:
            found = self._second_thread.submit(self.mediators_gradients, episodes, bonus)
        gradients = self.agents_gradients(episodes, bonus)

        if config.mediated:
            evidence, multipliers, of_mediator = (
                found.result() if self._second_thread else self.mediators_gradients(episodes, bonus)
            )
            gradients += of_mediator
        self._primal_step(gradients, share)

        if config.mediated:
            self._dual_step(episodes, evidence, share)
        self.step += 1
        due = self.step % config.log_every == 0 or self.step in (1, config.iterations)
        return self._figures(played, bonus, multipliers if config.mediated else {}) if due else {}

    def play(self) -> Episodes:
        """Episodes of all seeds, which the next call overwrites."""
        return play_episodes(self.arena, self.arrays, self.rules, self.streams.torch("games"), self._episodes)

    def agents_gradients(self, episodes: Episodes, bonus: float) -> list[Array]:
        """Of actors and critics, by which agents descend."""
        config, arrays, shape = self.config, self.arrays, episodes.committed.shape
        inputs, samples = arrays.agent_inputs, shape[2] * shape[3]
        every = arrays.values.layers(inputs.reshape(-1, 1, inputs.shape[2], samples + shape[3]))
        values = every[-1].reshape(*shape[:2], -1, shape[3])
        returns = agent_returns(episodes, values, config.discount, config.decay)
        advantages = returns - values[:, :, :-1]
        error = episodes.learnt * advantages
        error *= -2 / samples

        acting = arrays.agent_layers(episodes)
        logits = acting[-1].reshape(*shape[:2], -1, samples)
        climbed = agents_slope(logits, episodes, advantages, bonus)
        of_actors = arrays.agents.gradients(acting, -climbed.reshape(acting[-1].shape))
        now = [layer[..., :samples] for layer in every]
        return of_actors + arrays.values.gradients(now, error.reshape(now[-1].shape))

    def mediators_gradients(self, episodes: Episodes, bonus: float) -> tuple[Evidence, dict[str, Array], list[Array]]:
        """What was found, the multipliers, and the gradients of mediator, critic and multiplier networks."""
        config, arrays, shape = self.config, self.arrays, episodes.committed.shape
        inputs = arrays.critic_inputs(episodes)
        every = arrays.coalitions.layers(inputs)
        values, following = (every[-1][:, group].reshape(shape) for group in range(2))
        next_door = self._next_door(every[-1]).reshape(shape) if self._imposed else np.zeros_like(values)
        returns = mediator_returns(episodes, following, config.discount, config.decay)
        passes = {name: network.layers(inputs[:, :1]) for name, network in self._prices.items()}
        logs = {name: layers[-1].reshape(shape) + self._named_networks()[name].start for name, layers in passes.items()}
        multipliers = {name: MultiplierNetwork.clipped(torch.from_numpy(log)).numpy() for name, log in logs.items()}
        multipliers |= {name: table.at(episodes.committed) for name, table in self.tables.items()}
        prices = self._damped(multipliers, values, next_door)
        evidence = weigh(episodes, returns, values, next_door, *prices, config.margin, normalise=config.normalise)

        acting = arrays.mediator_layers()
        climbed = mediator_slope(acting[-1], episodes, evidence.advantages, bonus * config.mediator_entropy)
        error = episodes.alive[:, :, :-1] * (values - returns)
        error *= 2 / inputs.shape[-1]
        now = [layer[:, :1] for layer in every]
        gradients = arrays.mediator.gradients(acting, -climbed)
        gradients += arrays.coalitions.gradients(now, error.reshape(now[-1].shape))
        for name, layers in passes.items():
            slope = multiplier_slope(logs[name], *self._measured(name, evidence))
            gradients += self._prices[name].gradients(layers, -slope.reshape(layers[-1].shape))
        return evidence, multipliers, gradients

    @staticmethod
    def _next_door(output: Array) -> Array:
        """Each agent's value where it alone had decided otherwise, `[S, N, K]`; see `MarkovArrays.critic_inputs`."""
        return np.stack([output[:, 2 + agent, agent] for agent in range(output.shape[2])], 1)

    def _damped(self, multipliers: dict[str, Array], values: Array, next_door: Array) -> tuple[Array, Array]:
        """The prices of IC and E, 0 where not imposed; violations are the critic's, of tables their own."""
        margin, prices = self.config.margin, {"ic": np.zeros_like(values), "e": np.zeros_like(values)}
        if self.tables:
            prices |= multipliers
            return prices["ic"], prices["e"]
        for name, multiplier in multipliers.items():
            better, worse = (next_door, values) if name == "ic" else (values, next_door)
            found = self.config.damping * (better + margin * np.abs(better) - worse)
            prices[name] = multiplier * np.exp(found.clip(-MAX_DAMPING, MAX_DAMPING))
        return prices["ic"], prices["e"]

    def _named_networks(self) -> dict[str, MultiplierNetwork]:
        return {name: network for name, network in self.networks.items() if isinstance(network, MultiplierNetwork)}

    @staticmethod
    def _measured(name: str, evidence: Evidence) -> tuple[Array, Array]:
        return (evidence.ic, evidence.members) if name == "ic" else (evidence.e, evidence.outsiders)

    def _primal_step(self, gradients: list[Array], share: float) -> None:
        gradient = np.concatenate([part.ravel() for part in gradients])
        if self.config.gradient_clip:
            np.clip(gradient, -self.config.gradient_clip, self.config.gradient_clip, out=gradient)
        self.optimiser.descend(gradient, self._rates * share)

    def _dual_step(self, played: Episodes, evidence: Evidence, share: float) -> None:
        """Tables; a network has moved with the primal step, by what was measured before it."""
        for name, table in self.tables.items():
            table.multiplier.rule = ExponentialAscent(self.config.dual_rate * share)
            table.ascend(played.committed, *self._measured(name, evidence))

    def _figures(self, played: Episodes, bonus: float, multipliers: dict[str, Array]) -> dict[str, float]:
        """Episodes' returns, and commitment where nobody was explored, over all steps and at the last one."""
        reward = agents_last(played.rewards).contiguous().sum(1).mean().item()
        require_finite(reward=reward)
        alive = played.alive[:, :, :-1]
        wanted = played.wanted[:, :, :-1] & alive
        figures = {
            "train/return": reward,
            "train/commitment": share_of(wanted, alive),
            "train/first_commitment": float(wanted[:, :, 0].mean(dtype=np.float32)),
            "train/last_commitment": float(wanted[:, :, -1].mean(dtype=np.float32)),
            "train/entropy_bonus": bonus,
        }
        if self.config.mediated:
            acted = played.committed & (played.mediated == self.arena.n_actions - 1)
            figures["train/mediated_last_action"] = share_of(acted, played.committed)
        return figures | {f"dual/{name}": float(value.mean()) for name, value in multipliers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Players, critics, multipliers, optimiser, the state of chance, and the count of steps."""
        return {
            "step": self.step,
            "players": self.players.state_dict(),
            "critics": self.critics.state_dict(),
            "networks": self.networks.state_dict(),
            "tables": {name: table.state_dict() for name, table in self.tables.items()},
            "optimiser": self.optimiser.state_dict(),
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        self.players.load_state_dict(state["players"])
        self.critics.load_state_dict(state["critics"])
        self.networks.load_state_dict(state["networks"])
        for name, table in self.tables.items():
            table.load_state_dict(state["tables"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.streams.load_state_dict(state["streams"])
