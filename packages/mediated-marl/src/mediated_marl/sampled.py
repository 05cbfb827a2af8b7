r"""Training in one-step games by policy gradient: independent actor-critic agents, and the mediator (paper, section 4).

Every iteration plays `games` games of every seed and moves everybody at once:

1. agents choose, the coalition C forms, the mediator draws its members' actions, the game pays r;
2. agent i climbs `(r_i - V_i) log pi_i`, its critic `V_i` follows the mean of `r_i`;
3. the mediator climbs `A log pi^M` for every member of C, with

       A = sum_{i in C} (r_i - V_i(C)) - sum_{i in C} lambda^IC g_i - sum_{j not in C} lambda^E g_j,
       IC:  g_i = V_i(C without i) - r_i,        E:  g_j = r_j - V_j(C with j);

   all members' actions feel all constraints of their coalition, single members included, and only the policy at C is
   moved: the values next door come from critics of all coalitions and slots and are constants here;
4. the multipliers ascend the mean of the same g, positive where a constraint is violated.

`margin` and `damping` are those of `mediated_marl.constraints`.  With `coalition_weights` uniform the mediator learns
from games of its own, in which all coalitions are equally likely and outsiders play what the agents would; the values
next door are then estimated from games and not extrapolated from coalitions that were never formed.

At given C every g and therefore A is linear in the rewards, so learning needs sums over games and not the games
(`mediated_marl.batches`); what is left is as small as the policy tables, and its gradients are written out.

Shapes: S seeds, B games, the rest as in `mediated_marl.batches`.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from gt_core.dual import ExponentialAscent
from gt_core.run import require_finite
from gt_core.schedules import geometric
from gt_core.seeding import Streams
from torch import nn

from mediated_marl.batches import Batches, Choices, Lessons, batches_of
from mediated_marl.by_hand import (
    Array,
    FlatAdam,
    Part,
    flatten_parameters,
    log_policy_gradient,
    log_softmax,
    network_arrays,
    spread_rates,
    total,
    with_ones,
)
from mediated_marl.config import OutsiderRule, TrainConfig
from mediated_marl.constraints import ConstraintMultipliers
from mediated_marl.networks import MASKED, StackedMLP
from mediated_marl.one_step import OneStepGame, SymmetricPublicGoods, one_step_game
from mediated_marl.players import Players, build_game, critic_inputs

__all__ = [
    "Critics",
    "LinearViolation",
    "SampledTrainer",
    "advantage_coefficients",
    "advantage_sums",
    "linear_violations",
    "measured_violation",
    "outsider_shares",
]


class LinearViolation(NamedTuple):
    """How a constraint's g depends on the reward r of its slot: `g = scale r + offset`, `[S, C, I]` each."""

    scale: Array
    offset: Array


def linear_violations(values: Array, neighbours: Array, margin: float) -> tuple[LinearViolation, LinearViolation]:
    """IC and E by what the critics say of all coalitions, here and next door, `[S, C, I]` each."""
    ic = LinearViolation(np.full_like(values, -1), neighbours + margin * np.abs(neighbours))
    return ic, LinearViolation(1 + margin * np.sign(values), -neighbours)


def outsider_shares(game: OneStepGame, rule: OutsiderRule) -> tuple[Array, Array]:
    """How much outsiders' constraints count at each coalition: for the mediator, and for their multiplier.

    Args:
        game: the game.
        rule: add encouragement over outsiders, or take their mean where 2 to N - 1 agents committed, each game counting
            for the multiplier as often as it has members.

    Returns:
        `[C, I]` each.
    """
    outside = game.outsiders.numpy()
    if rule == "sum":
        return outside, outside
    size = game.members.numpy().sum(-1, keepdims=True)
    shares = (size >= 2) * outside / outside.sum(-1, keepdims=True).clip(min=1)
    return shares, shares * size


