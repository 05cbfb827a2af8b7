"""Training in one-step games with exact gradients.

Every iteration sums the game exactly (`mediated_marl.one_step`) and moves everybody at once:

1. each agent ascends its own expected payoff, the others and the mediator held fixed;
2. the mediator ascends its Lagrangian at every coalition, the agents held fixed;
3. the multipliers ascend the mean violation of the constraints they share;

with an entropy bonus that falls geometrically.  Sampling is not involved, so all differences between seeds come from
their initial parameters.
"""

from typing import Any

import torch
from gt_core.checkpoint import save_checkpoint
from gt_core.run import Run, require_finite
from gt_core.schedules import geometric
from gt_core.seeding import Streams
from torch import Tensor, nn

from mediated_marl.closed_forms import check_dilemma
from mediated_marl.config import TrainConfig
from mediated_marl.constraints import ConstraintMultipliers, Violations, coalition_lagrangian, violations
from mediated_marl.games import MatrixGame, PublicGoodsGame, prisoners_dilemma, sacrifice
from mediated_marl.networks import MASKED, StackedMLP, entropy
from mediated_marl.one_step import OneStepGame, SymmetricPublicGoods, one_step_game

__all__ = ["ExactTrainer", "Players", "build_game", "train"]


def train(run: Run, config: TrainConfig) -> "ExactTrainer":
    """Train to the end, from the run's newest checkpoint if it has one."""
    trainer = ExactTrainer(config)
    saved = run.restore()
    if saved is not None:
        trainer.load_state_dict(saved)
    with run:
        for step in run.steps(trainer.step, config.iterations, trainer.state_dict):
            run.log(step + 1, trainer.iterate())
    if not (run.directory / "model").exists():
        save_checkpoint(run.directory / "model", trainer.players.state_dict())
    return trainer


def build_game(config: TrainConfig, dtype: torch.dtype = torch.float32) -> MatrixGame | PublicGoodsGame:
    """The game of a config.

    Raises:
        InputError: public goods that are no dilemma.
    """
    if config.game == "pgg":
        goods = PublicGoodsGame(config.n_agents, config.multiplier or None, dtype)
        check_dilemma(goods.n_agents, goods.multiplier)
        return goods
    game = {"pd": prisoners_dilemma, "sacrifice": sacrifice}[config.game]()
    return MatrixGame(game.payoffs.to(dtype), game.name)


