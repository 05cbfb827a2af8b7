"""A network whose profiles are shared out over the processes of a run (data parallelism).

Every process asks for the outcome of the same profiles, evaluates its own share of them, and receives all. What is
computed from the outcome is then the same everywhere, duals and misreports included, while of the gradient with respect
to the weights each process holds the part of its share: the parts are summed once, before the optimiser's step.
"""

from gt_core.parallel import Team
from torch import Tensor

from regretformer.auction import Outcome
from regretformer.networks.masks import Presence
from regretformer.networks.network import AuctionNetwork

__all__ = ["SharedNetwork"]


class SharedNetwork(AuctionNetwork):
    """The network as all processes together evaluate it.

    Args:
        network: the same weights in every process.
        team: the processes.
    """

    def __init__(self, network: AuctionNetwork, team: Team) -> None:
        super().__init__(demand=network.demand)
        self.network, self.team = network, team

    def decide(self, bids: Tensor, mask: Presence | None = None) -> tuple[Tensor, Tensor]:
        """As the network does, in this process alone."""
        return self.network.decide(bids, mask)

    def numbers_per_profile(self, bidders: int, items: int) -> int:
        """As many as the network's."""
        return self.network.numbers_per_profile(bidders, items)

    def forward(self, bids: Tensor, mask: Presence | None = None) -> Outcome:
        """Allocation [B, n, m] and payments [B, n], gathered from all processes."""
        own = self.team.own(len(bids))
        masks = None if mask is None else Presence(*(side[own] for side in mask))
        outcome = self.network(self.team.fan_out(bids)[own], masks)
        return Outcome(*(self.team.gather(side, len(bids)) for side in outcome))
