"""Training: revenue under a regret budget, by dual ascent (paper, section 3).

Maximise expected revenue P subject to R / P <= R_max, where R is the sum of the bidders' expected regret. The loss is

    L = -P + gamma R,    gamma <- max(0, gamma + eta (ln(R / P) - ln R_max)),

with the multiplier moved first. Each iteration draws a batch whose profiles come in groups with the same opponents,
lets one bidder deviate to the best report on its group's menu (see `regretformer.misreports`), and takes one step.
Deviating bidders take turns, so the regret of one times n estimates the sum.
"""

from typing import Any, NamedTuple

import torch
from gt_core.dual import LogRatioAscent, Multiplier, dual_first_lagrangian
from gt_core.run import Run, learn, require_finite
from gt_core.schedules import cosine, geometric
from gt_core.seeding import Streams, derive_seed
from torch import Tensor

from regretformer.auction import Mechanism, Outcome, replace_report, utilities
from regretformer.config import TrainConfig
from regretformer.misreports import ascend, best_of_menu, frozen, stratified
from regretformer.networks.build import build
from regretformer.networks.network import AuctionNetwork
from regretformer.valuations import UniformValuations, Valuations

__all__ = ["Trainer", "build_network", "train"]


def train(run: Run, config: TrainConfig) -> AuctionNetwork:
    """Train to the end, from the run's newest checkpoint if it has one, and return the network."""
    trainer = Trainer(config)
    learn(run, trainer, config.iterations)
    run.keep_model(trainer.network.state_dict())
    return trainer.network


def build_network(config: TrainConfig, seed: int = 0) -> AuctionNetwork:
    """The untrained network of a config.

    Where the items' supports differ, the network sees them scaled to the unit box and, but for RegretNet, which tells
    items apart by itself, encoded by position.
    """
    auction = config.auction
    box = torch.tensor(auction.low), torch.tensor(auction.high)
    is_unit = not box[0].any() and bool((box[1] == 1).all())
    return build(
        config.net,
        auction.bidders,
        auction.items,
        seed=seed,
        support=None if is_unit else box,
        told_apart="none" if config.net == "regretnet" or auction.is_symmetric else "items",
        demand=auction.demand,
    )


class Batch(NamedTuple):
    """Profiles in groups that differ in one bidder's values only."""

    profiles: Tensor
    """Valuation profiles, [G, S, n, m]; along S only the deviating bidder's row changes."""
    candidates: Tensor
    """Misreports to try in each group besides the S true values, [G, K, m]."""
    bidder: int
    """Who deviates."""


class Trainer:
    """All that changes during training; `iterate` is one iteration, `state_dict` everything needed to continue.

    Args:
        config: the run's config.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.step = 0
        self.streams = Streams(config.seed, config.device)
        self.valuations = UniformValuations(config.auction, torch.device(config.device))
        self.network = build_network(config, derive_seed(config.seed, "initialisation")).to(config.device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.multiplier = Multiplier(1.0, LogRatioAscent(config.dual_rate))

    def iterate(self) -> dict[str, float]:
        """One iteration: batch, misreports, dual step, primal step. Returns the figures to log."""
        config, progress = self.config, self.step / self.config.iterations
        budget = geometric(progress, config.budget_start, config.regret_budget, until=config.budget_until)
        for group in self.optimiser.param_groups:
            group["lr"] = cosine(progress, config.learning_rate, 0.0)

        batch = draw_batch(config, self.valuations, self.step % config.auction.bidders, self.streams)
        truthful = self.network(batch.profiles.flatten(0, 1))
        reports = find_misreports(self.network, self.valuations, batch, truthful, config)
        revenue = truthful.payments.sum(-1).mean()
        regret = config.auction.bidders * deviation_gain(self.network, batch, truthful, reports).mean()

        ratio = (regret / revenue).item()
        require_finite(regret_over_revenue=ratio)
        loss = dual_first_lagrangian(
            -revenue, self.multiplier, violation=regret, measured=ratio / (config.budget_margin * budget)
        )
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimiser.step()
        self.step += 1
        return {
            "train/revenue": revenue.item(),
            "train/regret_over_revenue": ratio,
            "dual/budget": budget,
            "dual/multiplier": self.multiplier.value.item(),
        }

    def state_dict(self) -> dict[str, Any]:
        """Network, optimiser, multiplier, random generators and the count of steps."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "multiplier": self.multiplier.state_dict(),
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.multiplier.load_state_dict(state["multiplier"])
        self.streams.load_state_dict(state["streams"])


def draw_batch(config: TrainConfig, valuations: Valuations, bidder: int, streams: Streams) -> Batch:
    """A batch in which `bidder` deviates."""
    groups, items = config.groups, config.auction.items
    size, tried = config.batch // groups, max(1, config.candidates // groups)
    opponents = valuations.profiles(groups, streams.torch("valuations"))
    own = valuations.types(bidder, (groups, size), streams.torch("valuations"))
    profiles = replace_report(opponents.unsqueeze(1).expand(-1, size, -1, -1), bidder, own)
    unit = stratified((groups,), tried, items, streams.torch("candidates"))
    return Batch(profiles, valuations.scale(unit, bidder), bidder)


def find_misreports(
    network: AuctionNetwork, valuations: Valuations, batch: Batch, truthful: Outcome, config: TrainConfig
) -> Tensor:
    """The best report found for each profile, [G * S, m].

    Args:
        network: the mechanism.
        valuations: for the support.
        batch: profiles and candidates.
        truthful: the mechanism's outcome for the profiles, flattened to [G * S, ...].
        config: how far to search.
    """
    reports = screen(network, batch, truthful)
    if config.ascent_steps == 0:
        return reports
    low, high = valuations.low[batch.bidder], valuations.high[batch.bidder]
    with frozen(network):
        reports, _ = ascend(
            network, batch.profiles.flatten(0, 1), batch.bidder, reports, low, high,
            steps=config.ascent_steps, rate=config.ascent_rate,
        )  # fmt: skip
    return reports


@torch.no_grad()
def screen(network: AuctionNetwork, batch: Batch, truthful: Outcome) -> Tensor:
    """The best of each group's true values and candidates for each profile, [G * S, m], by forward passes only."""
    groups, tried, items = batch.candidates.shape
    own = batch.profiles[:, :, batch.bidder]
    opponents = batch.profiles[:, :1].expand(-1, tried, -1, -1)
    deviating = network(replace_report(opponents, batch.bidder, batch.candidates).flatten(0, 1))
    menus = [
        torch.cat(
            [true[:, batch.bidder].unflatten(0, (groups, -1)), other[:, batch.bidder].unflatten(0, (groups, -1))], 1
        )
        for true, other in zip(truthful, deviating, strict=True)
    ]
    _, index = best_of_menu(own, *menus)
    reports = torch.cat([own, batch.candidates], dim=1).gather(1, index.unsqueeze(-1).expand(-1, -1, items))
    return reports.flatten(0, 1)


def deviation_gain(network: Mechanism, batch: Batch, truthful: Outcome, reports: Tensor) -> Tensor:
    """What the deviating bidder gains by its report, at least 0, differentiable in the weights, [G * S]."""
    profiles = batch.profiles.flatten(0, 1)
    deviating = network(replace_report(profiles, batch.bidder, reports))
    gain = utilities(profiles, deviating) - utilities(profiles, truthful)
    return gain[:, batch.bidder].clamp_min(0)
