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

from typing import Any, NamedTuple

import torch
from gt_core.dual import ExponentialAscent
from gt_core.run import require_finite
from gt_core.schedules import geometric
from gt_core.seeding import Streams
from torch import Tensor, nn

from mediated_marl.markov_config import MarkovConfig
from mediated_marl.markov_multipliers import MAX_DAMPING, MultiplierNetwork, MultiplierTable
from mediated_marl.markov_players import MarkovCritics, MarkovPlayers, build_arena, build_rules
from mediated_marl.networks import MASKED, entropy
from mediated_marl.returns import bootstrapped_returns
from mediated_marl.rollout import Arena, Rollout, masked, roll_out

__all__ = ["Evidence", "MarkovTrainer", "agent_returns", "agents_gain", "mediator_gain", "mediator_returns", "weigh"]


class Evidence(NamedTuple):
    """What episodes say to the mediator, `[S, T, B, N]` each but for the advantages.

    Attributes:
        advantages: `[S, T, B]`.
        ic, e: the sampled g of each constraint.
        members, outsiders: 1 for agents that have a constraint of that kind, else 0.
    """

    advantages: Tensor
    ic: Tensor
    e: Tensor
    members: Tensor
    outsiders: Tensor


def cuts(played: Rollout) -> Tensor:
    """Where the future is the critic's alone, `[S, T, B, N]`: an agent's episode ends, or the next step explores."""
    explored = torch.nn.functional.pad(played.explored[:, 1:], (0, 0, 0, 1), value=True)
    return explored.unsqueeze(-1) | ~played.alive[:, 1:]


def mediator_returns(played: Rollout, following: Tensor, discount: float, decay: float) -> Tensor:
    """Returns `[S, T, B, N]` from the values of the next step and of the coalition wanted there, `[S, T, B, N]`."""
    shares = cuts(played).to(following.dtype).clamp(min=1 - decay)
    return bootstrapped_returns(played.rewards, following, shares, ~played.terminated, discount)


def agent_returns(played: Rollout, values: Tensor, discount: float, decay: float) -> Tensor:
    """The agents' returns `[S, T, B, N]` from their critics' values `[S, T + 1, B, N]`; a lock is one macro-step."""
    between = torch.where(played.locks[:, 1:] > 0, 0.0, 1 - decay).to(values.dtype)
    shares = torch.where(cuts(played), 1.0, between)
    return bootstrapped_returns(played.rewards, values[:, 1:], shares, ~played.terminated, discount)


def agents_gain(log_policies: Tensor, played: Rollout, advantages: Tensor, bonus: float) -> Tensor:
    """What the agents climb, a sum over seeds and agents of means over steps and episodes.

    Args:
        log_policies: `[S, T, B, N, A + 1]`, under masks.
        played: the episodes.
        advantages: `[S, T, B, N]`.
        bonus: weight of the entropy.
    """
    taken = log_policies.gather(-1, played.chosen.unsqueeze(-1)).squeeze(-1)
    counted = played.alive[:, :-1] & ~played.explored.unsqueeze(-1)
    return (counted * (advantages * taken + bonus * entropy(log_policies))).mean((1, 2)).sum()


def mediator_gain(log_mediator: Tensor, played: Rollout, advantages: Tensor, bonus: float) -> Tensor:
    """What the mediator climbs: per seed the mean over members' samples, of which there may be none.

    Args:
        log_mediator: `[S, T, B, N, A]`, under masks.
        played: the episodes.
        advantages: `[S, T, B]`.
        bonus: weight of the entropy.
    """
    taken = log_mediator.gather(-1, played.mediated.unsqueeze(-1)).squeeze(-1)
    samples = played.committed.sum((1, 2, 3)).clamp(min=1)
    climbed = played.committed * (advantages.unsqueeze(-1) * taken + bonus * entropy(log_mediator))
    return (climbed.sum((1, 2, 3)) / samples).sum()


