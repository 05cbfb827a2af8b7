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

The gradient of a softmax policy depends on the games through one number per table entry only, the summed advantages
of the samples that chose it.  These sums are formed without automatic differentiation; what is differentiated has the
size of the policy tables, `[S, N, A + 1]` and `[S, R, N, A]`, however many games are played.

Shapes: S seeds, B games, the rest as in `mediated_marl.one_step`.
"""

from typing import Any, NamedTuple

import torch
from gt_core.dual import ExponentialAscent, weigh_slack
from gt_core.run import require_finite
from gt_core.schedules import geometric
from gt_core.seeding import Streams
from torch import Tensor, nn

from mediated_marl.config import OutsiderRule, TrainConfig
from mediated_marl.constraints import ConstraintMultipliers, violations
from mediated_marl.networks import StackedMLP, entropy
from mediated_marl.one_step import CoalitionTable, OneStepGame, SymmetricPublicGoods, one_step_game
from mediated_marl.players import Players, build_game, critic_inputs

__all__ = [
    "Critics",
    "Evidence",
    "Games",
    "SampledTrainer",
    "action_sums",
    "collect",
    "draw",
    "member_actions",
    "play",
    "weigh_evidence",
]


class Games(NamedTuple):
    """Played games.

    Attributes:
        committed: `[S, B, N]` bool.
        number: `[S, B]`, which coalition that is.
        mediated: `[S, B, N]`, the mediator's actions, meant for members only.
        rewards: `[S, B, N]`.
    """

    committed: Tensor
    number: Tensor
    mediated: Tensor
    rewards: Tensor


class Evidence(NamedTuple):
    """What games say to the mediator.

    Attributes:
        advantages: `[S, B]`.
        rewards: `[S, B, I]`, slot by slot.
        ic, e: `[S, B, I]`, the sampled g of each constraint.
        ic_weights, e_weights: `[S, B, I]`, how much each counts for its multiplier; 0 where a slot stands for nobody.
    """

    advantages: Tensor
    rewards: Tensor
    ic: Tensor
    e: Tensor
    ic_weights: Tensor
    e_weights: Tensor


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Actions by inverting the distribution function: `[*, A]` and uniform numbers `[*]` to int64 `[*]`."""
    steps = probabilities[..., :-1].cumsum(-1)
    return (uniform.unsqueeze(-1) >= steps).sum(-1)


def play(game: OneStepGame, committed: Tensor, own: Tensor, mediator: Tensor, uniform: Tensor) -> Games:
    """Let the mediator act for the members and the game pay.

    Args:
        game: the game.
        committed: `[S, B, N]` bool; games in which nobody is are games like any other.
        own: `[S, B, N]`, the actions of those who did not.
        mediator: `[S, R, N, A]` or `[S, R, 1, A]` probabilities.
        uniform: `[S, B, N]`, the mediator's luck.
    """
    number = game.number(committed)
    mediated = draw(at(mediator, game.row(number)), uniform)
    return Games(committed, number, mediated, game.rewards(torch.where(committed, mediated, own)))


def at(table: Tensor, number: Tensor) -> Tensor:
    """Entries `[S, B, *]` of a table `[S, C, *]` per seed, at `number` `[S, B]`."""
    return table[torch.arange(len(number), device=number.device).unsqueeze(-1), number]


def collect(table_size: int, number: Tensor, amounts: Tensor) -> Tensor:
    """Sums `[S, C, *]` of `amounts` `[S, B, *]` by coalition."""
    sums = amounts.new_zeros(len(number), table_size, *amounts.shape[2:])
    index = number.reshape(*number.shape, *[1] * (amounts.ndim - 2)).expand_as(amounts)
    return sums.scatter_add_(1, index, amounts)


def action_sums(chosen: Tensor, advantages: Tensor, n_actions: int) -> Tensor:
    """The advantages of each agent summed by what it chose, `[S, N, n_actions]`, from `[S, B, N]` each."""
    return torch.stack([(advantages * (chosen == action)).sum(1) for action in range(n_actions)], -1)


def member_actions(game: OneStepGame, games: Games, *, alike: bool) -> Tensor:
    """Which action each member got, one-hot `[S, B, N, A]`; with `alike` how many members got it, `[S, B, 1, A]`."""
    per_action = [(games.mediated == action) & games.committed for action in range(game.n_actions)]
    if alike:
        return torch.stack([samples.sum(-1, keepdim=True) for samples in per_action], -1).float()
    return torch.stack(per_action, -1).float()


