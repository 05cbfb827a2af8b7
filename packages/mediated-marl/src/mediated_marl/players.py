"""Who learns: the game of a config, and the parameters of all its seeds' agents and mediators."""

import torch
from torch import Tensor, nn

from mediated_marl.closed_forms import check_dilemma
from mediated_marl.config import Features, TrainConfig
from mediated_marl.games import MatrixGame, PublicGoodsGame, prisoners_dilemma, sacrifice
from mediated_marl.networks import MASKED, StackedMLP
from mediated_marl.one_step import OneStepGame, SymmetricPublicGoods

__all__ = ["Players", "build_game", "critic_inputs"]


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
        inputs = mediator_inputs(game, config.coalition_features)
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
        rows = self.get_buffer("inputs").to(self.mediator.weights[0].device)
        output: Tensor = self.mediator(rows.expand(*self.mediator.stack, *rows.shape)).to(self.logits.device)
        return output.reshape(len(output), self._coalitions, self._agents, -1).log_softmax(-1)


def mediator_inputs(game: OneStepGame, features: Features) -> Tensor:
    """What the mediator's network reads for each coalition and agent, `[R, N, F]`, or `[R, 1, F]` by size alone."""
    if isinstance(game, SymmetricPublicGoods):
        return size_inputs(game.coalitions.sum(-1), game.n_agents, features).unsqueeze(1)
    coalitions, agents = game.coalitions.float(), torch.eye(game.n_agents)
    shape = (len(coalitions), game.n_agents, game.n_agents)
    return torch.cat([coalitions.unsqueeze(1).expand(shape), agents.expand(shape)], dim=-1)


def critic_inputs(game: OneStepGame, features: Features) -> Tensor:
    """What the mediator's critic reads for each coalition or size, the empty one included, `[C, F]`."""
    if isinstance(game, SymmetricPublicGoods):
        return size_inputs(game.sizes, game.n_agents, features)
    return game.coalitions.float()


def size_inputs(sizes: Tensor, n_agents: int, features: Features) -> Tensor:
    """Sizes scaled to [-1, 1], and also one-hot, so that neighbours can be told apart, unless `features` is scaled."""
    scaled = (2 * sizes / n_agents - 1).unsqueeze(-1)
    return scaled if features == "scaled" else torch.cat([scaled, torch.eye(len(sizes))], dim=-1)
