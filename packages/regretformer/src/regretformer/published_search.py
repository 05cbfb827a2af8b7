"""The published search for misreports: one remembered report per valuation and bidder, improved at every visit.

Training runs over a fixed set of valuations, reshuffled at each pass. At each visit every bidder's misreport takes 50
Adam steps of 0.1 (a share of the support's width; the paper's supports have width 1), projected on the support, without
decay and with fresh moments, and the last iterate is both used and remembered for the next visit. The first visit
starts from a random report (specification of the paper's code, sections 3 and appendix; its weaknesses are measured by
`regretformer.evaluate`).

The valuations and the order of each pass are made again from the seed; the misreports are the state, 4 n m bytes for
each valuation: 5 MB for the published 640,000 valuations of 1x2, 77 MB for those of 3x10.
"""

from typing import Any

import torch
from gt_core.seeding import derive_seed
from torch import Tensor

from regretformer.config import TrainConfig
from regretformer.deviations import Deviations
from regretformer.misreports import ascend, frozen
from regretformer.networks.network import AuctionNetwork
from regretformer.valuations import Valuations

__all__ = ["PublishedSearch"]


class PublishedSearch:
    """The search.

    Args:
        config: sizes of the batch and the set, the ascent, and the seed.
        valuations: where the set comes from.
    """

    def __init__(self, config: TrainConfig, valuations: Valuations) -> None:
        self.config, self.valuations = config, valuations
        generator = self._generator("valuations of the set")
        self.profiles = valuations.profiles(config.dataset_batches * config.batch, generator)
        """The fixed set, [N, n, m]."""
        unit = torch.rand(self.profiles.shape, generator=generator, device=generator.device)
        self.misreports = valuations.low + (valuations.high - valuations.low) * unit
        """The remembered report of each bidder at each valuation, [N, n, m]."""
        self.batches = 0
        self._order = self._shuffled()

    def find(self, network: AuctionNetwork) -> Deviations:
        """The next batch of the set, in which every bidder deviates."""
        rows = self.rows()
        self.batches += 1
        profiles = self.profiles[rows]
        with frozen(network):
            reports = {bidder: self._improve(network, profiles, rows, bidder) for bidder in range(profiles.shape[1])}
        for bidder, found in reports.items():
            self.misreports[rows, bidder] = found
        return Deviations(profiles, network(profiles), reports)

    def rows(self) -> Tensor:
        """Which valuations of the set the next batch holds, [B]."""
        place = self.batches % self.config.dataset_batches
        if place == 0:
            self._order = self._shuffled()
        return self._order[place * self.config.batch : (place + 1) * self.config.batch]

    def _improve(self, network: AuctionNetwork, profiles: Tensor, rows: Tensor, bidder: int) -> Tensor:
        low, high = self.valuations.low[bidder], self.valuations.high[bidder]
        reports, _ = ascend(
            network, profiles, bidder, self.misreports[rows, bidder], low, high, steps=self.config.ascent_steps,
            rate=self.config.ascent_rate, decay=False, best_iterate=False,
        )  # fmt: skip
        return reports

    def _shuffled(self) -> Tensor:
        """The order of the present pass, [N]."""
        generator = self._generator(f"order of pass {self.batches // self.config.dataset_batches}")
        return torch.randperm(len(self.profiles), generator=generator, device=generator.device)

    def _generator(self, name: str) -> torch.Generator:
        seed = derive_seed(self.config.seed, self.valuations.setting.name, name)
        return torch.Generator(self.valuations.device).manual_seed(seed)

    def learn(self, found: Deviations) -> None:
        """Nothing: the search remembers its last iterates itself."""

    def state_dict(self) -> dict[str, Any]:
        """The misreports, and how many batches were drawn."""
        return {"batches": self.batches, "misreports": self.misreports}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.batches = state["batches"]
        self.misreports.copy_(state["misreports"])
        self._order = self._shuffled()