def weigh_evidence(
    game: OneStepGame,
    games: Games,
    table: CoalitionTable,
    ic: Tensor | float,
    e: Tensor | float,
    margin: float = 0.0,
    outsiders: OutsiderRule = "sum",
) -> Evidence:
    """Advantages and violations of played games.

    Args:
        game: the game.
        games: what was played.
        table: the critics' values of all coalitions, constants.
        ic: multipliers `[S, C, I]`, or 0 where incentive compatibility is not imposed.
        e: multipliers `[S, C, I]`, or 0 where encouragement is not imposed.
        margin: see `mediated_marl.constraints`.
        outsiders: add encouragement over outsiders, or take their mean where 2 to N - 1 agents committed, each game
            counting for the multiplier as often as it has members.
    """
    number = games.number
    inside, outside = game.members[number], game.outsiders[number]
    rewards = game.members_and_outsiders(games.rewards, games.committed)
    values, neighbours = at(table.values, number), at(table.neighbours, number)
    found_ic = neighbours + margin * neighbours.abs() - rewards
    found_e = rewards * (1 + margin * values.sign()) - neighbours
    shares, e_weights = outside, outside
    if outsiders == "published":
        size = inside.sum(-1, keepdim=True)
        shares = (outside > 0) * (size >= 2) * outside / outside.sum(-1, keepdim=True).clamp(min=1)
        e_weights = shares * size
    paid_ic = at(ic, number) * found_ic if isinstance(ic, Tensor) else 0.0
    paid_e = at(e, number) * found_e if isinstance(e, Tensor) else 0.0
    advantages = (inside * (rewards - values - paid_ic) - shares * paid_e).sum(-1)
    return Evidence(advantages, rewards, found_ic, found_e, inside, e_weights)