class Players(nn.Module):
    """The parameters of all seeds: logits of every agent, and one mediator network per seed.

    A one-step game shows the agents nothing, so an agent is its logits.  The mediator's network reads the coalition:
    its size, one-hot and scaled to [-1, 1], where agents are interchangeable, so that neighbouring sizes can be told
    apart; otherwise who is in it and whose action is wanted.

    Args:
        game: the game.
        config: sizes and the kind of mediator.
        generator: draws the initial parameters.
    """

    def __init__(self, game: OneStepGame, config: TrainConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.mediated = config.mediator != "none"
        shape = (config.seeds, game.n_agents, game.n_actions + 1)
        self.logits = nn.Parameter(torch.rand(shape, generator=generator, device=generator.device) * 2 - 1)
        inputs = mediator_inputs(game)
        self.register_buffer("inputs", inputs.flatten(0, 1), persistent=False)
        self._coalitions, self._agents = len(game.coalitions), inputs.shape[1]
        self.mediator = StackedMLP((config.seeds,), (inputs.shape[-1], config.hidden, game.n_actions), generator)

    def log_policies(self) -> Tensor:
        """Log-probabilities of the agents' actions, `[S, N, A + 1]`; without mediator commit, the last, is illegal."""
        logits: Tensor = self.logits
        if not self.mediated:
            logits = torch.cat([logits[..., :-1], torch.full_like(logits[..., -1:], MASKED)], -1)
        return logits.log_softmax(-1)

    def outside(self) -> Tensor:
        """What each agent plays when it does not commit, `[S, N, A]`."""
        return self.logits[..., :-1].softmax(-1)

    def log_mediator(self) -> Tensor:
        """Log-probabilities of the mediator's actions, `[S, R, N, A]` (one agent for all where they are alike)."""
        rows = self.get_buffer("inputs")
        output: Tensor = self.mediator(rows.expand(*self.mediator.stack, *rows.shape))
        return output.reshape(len(output), self._coalitions, self._agents, -1).log_softmax(-1)


def mediator_inputs(game: OneStepGame) -> Tensor:
    """What the mediator's network reads for each coalition and agent, `[R, N, F]`, or `[R, 1, F]` by size alone."""
    if isinstance(game, SymmetricPublicGoods):
        scaled = 2 * game.coalitions.sum(-1, keepdim=True) / game.n_agents - 1
        return torch.cat([scaled, torch.eye(game.n_agents)], dim=-1).unsqueeze(1)
    coalitions, agents = game.coalitions.float(), torch.eye(game.n_agents)
    shape = (len(coalitions), game.n_agents, game.n_agents)
    return torch.cat([coalitions.unsqueeze(1).expand(shape), agents.expand(shape)], dim=-1)


class ExactTrainer:
    """All that changes during training; `iterate` is one iteration, `state_dict` everything needed to continue.

    Args:
        config: the run's config.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.step = 0
        self.game = one_step_game(build_game(config))
        self.players = Players(self.game, config, Streams(config.seed).torch("initialisation"))
        groups = [
            {"params": [self.players.logits], "lr": config.agent_rate},
            {"params": list(self.players.mediator.parameters()), "lr": config.mediator_rate},
        ]
        self.optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))  # gradients shrink with the entropy
        form, seeds, rate = config.multipliers, config.seeds, config.dual_rate
        self.ic = ConstraintMultipliers(self.game, self.game.members, form, seeds, rate)
        self.e = ConstraintMultipliers(self.game, self.game.outsiders, form, seeds, rate)

    def iterate(self) -> dict[str, float]:
        """One iteration: sum the game, primal step, dual step. Returns the figures to log."""
        config = self.config
        bonus = geometric(self.step / config.iterations, config.entropy_start, config.entropy_end)
        log_policies, log_mediator = self.players.log_policies(), self.players.log_mediator()
        policies, mediator = log_policies.exp(), log_mediator.exp()
        weights = self._weights(policies.detach())
        table = self.game.table(self.players.outside().detach(), mediator)

        choices = self.game.deviations(policies.detach(), mediator.detach())
        selfish = (policies * choices).sum() + bonus * entropy(log_policies).sum()
        found = violations(table, config.margin)
        lagrangian = coalition_lagrangian(self.game, table, found, *self._multipliers(found))
        mediated = (weights * lagrangian).sum() + bonus * entropy(log_mediator).mean((1, 2)).sum()
        self._primal_step(-selfish - mediated if self.players.mediated else -selfish)

        if config.imposes_ic:
            self.ic.ascend(found.ic, weights)
        if config.imposes_e:
            self.e.ascend(found.e, weights)
        self.step += 1
        reward = (policies * choices).sum(-1).mean().item()
        require_finite(reward=reward)
        return {
            "train/reward": reward,
            "train/commitment": policies[..., -1].mean().item(),
            "train/entropy_bonus": bonus,
            "dual/ic": self.ic.multiplier.value.mean().item(),
            "dual/e": self.e.multiplier.value.mean().item(),
        }

    def _weights(self, policies: Tensor) -> Tensor:
        if self.config.coalition_weights == "visited":
            return self.game.probabilities(policies[..., -1])
        return torch.full((len(policies), len(self.game.sizes)), 1 / len(self.game.sizes), device=policies.device)

    def _multipliers(self, found: Violations) -> tuple[Tensor | float, Tensor | float]:
        damping = self.config.damping
        return (
            self.ic.damped(found.ic, damping) if self.config.imposes_ic else 0.0,
            self.e.damped(found.e, damping) if self.config.imposes_e else 0.0,
        )

    def _primal_step(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """Players, optimiser, multipliers and the count of steps."""
        return {
            "step": self.step,
            "players": self.players.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ic": self.ic.multiplier.state_dict(),
            "e": self.e.multiplier.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        self.players.load_state_dict(state["players"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.ic.multiplier.load_state_dict(state["ic"])
        self.e.multiplier.load_state_dict(state["e"])
