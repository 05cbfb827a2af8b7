"""Training, and the trainer with exact gradients for one-step games.

Sampled gradients are in `mediated_marl.sampled`, games of several steps in `mediated_marl.markov`.  Here every
iteration sums the game exactly (`mediated_marl.one_step`) and moves everybody at once:

1. each agent ascends its own expected payoff, the others and the mediator held fixed;
2. the mediator ascends its Lagrangian at every coalition, the agents held fixed;
3. the multipliers ascend the mean violation of the constraints they share;

with an entropy bonus that falls geometrically.  Sampling is not involved, so all differences between seeds come from
their initial parameters.
"""

from typing import Any

import torch
from gt_core.run import Run, learn, require_finite
from gt_core.schedules import geometric
from gt_core.seeding import Streams
from torch import Tensor

from mediated_marl.config import TrainConfig
from mediated_marl.constraints import ConstraintMultipliers, Violations, coalition_lagrangian, violations
from mediated_marl.markov import MarkovTrainer
from mediated_marl.markov_config import MarkovConfig
from mediated_marl.networks import entropy
from mediated_marl.one_step import one_step_game
from mediated_marl.players import Players, build_game
from mediated_marl.sampled import SampledTrainer

__all__ = ["ExactTrainer", "build_trainer", "train"]


def train(run: Run, config: TrainConfig | MarkovConfig) -> "ExactTrainer | SampledTrainer | MarkovTrainer":
    """Train to the end, from the run's newest checkpoint if it has one."""
    trainer = build_trainer(config)
    learn(run, trainer, config.iterations)
    run.keep_model(trainer.players.state_dict())
    return trainer


def build_trainer(config: TrainConfig | MarkovConfig) -> "ExactTrainer | SampledTrainer | MarkovTrainer":
    """The learner of a config.

    Raises:
        InputError: a game or an environment that cannot be used.
    """
    if isinstance(config, MarkovConfig):
        return MarkovTrainer(config)
    return SampledTrainer(config) if config.gradients == "sampled" else ExactTrainer(config)


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
        self.players.mediator.to(config.device)
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