def advantage_coefficients(inside: Array, values: Array, priced: list[tuple[Array, LinearViolation]]) -> Array:
    """The advantage as `offset + sum_I slope_I r_I` at each coalition: offset and slopes, `[S, C, 1 + I]`.

    Args:
        inside: `[C, I]`, how many members each slot stands for.
        values: `[S, C, I]`, the critics'.
        priced: the constraints imposed, each with its price `[S, C, I]`: how many it stands for times its multiplier.
    """
    coefficients = np.empty((*values.shape[:2], 1 + values.shape[2]), values.dtype)
    slope, paid = coefficients[..., 1:], inside * values
    slope[:] = inside
    for price, violation in priced:
        slope -= price * violation.scale
        paid += price * violation.offset
    np.negative(paid.sum(-1), out=coefficients[..., 0])
    return coefficients


def advantage_sums(coefficients: Array, lessons: Lessons) -> Array:
    """The advantages summed by the members' actions they are for, `[S, C, M A]`."""
    sums: Array = (coefficients[..., np.newaxis, :] @ lessons.actions)[..., 0, :]
    return sums


def measured_violation(batches: Batches, lessons: Lessons, violation: LinearViolation, slack_weight: float) -> Array:
    """Each constraint's g summed over the games of each coalition, slack weighed sample by sample, `[S, C, I]`."""
    summed: Array = violation.scale * lessons.rewards + violation.offset * lessons.seen[..., np.newaxis]
    if slack_weight == 1:
        return summed
    return summed + (slack_weight - 1) * batches.slack(lessons, violation.scale, violation.offset)


