"""The utility of a report written out, for the networks and places that have it."""

import math
from collections.abc import Callable
from typing import TypeGuard

import torch
from torch import Tensor

from regretformer.auction import Mechanism
from regretformer.networks.equivariantnet import EquivariantNet
from regretformer.networks.handwritten.equivariantnet import EquivariantNetUtility
from regretformer.networks.handwritten.regretformer import RegretFormerUtility
from regretformer.networks.handwritten.regretnet import RegretNetUtility
from regretformer.networks.handwritten.utility import ReportUtility
from regretformer.networks.network import AuctionNetwork
from regretformer.networks.regretformer import RegretFormer
from regretformer.networks.regretnet import RegretNet

__all__ = ["is_written_out", "profiles_at_once", "report_utility"]

_AT_MOST, _AT_LEAST = 512, 64  # profiles: more gain nothing, fewer are less than NumPy needs to begin a row
_NUMBERS = 2**21  # of the widest layer

_KINDS: dict[type, Callable[..., ReportUtility]] = {
    RegretFormer: RegretFormerUtility,
    EquivariantNet: EquivariantNetUtility,
    RegretNet: RegretNetUtility,
}


def is_written_out(mechanism: Mechanism, profiles: Tensor) -> TypeGuard[AuctionNetwork]:
    """Whether `report_utility` takes it: one of the three networks, for additive values, on the CPU."""
    if not isinstance(mechanism, AuctionNetwork) or type(mechanism) not in _KINDS or mechanism.demand != "additive":
        return False
    weight = next(mechanism.parameters())
    return weight.device == profiles.device == torch.device("cpu") and weight.dtype == profiles.dtype


def profiles_at_once(network: AuctionNetwork, profiles: Tensor) -> int:
    """How many of the profiles [B, n, m] to evaluate at once, so that all parts are about equal."""
    fit = _NUMBERS // network.numbers_per_profile(*profiles.shape[1:])
    parts = math.ceil(len(profiles) / min(_AT_MOST, max(_AT_LEAST, fit)))
    return math.ceil(len(profiles) / max(parts, 1))


@torch.no_grad()
def report_utility(network: AuctionNetwork, profiles: Tensor, bidder: int) -> ReportUtility:
    """The utility of a bidder by its report in profiles [B, n, m], while the weights stand still."""
    return _KINDS[type(network)](network, profiles, bidder)
