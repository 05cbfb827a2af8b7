"""Training: revenue under a regret budget, by dual ascent (paper, section 3).

Maximise expected revenue P while R, the sum of the bidders' expected regret, is held down (see
`regretformer.constraint`). Each iteration draws a batch with the best misreports that a search finds on it (see
`regretformer.deviations`), measures P and R with gradients, moves the multipliers, and takes one step of Adam. From a
mixture of settings each iteration draws one. Where auctions are large, the first iterations imitate a known auction
instead (see `regretformer.imitation`); schedules begin after them, with a fresh optimiser.
"""

from typing import Any

import numpy as np
import torch
from gt_core.parallel import ALONE, Team
from gt_core.run import Run, learn, require_finite
from gt_core.schedules import cosine
from gt_core.seeding import Streams, derive_seed

from regretformer.config import TrainConfig
from regretformer.constraint import AugmentedRegret, Constraint, RegretBudget, sum_of_regrets
from regretformer.deviations import Search, gains
from regretformer.imitation import imitate, teacher_for
from regretformer.networks.build import ToldApart, build
from regretformer.networks.network import AuctionNetwork, Support
from regretformer.networks.shared import SharedNetwork
from regretformer.pool_search import PoolSearch
from regretformer.published_search import PublishedSearch
from regretformer.sources import load_valuations
from regretformer.valuations import Valuations

__all__ = ["Trainer", "build_network", "train"]


def train(run: Run, trainer: "Trainer") -> AuctionNetwork:
    """Train to the end, from the run's newest checkpoint if it has one, and return the network."""
    learn(run, trainer, trainer.config.iterations)
    run.keep_model(trainer.network.state_dict())
    return trainer.network


def build_network(config: TrainConfig, valuations: Valuations, seed: int = 0) -> AuctionNetwork:
    """The untrained network of a config.

    Where values do not lie in the unit box, the network sees them scaled to it. Bidders and items that the valuations
    do not make alike are encoded by position, but for RegretNet, which tells everybody apart by itself. For a mixture
    of settings the network is told how many there are, and shown the highest rival of each bid. No shape is published
    for mixtures: RegretFormer takes that of the smallest setting, and EquivariantNet, whose layers are cheap, that of
    the largest.

    Args:
        config: which network.
        valuations: of the setting, or of a mixture's largest.
        seed: of the initial weights.
    """
    size, mixed = valuations.setting, len(config.auctions) > 1
    if mixed and config.net == "regretformer":
        size = config.auctions[0]
    told_apart = "none" if config.net == "regretnet" else config.told_apart
    if told_apart == "auto":
        told_apart = "rivals" if mixed else _unlike(valuations)
    return build(
        config.net,
        size.bidders,
        size.items,
        seed=seed,
        support=_support(valuations),
        told_apart=told_apart,
        demand=size.demand,
    )


def _unlike(valuations: Valuations) -> ToldApart:
    """Whom the valuations do not make alike."""
    if valuations.bidders_alike:
        return "none" if valuations.items_alike else "items"
    return "bidders" if valuations.items_alike else "both"


def _support(valuations: Valuations) -> Support | None:
    """The valuations' box, in as few numbers as hold it: a network with one pair of numbers takes any size."""
    low, high = valuations.low.cpu(), valuations.high.cpu()
    if bool((low == low[0, 0]).all() and (high == high[0, 0]).all()):
        is_unit = (low[0, 0].item(), high[0, 0].item()) == (0.0, 1.0)
        return None if is_unit else (low[0, 0], high[0, 0])
    rows_alike = bool((low == low[0]).all() and (high == high[0]).all())
    return (low[0], high[0]) if rows_alike else (low, high)


