"""Misreports remembered on a pool of valuations that is slowly renewed.

The pool holds groups of profiles with the same opponents, so that a group shares one menu (see
`regretformer.menus`). At each visit of a group its profiles' reports are the best of

- the truth of everybody in the group,
- the reports that were best at the last visit,
- those moved a random step along the gradient of utility, which the primal step computes anyway,
- fresh random reports,

compared by forward passes only, and improved by a few gradient steps if wanted. The network moves little between two
visits, so the reports follow it, and after some visits training sees nearly all regret there is; a group is replaced
by a new one before the network could learn it by heart. One bidder deviates, they take turns, so that the regret of
one times n estimates the sum.
"""

from typing import Any

import torch
from gt_core.seeding import Streams
from torch import Tensor

from regretformer.config import TrainConfig
from regretformer.deviations import Deviations
from regretformer.menus import draw_groups, group_size, improve, screen
from regretformer.misreports import stratified
from regretformer.networks.network import AuctionNetwork
from regretformer.valuations import Valuations

__all__ = ["Pool", "PoolSearch"]

_STEPS = (0.003, 0.1)  # the smallest and the largest step along a gradient, as shares of the support's width


class Pool:
    """The groups in which one bidder deviates, and what is remembered of them.

    Args:
        bidder: who deviates.
        config: sizes of pool and groups, and how long a group lives.
        valuations: where profiles come from.
        streams: the run's randomness.
    """

    def __init__(self, bidder: int, config: TrainConfig, valuations: Valuations, streams: Streams) -> None:
        self.bidder, self.valuations, self.streams = bidder, valuations, streams
        self.life = config.pool_visits
        self.size = group_size(config, valuations)
        self.groups = config.batch // self.size
        count = max(self.groups, config.pool_batches * self.groups)
        self.profiles, self.best, self.ahead = self._draw(count)
        """True values [P, S, n, m], the best reports of the last visit and where they are headed, [P, S, m]."""
        self.ages = self._random(count, self.life)
        """How often each group was visited, [P]; at first they are of all ages, so that renewal is spread out."""
        self.order, self.place = self._shuffled(), 0

    def visit(self) -> Tensor:
        """The next groups, renewed if their time is over, as indices [G]."""
        if self.place + self.groups > len(self.order):
            self.order, self.place = self._shuffled(), 0
        rows = self.order[self.place : self.place + self.groups]
        self.place += self.groups
        if len(old := rows[self.ages[rows] >= self.life]):
            self.profiles[old], self.best[old], self.ahead[old] = self._draw(len(old))
            self.ages[old] = 0
        self.ages[rows] += 1
        return rows

    def lead(self, rows: Tensor, reports: Tensor, gradient: Tensor) -> None:
        """Remember reports, and where the gradient of utility leads from them.

        Args:
            rows: the groups, [G].
            reports: [G * S, m].
            gradient: of utility, or of anything that falls or rises with it alone, [G * S, m]; where it is zero,
                nothing was gained, and a random report is tried next time.
        """
        low, high = self.valuations.low[self.bidder], self.valuations.high[self.bidder]
        direction = gradient * (high - low)
        largest = direction.abs().amax(-1, keepdim=True)
        share = torch.rand(largest.shape, generator=self.streams.torch("candidates"), device=largest.device)
        step = _STEPS[0] * (_STEPS[1] / _STEPS[0]) ** share
        moved = reports + step * (high - low) * direction / largest.clamp_min(torch.finfo(largest.dtype).tiny)
        moved = torch.where(largest > 0, moved.clamp(low, high), self._random_reports(len(rows)).flatten(0, 1))
        self.best[rows] = reports.unflatten(0, (-1, self.size))
        self.ahead[rows] = moved.unflatten(0, (-1, self.size))

    def _draw(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """New groups: profiles, the truth as best report, random reports to try beside it."""
        profiles = draw_groups(self.valuations, self.bidder, count, self.size, self.streams)
        return profiles, profiles[:, :, self.bidder].clone(), self._random_reports(count)

    def _random_reports(self, count: int) -> Tensor:
        shape = (count, self.size, self.valuations.setting.items)
        unit = torch.rand(shape, generator=self.streams.torch("candidates"), device=self.valuations.device)
        return self.valuations.scale(unit, self.bidder)

    def _random(self, count: int, below: int) -> Tensor:
        generator = self.streams.torch("candidates")
        return torch.randint(below, (count,), generator=generator, device=self.valuations.device)

    def _shuffled(self) -> Tensor:
        generator = self.streams.torch("candidates")
        return torch.randperm(len(self.profiles), generator=generator, device=self.valuations.device)

    def state_dict(self) -> dict[str, Any]:
        """All that is remembered."""
        names = ("profiles", "best", "ahead", "ages", "order", "place")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        for name, value in state.items():
            setattr(self, name, value.to(self.valuations.device, copy=True) if isinstance(value, Tensor) else value)


class PoolSearch:
    """The search.

    Args:
        config: sizes of batch, groups and pool, and how far to ascend.
        valuations: where profiles come from.
        streams: the run's randomness, which the run saves.
    """

    def __init__(self, config: TrainConfig, valuations: Valuations, streams: Streams) -> None:
        self.config, self.valuations, self.streams = config, valuations, streams
        self.pools = [Pool(bidder, config, valuations, streams) for bidder in range(valuations.setting.bidders)]
        self.batches = 0
        self.rows = torch.empty(0, dtype=torch.int64)
        """The groups of the latest batch."""

    def find(self, network: AuctionNetwork) -> Deviations:
        """The next batch, and the best misreports of the bidder whose turn it is."""
        pool = self.pools[self.batches % len(self.pools)]
        self.batches += 1
        self.rows = pool.visit()
        profiles = pool.profiles[self.rows]
        truthful = network(profiles.flatten(0, 1))
        fresh = max(1, self.config.candidates // len(self.rows))
        unit = stratified((len(self.rows),), fresh, self.valuations.setting.items, self.streams.torch("candidates"))
        candidates = [pool.best[self.rows], pool.ahead[self.rows], self.valuations.scale(unit, pool.bidder)]
        reports = screen(network, profiles, pool.bidder, torch.cat(candidates, dim=1), truthful)
        reports = improve(network, self.valuations, profiles, pool.bidder, reports, self.config)
        return Deviations(profiles.flatten(0, 1), truthful, {pool.bidder: reports.detach().requires_grad_(True)})

    def learn(self, found: Deviations) -> None:
        """Remember the reports, and their gradients, which lead the loss up and so utility.

        Raises:
            RuntimeError: if the loss was not differentiated before.
        """
        ((bidder, reports),) = found.reports.items()
        if reports.grad is None:
            raise RuntimeError("the pool learns from gradients of the reports: differentiate the loss first")
        self.pools[bidder].lead(self.rows, reports.detach(), reports.grad)

    def state_dict(self) -> dict[str, Any]:
        """The pools, and how many batches were drawn."""
        return {"batches": self.batches, "pools": [pool.state_dict() for pool in self.pools]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.batches = state["batches"]
        for pool, saved in zip(self.pools, state["pools"], strict=True):
            pool.load_state_dict(saved)
