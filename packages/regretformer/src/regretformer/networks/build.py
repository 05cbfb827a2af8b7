"""The three networks by name, in the shape that the paper uses for a setting."""

from typing import Any, Literal, get_args

import torch
from gt_core.errors import InputError

from regretformer.networks import equivariantnet, regretformer, regretnet
from regretformer.networks.network import AuctionNetwork, Support
from regretformer.setting import Demand

__all__ = ["NetName", "ToldApart", "build"]

NetName = Literal["regretformer", "equivariantnet", "regretnet"]
ToldApart = Literal["none", "bidders", "items", "both", "sizes", "rivals"]
"""What positional encodings tell apart; where there is one bidder or one item only, there is nothing to encode. Or that
the network is told the numbers of bidders and items, with rivals also the highest rival of each bid."""


def build(
    net: NetName,
    bidders: int,
    items: int,
    *,
    seed: int,
    support: Support | None = None,
    told_apart: ToldApart = "none",
    demand: Demand = "additive",
) -> AuctionNetwork:
    """An untrained network with the published shape and initialisation, on the CPU.

    RegretNet starts with Xavier-uniform weights and zero biases, the others with PyTorch's defaults.

    Args:
        net: which one.
        bidders: n; the shape follows from n and m.
        items: m.
        seed: of the initial weights; no random state outside is read or changed.
        support: smallest and largest bids, each a number, [m] or [n, m], by which the network normalises what it sees.
        told_apart: whether the first n bidders, the first m items or both are encoded by position, or their numbers and
            rivals are shown; see `ToldApart`.
        demand: unit keeps every bidder to one item at most.

    Raises:
        InputError: if there is no such network, n or m is below 1, or a RegretNet is to encode positions.
    """
    if net not in get_args(NetName):
        raise InputError(f"net must be one of {', '.join(get_args(NetName))}; got {net!r}")
    if demand not in get_args(Demand):
        raise InputError(f"demand must be one of {', '.join(get_args(Demand))}; got {demand!r}")
    if min(bidders, items) < 1:
        raise InputError(f"a network needs at least 1 bidder and 1 item, got {bidders}x{items}")
    told: dict[str, Any] = {
        "positions": _lengths(bidders, items, told_apart),
        "sizes": told_apart in ("sizes", "rivals"),
        "rivals": told_apart == "rivals",
    }
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # nn.Linear takes no generator
        if net == "regretformer":
            shape = regretformer.published_shape(bidders, items)
            return regretformer.RegretFormer(shape, support=support, demand=demand, **told)
        if net == "equivariantnet":
            layers = equivariantnet.published_layers(bidders, items)
            return equivariantnet.EquivariantNet(layers, support=support, demand=demand, **told)
        if told_apart != "none":
            raise InputError(f"regretnet tells everybody apart by itself; told_apart must be none, not {told_apart!r}")
        layers = regretnet.published_layers(bidders, items)
        return regretnet.RegretNet(bidders, items, layers, support=support, demand=demand)


def _lengths(bidders: int, items: int, told_apart: ToldApart) -> tuple[int, int]:
    """How many bidders and items are encoded; as published, none where there is only one."""
    if told_apart not in get_args(ToldApart):
        raise InputError(f"told_apart must be one of {', '.join(get_args(ToldApart))}; got {told_apart!r}")
    return (
        bidders if bidders > 1 and told_apart in ("bidders", "both") else 0,
        items if items > 1 and told_apart in ("items", "both") else 0,
    )