class Critics(nn.Module):
    """Values of all seeds: one number per agent, and one network per slot for the mediator.

    Args:
        game: the game.
        config: sizes.
        generator: draws the initial parameters.
    """

    def __init__(self, game: OneStepGame, config: TrainConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.agents = nn.Parameter(torch.rand((config.seeds, game.n_agents), generator=generator) * 2 - 1)
        sizes = (critic_inputs(game, config.coalition_features).shape[-1], config.critic_hidden, 1)
        self.coalitions = StackedMLP((config.seeds, game.members.shape[-1]), sizes, generator)


class Imposed(NamedTuple):
    """A constraint that the mediator learns under.

    Attributes:
        multipliers: its multipliers.
        violation: its g.
        weights: `[C, I]`, how much it counts for its multipliers at each coalition.
    """

    multipliers: ConstraintMultipliers
    violation: LinearViolation
    weights: Array


class SampledTrainer:
    """All that changes during training; `iterate` is one iteration, `state_dict` everything needed to continue.

    Args:
        config: the run's config.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.step = 0
        self.game = one_step_game(build_game(config))
        self.streams = Streams(config.seed)
        self.players = Players(self.game, config, self.streams.torch("initialisation"))
        self.critics = Critics(self.game, config, self.streams.torch("critics"))
        self.batches = batches_of(self.game, (config.seeds, config.games), self.streams.numpy("games"))
        form, seeds, rate = config.multipliers, config.seeds, config.dual_rate
        self.ic = ConstraintMultipliers(self.game, self.game.members, form, seeds, rate)
        self.e = ConstraintMultipliers(self.game, self.game.outsiders, form, seeds, rate)
        self._build_optimiser()
        self._build_tables()

    def _build_optimiser(self) -> None:
        """One optimiser for all; without mediator its parameters and critics do not learn."""
        config, players, critics = self.config, self.players, self.critics
        parts: list[tuple[Part, float]] = [
            (players.logits, config.agent_rate),
            (critics.agents, config.agent_critic_rate),
            (players.mediator, config.mediator_rate),
            (critics.coalitions, config.mediator_critic_rate),
        ]
        vector = flatten_parameters([part for part, _ in parts])
        rates = spread_rates(parts, vector.dtype)
        self._of_agents = len(rates[0]) + len(rates[1])
        learnt = len(vector) if players.mediated else self._of_agents
        self._rates = np.concatenate(rates)[:learnt]
        self.optimiser = FlatAdam(vector[:learnt], (0.9, config.gradient_memory), config.weight_decay)
        self._logits, self._values = players.logits.detach().numpy(), critics.agents.detach().numpy()
        networks = players.mediator, critics.coalitions
        self._mediator, self._critics = (network_arrays(network, config.device) for network in networks)

    def _build_tables(self) -> None:
        """What is constant: inputs, who is inside, and the published critic's targets, what all members earn."""
        game, config = self.game, self.config
        self._rows = with_ones(self.players.get_buffer("inputs").numpy())
        self._shape = (config.seeds, len(game.coalitions), -1, game.n_actions)
        self._critic_rows = with_ones(critic_inputs(game, config.coalition_features).numpy())
        self._inside, outside = game.members.numpy(), game.outsiders.numpy()
        self._outside, self._outside_weights = outsider_shares(game, config.outsiders)
        self._exists = (self._inside + outside).clip(max=1)
        together = (self._inside + outside).clip(min=1)
        self._scale = together if config.outsiders == "published" else np.ones_like(together)
        slots = torch.arange(self._inside.size).reshape(1, *self._inside.shape)
        self._neighbours = game.neighbours(slots).flatten().numpy()

    def iterate(self) -> dict[str, float]:
        """One iteration: play, weigh, primal step, dual step. Returns the figures to log, every `log_every` times."""
        config, progress = self.config, self.step / self.config.iterations
        bonus = geometric(progress, config.entropy_start, config.entropy_end)
        share = geometric(progress, 1.0, config.final_rates)
        log_policies, layers = self._log_policies(), self._mediator.layers(self._rows)
        log_mediator = log_softmax(layers[-1].swapaxes(2, 3).reshape(self._shape))
        mediator = np.exp(log_mediator)
        choices, games = self.batches.play(np.exp(log_policies), mediator)
        gradients = self._agents_gradients(log_policies, choices, bonus)

        if self.players.mediated:
            own_games = config.coalition_weights == "uniform"
            lessons = self.batches.teach(np.exp(log_softmax(self._logits[..., :-1])), mediator) if own_games else games
            critic_layers = self._critics.layers(self._critic_rows)
            predicted = critic_layers[-1].reshape(config.seeds, -1, self._critic_rows.shape[1]).swapaxes(1, 2)
            imposed, coefficients = self._weigh(predicted)
            slope = self._mediator_slope(log_mediator, lessons, coefficients, bonus)
            gradients += self._mediator.gradients(layers, slope)
            gradients += self._critics.gradients(critic_layers, self._critics_slope(predicted, lessons))
        self._primal_step(gradients, share)

        if self.players.mediated:
            self._dual_step(lessons, imposed, share)
        self.step += 1
        due = self.step % config.log_every == 0 or self.step in (1, config.iterations)
        return self._figures(choices, games, bonus) if due else {}

    def _log_policies(self) -> Array:
        """Log-probabilities of the agents' actions, `[S, N, A + 1]`; without mediator commit, the last, is illegal."""
        if self.players.mediated:
            return log_softmax(self._logits)
        legal = log_softmax(self._logits[..., :-1])
        return np.concatenate([legal, np.full_like(legal[..., :1], MASKED)], -1)

    def _agents_gradients(self, log_policies: Array, choices: Choices, bonus: float) -> list[Array]:
        """Of logits and values, by which agents descend."""
        counts, earnings = choices
        gains = (earnings - self._values[..., np.newaxis] * counts) / self.config.games
        error = self._values - earnings.sum(-1) / self.config.games
        return [-log_policy_gradient(log_policies, gains, bonus), 2 * error]

    def _weigh(self, predicted: Array) -> tuple[list[Imposed], Array]:
        """The constraints imposed, and the coefficients of the mediator's advantage."""
        config, values, inside = self.config, predicted / self._scale, self._inside
        neighbours = values.reshape(len(values), -1).take(self._neighbours, 1).reshape(values.shape)
        ic, e = linear_violations(values, neighbours, config.margin)
        kinds = (
            (config.imposes_ic, self.ic, ic, inside, inside),
            (config.imposes_e, self.e, e, self._outside, self._outside_weights),
        )
        imposed, priced = [], []
        for is_imposed, multipliers, violation, shares, weights in kinds:
            if is_imposed:
                expected = torch.from_numpy(violation.scale * values + violation.offset)
                priced.append((shares * multipliers.damped(expected, config.damping).numpy(), violation))
                imposed.append(Imposed(multipliers, violation, weights))
        return imposed, advantage_coefficients(inside, values, priced)

    def _mediator_slope(self, log_mediator: Array, lessons: Lessons, coefficients: Array, bonus: float) -> Array:
        """Slope of the loss in the networks' outputs, a mean over members' samples, of which there may be none."""
        rows = log_mediator.shape[1]  # the last of the coalitions: sizes from 1 on, or all
        sums = advantage_sums(coefficients, lessons)[:, -rows:].reshape(log_mediator.shape)
        visits = total(lessons.actions[:, -rows:, 0].reshape(log_mediator.shape))
        samples = np.maximum(visits.sum((1, 2, 3), keepdims=True), 1)
        slope = log_policy_gradient(log_mediator, sums, bonus * visits)
        slope /= -samples
        return slope.reshape(len(slope), 1, -1, slope.shape[-1]).swapaxes(2, 3)

    def _critics_slope(self, predicted: Array, lessons: Lessons) -> Array:
        """Slope of the squared errors against the mean reward of each coalition and slot, by how often it was seen."""
        seen = lessons.seen[..., np.newaxis] * self._exists
        error: Array = predicted * seen - lessons.rewards * self._scale
        error *= 2 / np.maximum(seen.sum(1, keepdims=True), 1)
        return error.swapaxes(1, 2).reshape(-1, 1, 1, error.shape[1])

    def _primal_step(self, gradients: list[Array], share: float) -> None:
        """Calm the mediator and its critics to a share of their rates; the agents must still be able to answer."""
        gradient, rates = np.concatenate([part.ravel() for part in gradients]), self._rates
        if self.config.gradient_clip:
            clipped = gradient[self._of_agents :]
            np.clip(clipped, -self.config.gradient_clip, self.config.gradient_clip, out=clipped)
        if share != 1:
            rates = rates.copy()
            rates[self._of_agents :] *= share
        self.optimiser.descend(gradient, rates)

    def _dual_step(self, lessons: Lessons, imposed: list[Imposed], share: float) -> None:
        for multipliers, violation, weights in imposed:
            found = measured_violation(self.batches, lessons, violation, self.config.slack_weight)
            multipliers.multiplier.rule = ExponentialAscent(self.config.dual_rate * share)
            seen = weights * lessons.seen[..., np.newaxis]
            multipliers.ascend_mean(torch.from_numpy(weights * found), torch.from_numpy(seen))

    def _figures(self, choices: Choices, games: Lessons, bonus: float) -> dict[str, float]:
        played = self.config.seeds * self.config.games * self.game.n_agents
        reward = choices.earnings.sum().item() / played
        require_finite(reward=reward)
        figures = {
            "train/reward": reward,
            "train/commitment": choices.counts[..., -1].sum().item() / played,
            "train/entropy_bonus": bonus,
            "dual/ic": self.ic.multiplier.value.mean().item(),
            "dual/e": self.e.multiplier.value.mean().item(),
        }
        if isinstance(self.game, SymmetricPublicGoods):
            kept, given = games.actions[:, :, 0].sum((0, 1)).tolist()
            figures["train/mediated_contribution"] = given / max(kept + given, 1)
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Players, critics, optimiser, multipliers, the state of chance, and the count of steps."""
        return {
            "step": self.step,
            "players": self.players.state_dict(),
            "critics": self.critics.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ic": self.ic.multiplier.state_dict(),
            "e": self.e.multiplier.state_dict(),
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        self.players.load_state_dict(state["players"])
        self.critics.load_state_dict(state["critics"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.ic.multiplier.load_state_dict(state["ic"])
        self.e.multiplier.load_state_dict(state["e"])
        self.streams.load_state_dict(state["streams"])