class Trainer:
    """All that changes during training; `iterate` is one iteration, `state_dict` everything needed to continue.

    Args:
        config: the run's config.
        team: the processes that share out every evaluation of the network; all iterate in step.

    Raises:
        InputError: if the config's valuations cannot be used.
    """

    def __init__(self, config: TrainConfig, team: Team = ALONE) -> None:
        self.config = config = config.settled()
        self.team = team
        self.step = 0
        self.streams = Streams(config.seed, config.device)
        self.valuations = [load_valuations(config, setting, device=config.device) for setting in config.auctions]
        self.unit = max(valuations.high.max().item() for valuations in self.valuations)
        self.searches = [_search(config, valuations, self.streams) for valuations in self.valuations]
        seed = derive_seed(config.seed, "initialisation")
        self.network = build_network(config, self.valuations[-1], seed).to(config.device)
        self.evaluated = self.network if team.size == 1 else SharedNetwork(self.network, team)
        self.imitated = round(config.imitation * config.iterations)
        """How many iterations come before training proper."""
        self.teachers = [teacher_for(valuations) for valuations in self.valuations] if self.imitated else []
        self.optimiser = self._fresh_optimiser()
        self.constraint: Constraint = (
            AugmentedRegret(config) if config.constraint == "augmented" else RegretBudget(config)
        )

    def iterate(self) -> dict[str, float]:
        """One iteration: batch with misreports, dual step, primal step. Returns the figures to log."""
        config, setting = self.config, self._draw_setting()
        if self.step < self.imitated:
            self._imitate(setting)
            return {}
        progress = (self.step - self.imitated) / (config.iterations - self.imitated)
        for group in self.optimiser.param_groups:
            group["lr"] = cosine(progress, config.learning_rate, config.learning_rate_end)

        found = self.searches[setting].find(self.evaluated)
        revenue = found.truthful.payments.sum(-1).mean()
        regrets = {bidder: gain.mean() for bidder, gain in gains(self.evaluated, found).items()}

        ratio = (sum_of_regrets(regrets, found.profiles.shape[1]) / revenue).item()
        require_finite(regret_over_revenue=ratio)
        in_units = {bidder: regret / self.unit for bidder, regret in regrets.items()}
        loss = self.constraint.loss(revenue / self.unit, in_units, setting, progress)
        self.optimiser.zero_grad()
        loss.backward()
        self.searches[setting].learn(found)
        self.team.sum_gradients(list(self.network.parameters()))
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimiser.step()
        self.step += 1
        return {
            **({"train/setting": setting} if len(self.searches) > 1 else {}),
            "train/revenue": revenue.item(),
            "train/regret_over_revenue": ratio,
            **self.constraint.figures(setting),
        }

    def _imitate(self, setting: int) -> None:
        """One iteration before training proper; all processes of a team take the same step."""
        if (teacher := self.teachers[setting]) is not None:
            bids = self.valuations[setting].profiles(self.config.batch, self.streams.torch("imitation"))
            imitate(self.network, teacher, bids, self.optimiser, self.step / self.imitated)
        self.step += 1
        if self.step == self.imitated:
            self.optimiser = self._fresh_optimiser()

    def _fresh_optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), lr=self.config.learning_rate)

    def _draw_setting(self) -> int:
        """One setting of a mixture, in proportion to n / m.

        The more bidders and the fewer items, the less there is to earn beyond the known truthful auctions.
        """
        if len(self.searches) == 1:
            return 0
        weights = np.array([setting.bidders / setting.items for setting in self.config.auctions])
        return int(self.streams.numpy("settings").choice(len(weights), p=weights / weights.sum()))

    def state_dict(self) -> dict[str, Any]:
        """Network, optimiser, multipliers, searches, random generators and the count of steps."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "constraint": self.constraint.state_dict(),
            "searches": [search.state_dict() for search in self.searches],
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.constraint.load_state_dict(state["constraint"])
        for search, saved in zip(self.searches, state["searches"], strict=True):
            search.load_state_dict(saved)
        self.streams.load_state_dict(state["streams"])


def _search(config: TrainConfig, valuations: Valuations, streams: Streams) -> Search:
    if config.search == "published":
        return PublishedSearch(config, valuations)
    return PoolSearch(config, valuations, streams)