def weigh(
    played: Rollout,
    returns: Tensor,
    values: Tensor,
    next_door: Tensor,
    ic: Tensor,
    e: Tensor,
    margin: float = 0.0,
    *,
    normalise: bool = False,
) -> Evidence:
    """Advantages and violations; all arguments but `played` and `margin` are constants `[S, T, B, N]`.

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
    inside, outside = played.committed, ~played.committed & played.alive[:, :-1]
    members, outsiders = (inside & played.free).to(values.dtype), (outside & played.free).to(values.dtype)
    weights = inside + members * ic - outsiders * e * (1 + margin * values.sign())
    found_ic = next_door + margin * next_door.abs() - returns
    found_e = returns * (1 + margin * values.sign()) - next_door
    scale = 1 + (members * ic + outsiders * e).amax(-1) if normalise else 1
    return Evidence((weights * (returns - values)).sum(-1) / scale, found_ic, found_e, members, outsiders)


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
        groups: list[dict[str, Any]] = [
            {"params": list(self.players.agents.parameters()), "lr": config.agent_rate},
            {"params": list(self.critics.agents.parameters()), "lr": config.agent_critic_rate},
            {"params": list(self.players.mediator.parameters()), "lr": config.mediator_rate},
            {"params": list(self.critics.coalitions.parameters()), "lr": config.mediator_critic_rate},
            {"params": list(self.networks.parameters()), "lr": config.dual_rate},
        ]
        self.optimiser = torch.optim.Adam([group for group in groups if group["params"]], fused=True)
        self._base_rates = [group["lr"] for group in self.optimiser.param_groups]

    @property
    def _imposed(self) -> list[str]:
        return [name for name, imposed in (("ic", self.config.imposes_ic), ("e", self.config.imposes_e)) if imposed]

    def iterate(self) -> dict[str, float]:
        """One iteration: play, weigh, primal step, dual step. Returns the figures to log, every `log_every` times."""
        config, progress = self.config, self.step / self.config.iterations
        bonus = geometric(progress, config.entropy_start, config.entropy_end)
        self._set_rates(geometric(progress, 1.0, config.final_rates))
        episodes = (config.seeds, config.games)
        played = roll_out(self.arena, self.players, self.rules, episodes, self.streams.torch("games"))
        earned, played = played.rewards, played._replace(rewards=played.rewards / config.reward_scale)
        loss = self._agents_loss(played, bonus)

        if config.mediated:
            evidence, multipliers, mediators_loss = self._mediators_loss(played, bonus)
            loss = loss + mediators_loss
        self._primal_step(loss)

        if config.mediated:
            self._dual_step(played, evidence)
        self.step += 1
        due = self.step % config.log_every == 0 or self.step in (1, config.iterations)
        return self._figures(earned, played, bonus, multipliers if config.mediated else {}) if due else {}

    def _set_rates(self, share: float) -> None:
        for group, rate in zip(self.optimiser.param_groups, self._base_rates, strict=True):
            group["lr"] = rate * share
        for table in self.tables.values():
            table.multiplier.rule = ExponentialAscent(self.config.dual_rate * share)

    def _agents_loss(self, played: Rollout, bonus: float) -> Tensor:
        values = self.critics.agents(played.observations, played.locks).squeeze(-1)
        returns = agent_returns(played, values.detach(), self.config.discount, self.config.decay)
        values, locks = values[:, :-1], played.locks[:, :-1]
        logits = self.players.choices(played.observations[:, :-1], locks)
        log_policies = masked(logits, played.legal[:, :-1], locks, mediated=self.rules.mediated).log_softmax(-1)
        counted = played.alive[:, :-1] & ~played.explored.unsqueeze(-1)
        errors: Tensor = (counted * (values - returns).square()).mean((1, 2)).sum()
        return errors - agents_gain(log_policies, played, returns - values.detach(), bonus)

    def _mediators_loss(self, played: Rollout, bonus: float) -> tuple[Evidence, dict[str, Tensor], Tensor]:
        """What was found, the multipliers, and the loss of mediator, critic and multiplier networks."""
        config, critic = self.config, self.critics.coalitions
        now = (played.features[:, :-1], played.locks[:, :-1], played.committed)
        predicted = critic(*now)
        values = predicted.detach()
        with torch.no_grad():
            following = critic(played.features[:, 1:], played.locks[:, 1:], played.wanted[:, 1:])
            next_door = critic.next_door(*now) if self._imposed else torch.zeros_like(values)
        returns = mediator_returns(played, following, config.discount, config.decay)
        logs = {name: network.log_multipliers(*now) for name, network in self._named_networks()}
        multipliers = {name: MultiplierNetwork.clipped(log) for name, log in logs.items()}
        multipliers |= {name: table.at(played.committed) for name, table in self.tables.items()}
        prices = self._damped(multipliers, values, next_door)
        evidence = weigh(played, returns, values, next_door, *prices, config.margin, normalise=config.normalise)

        logits = self.players.mediation(*now).masked_fill(~played.legal[:, :-1], MASKED)
        bonus *= config.mediator_entropy
        loss = (played.alive[:, :-1] * (predicted - returns).square()).mean((1, 2)).sum()
        loss = loss - mediator_gain(logits.log_softmax(-1), played, evidence.advantages, bonus)
        for name, log in logs.items():
            loss = loss - MultiplierNetwork.gain(log, *self._measured(name, evidence))
        return evidence, multipliers, loss

    def _damped(self, multipliers: dict[str, Tensor], values: Tensor, next_door: Tensor) -> tuple[Tensor, Tensor]:
        """The prices of IC and E, 0 where not imposed; violations are the critic's, of tables their own."""
        margin, damping, zero = self.config.margin, self.config.damping, torch.zeros_like(values)
        if self.tables:
            return multipliers.get("ic", zero), multipliers.get("e", zero)
        ic = next_door + margin * next_door.abs() - values
        e = values + margin * values.abs() - next_door
        priced = [
            multipliers.get(name, zero) * (damping * found).clamp(-MAX_DAMPING, MAX_DAMPING).exp()
            for name, found in (("ic", ic), ("e", e))
        ]
        return priced[0], priced[1]

    def _named_networks(self) -> list[tuple[str, MultiplierNetwork]]:
        return [(name, network) for name, network in self.networks.items() if isinstance(network, MultiplierNetwork)]

    @staticmethod
    def _measured(name: str, evidence: Evidence) -> tuple[Tensor, Tensor]:
        return (evidence.ic, evidence.members) if name == "ic" else (evidence.e, evidence.outsiders)

    def _primal_step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        if self.config.gradient_clip:
            every = [weight for group in self.optimiser.param_groups for weight in group["params"]]
            nn.utils.clip_grad_value_(every, self.config.gradient_clip)
        self.optimiser.step()

    def _dual_step(self, played: Rollout, evidence: Evidence) -> None:
        """Tables; a network has moved with the primal step, by what was measured before it."""
        for name, table in self.tables.items():
            table.ascend(played.committed, *self._measured(name, evidence))

    def _figures(
        self, earned: Tensor, played: Rollout, bonus: float, multipliers: dict[str, Tensor]
    ) -> dict[str, float]:
        """Episodes' returns, and commitment where nobody was explored, over all steps and at the last one."""
        reward = earned.sum(1).mean().item()
        require_finite(reward=reward)
        alive = played.alive[:, :-1]
        wanted = (played.wanted[:, :-1] & alive).float()
        figures = {
            "train/return": reward,
            "train/commitment": (wanted.sum() / alive.sum().clamp(min=1)).item(),
            "train/first_commitment": wanted[:, 0].mean().item(),
            "train/last_commitment": wanted[:, -1].mean().item(),
            "train/entropy_bonus": bonus,
        }
        if self.config.mediated:
            acted = (played.committed * (played.mediated == self.arena.n_actions - 1)).sum()
            figures["train/mediated_last_action"] = (acted / played.committed.sum().clamp(min=1)).item()
        return figures | {f"dual/{name}": value.mean().item() for name, value in multipliers.items()}

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