class Critics(nn.Module):
    """Values of all seeds: one number per agent, and one network per slot for the mediator.

    Args:
        game: the game.
        config: sizes; the published critic of public goods predicts what all members earn together.
        generator: draws the initial parameters.
    """

    def __init__(self, game: OneStepGame, config: TrainConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.agents = nn.Parameter(torch.rand((config.seeds, game.n_agents), generator=generator) * 2 - 1)
        inputs = critic_inputs(game, config.coalition_features)
        self.register_buffer("inputs", inputs, persistent=False)
        shape = (config.seeds, game.members.shape[-1])
        self.coalitions = StackedMLP(shape, (inputs.shape[-1], config.critic_hidden, 1), generator)
        together = (game.members + game.outsiders).clamp(min=1)
        self.register_buffer(
            "scale", together if config.outsiders == "published" else torch.ones_like(together), persistent=False
        )

    def forward(self) -> Tensor:
        """The mediator's critics' predictions, `[S, C, I]`: `scale` times the mean of a slot's agents."""
        rows = self.get_buffer("inputs")
        output: Tensor = self.coalitions(rows.expand(*self.coalitions.stack, *rows.shape))
        return output.squeeze(-1).transpose(1, 2)


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
        mediator, critics = list(self.players.mediator.parameters()), list(self.critics.coalitions.parameters())
        groups = [
            {"params": [self.players.logits], "lr": config.agent_rate},
            {"params": [self.critics.agents], "lr": config.agent_critic_rate},
            {"params": mediator, "lr": config.mediator_rate},
            {"params": critics, "lr": config.mediator_critic_rate},
        ]
        memory, decay = (0.9, config.gradient_memory), config.weight_decay
        self.optimiser = torch.optim.Adam(groups, betas=memory, weight_decay=decay, fused=True)
        self._rates = (config.mediator_rate, config.mediator_critic_rate)
        self._clipped = mediator + critics
        form, seeds, rate = config.multipliers, config.seeds, config.dual_rate
        self.ic = ConstraintMultipliers(self.game, self.game.members, form, seeds, rate)
        self.e = ConstraintMultipliers(self.game, self.game.outsiders, form, seeds, rate)

    def iterate(self) -> dict[str, float]:
        """One iteration: play, weigh, primal step, dual step. Returns the figures to log, every `log_every` times."""
        progress = self.step / self.config.iterations
        bonus = geometric(progress, self.config.entropy_start, self.config.entropy_end)
        self._set_rates(geometric(progress, 1.0, self.config.final_rates))
        log_policies, log_mediator = self.players.log_policies(), self.players.log_mediator()
        chosen, games = self._play(log_policies.detach().exp(), log_mediator.detach().exp())
        loss = self._agents_loss(log_policies, chosen, games.rewards, bonus)

        if self.players.mediated:
            lessons = self._lessons(log_mediator.detach().exp()) if self._own_games else games
            predicted = self.critics()
            evidence = self._evidence(lessons, predicted.detach())
            loss = loss + self._mediator_loss(log_mediator, lessons, evidence.advantages, bonus)
            loss = loss + self._critics_loss(predicted, lessons, evidence.rewards)
        self._primal_step(loss)

        if self.players.mediated:
            self._dual_step(lessons, evidence)
        self.step += 1
        due = self.step % self.config.log_every == 0 or self.step in (1, self.config.iterations)
        return self._figures(games, bonus) if due else {}

    def _set_rates(self, share: float) -> None:
        """Calm the mediator, its critics and its multipliers; the agents must still be able to answer them."""
        for group, rate in zip(self.optimiser.param_groups[2:], self._rates, strict=True):
            group["lr"] = rate * share
        self.ic.multiplier.rule = self.e.multiplier.rule = ExponentialAscent(self.config.dual_rate * share)

    @property
    def _own_games(self) -> bool:
        return self.config.coalition_weights == "uniform"

    def _uniform(self) -> Tensor:
        shape = (self.config.seeds, self.config.games, self.game.n_agents)
        return torch.rand(shape, generator=self.streams.torch("games"))

    def _play(self, policies: Tensor, mediator: Tensor) -> tuple[Tensor, Games]:
        """Games as the agents choose them: their choices `[S, B, N]`, and what came of them."""
        legal = policies if self.players.mediated else policies[..., :-1]
        chosen = draw(legal.unsqueeze(1), self._uniform())
        committed = chosen == self.game.n_actions
        own = chosen.clamp(max=self.game.n_actions - 1)
        return chosen, play(self.game, committed, own, mediator, self._uniform())

    def _lessons(self, mediator: Tensor) -> Games:
        """Games of the mediator's own, in which all coalitions are equally likely."""
        shape, generator = (self.config.seeds, self.config.games), self.streams.torch("games")
        own = draw(self.players.outside().detach().unsqueeze(1), self._uniform())
        committed = self.game.draw_coalitions(shape, generator)
        return play(self.game, committed, own, mediator, self._uniform())

    def _agents_loss(self, log_policies: Tensor, chosen: Tensor, rewards: Tensor, bonus: float) -> Tensor:
        values = self.critics.agents
        sums = action_sums(chosen, rewards - values.detach().unsqueeze(1), self.game.n_actions + 1)
        selfish = (sums * log_policies).sum() / self.config.games
        return (values - rewards.mean(1)).square().sum() - selfish - bonus * entropy(log_policies).sum()

    def _evidence(self, lessons: Games, predicted: Tensor) -> Evidence:
        config, values = self.config, predicted / self.critics.get_buffer("scale")
        table = CoalitionTable(values, self.game.neighbours(values))
        found = violations(table, config.margin)
        ic = self.ic.damped(found.ic, config.damping) if config.imposes_ic else 0.0
        e = self.e.damped(found.e, config.damping) if config.imposes_e else 0.0
        return weigh_evidence(self.game, lessons, table, ic, e, config.margin, config.outsiders)

    def _mediator_loss(self, log_mediator: Tensor, lessons: Games, advantages: Tensor, bonus: float) -> Tensor:
        """Mean over members' samples, of which there may be none."""
        counts = member_actions(self.game, lessons, alike=log_mediator.shape[2] == 1)
        both = torch.stack([counts * advantages[..., None, None], counts], -1)
        sums, seen = collect(log_mediator.shape[1], self.game.row(lessons.number), both).unbind(-1)
        visits = seen.sum(-1)
        samples = visits.sum((1, 2)).clamp(min=1)
        gain = (sums * log_mediator).sum((1, 2, 3)) + bonus * (visits * entropy(log_mediator)).sum((1, 2))
        return -(gain / samples).sum()

    def _critics_loss(self, predicted: Tensor, lessons: Games, rewards: Tensor) -> Tensor:
        """Squared errors against the mean reward of each coalition and slot, weighed by how often it was seen."""
        n_coalitions = len(self.game.sizes)
        seen = (self.game.members + self.game.outsiders)[lessons.number].clamp(max=1)
        count = collect(n_coalitions, lessons.number, seen)
        mean = collect(n_coalitions, lessons.number, seen * rewards) / count.clamp(min=1)
        target = mean * self.critics.get_buffer("scale")
        return ((predicted - target).square() * count / count.sum(1, keepdim=True).clamp(min=1)).sum()

    def _primal_step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        if self.config.gradient_clip and self.players.mediated:
            nn.utils.clip_grad_value_(self._clipped, self.config.gradient_clip)
        self.optimiser.step()

    def _dual_step(self, lessons: Games, evidence: Evidence) -> None:
        constraints = (
            (self.config.imposes_ic, self.ic, evidence.ic, evidence.ic_weights),
            (self.config.imposes_e, self.e, evidence.e, evidence.e_weights),
        )
        for imposed, multipliers, found, weights in constraints:
            if imposed:
                measured = weights * weigh_slack(found, self.config.slack_weight)
                both = collect(len(self.game.sizes), lessons.number, torch.stack([measured, weights], -1))
                multipliers.ascend_mean(both[..., 0], both[..., 1])

    def _figures(self, games: Games, bonus: float) -> dict[str, float]:
        reward = games.rewards.mean().item()
        require_finite(reward=reward)
        figures = {
            "train/reward": reward,
            "train/commitment": games.committed.float().mean().item(),
            "train/entropy_bonus": bonus,
            "dual/ic": self.ic.multiplier.value.mean().item(),
            "dual/e": self.e.multiplier.value.mean().item(),
        }
        if isinstance(self.game, SymmetricPublicGoods):
            contributed = (games.committed * games.mediated).sum() / games.committed.sum().clamp(min=1)
            figures["train/mediated_contribution"] = contributed.item()
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
