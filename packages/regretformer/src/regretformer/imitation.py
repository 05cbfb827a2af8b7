"""The start of training where auctions are large: the network first answers as a known truthful auction does.

Left to itself, a network of many items first learns to let everybody pay what they bid, and from there the budget
drives it towards the Vickrey-Clarke-Groves auction. One that starts near Myerson's auctions for each item knows
reserve prices, and spends its budget on earning more than they do.
"""

import torch
from gt_core.schedules import cosine
from torch import Tensor

from regretformer.auction import Mechanism
from regretformer.divergence import divergence
from regretformer.networks.network import AuctionNetwork
from regretformer.oracles import baselines
from regretformer.valuations import Valuations

__all__ = ["imitate", "teacher_for"]

_LEARNING_RATE = 3e-3


def teacher_for(valuations: Valuations) -> Mechanism | None:
    """Myerson's auction for each item, VCG where the distribution of values is not known, None with unit demand."""
    known = baselines(valuations)
    return known.get("itemwise-myerson", known.get("vcg"))


def imitate(
    network: AuctionNetwork, teacher: Mechanism, bids: Tensor, optimiser: torch.optim.Optimizer, progress: float
) -> None:
    """One gradient step on the divergence from the known auction.

    Args:
        network: what learns.
        teacher: the known auction.
        bids: fresh truthful profiles, [B, n, m].
        optimiser: of the network's parameters.
        progress: share of the imitation that is done.
    """
    for group in optimiser.param_groups:
        group["lr"] = cosine(progress, _LEARNING_RATE, 0.0)
    loss = divergence(teacher(bids), network.decide(bids), bids).mean()
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
