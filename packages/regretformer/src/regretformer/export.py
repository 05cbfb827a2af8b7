"""Export of a learnt mechanism to ONNX, to run it where there is no PyTorch.

The file maps `bids` [batch, n, m] to `allocation` [batch, n, m] and `payments` [batch, n], in float32 and for any
batch. EquivariantNet and RegretFormer take any number of bidders and items too, unless positional encodings or supports
that differ between items tie them to theirs.
"""

import copy
from importlib.util import find_spec
from pathlib import Path

import torch
from gt_core.errors import InputError
from gt_core.onnx import write_onnx
from torch import Tensor, nn
from torch.export import Dim

from regretformer.networks.equivariantnet import EquivariantNet
from regretformer.networks.masks import Presence
from regretformer.networks.network import AuctionNetwork
from regretformer.networks.regretformer import RegretFormer

__all__ = ["export_onnx", "takes_any_size"]

_AXES = ("batch", "bidders", "items")
_TRACED = (2, 3, 4)  # neither 1 nor equal, so that no size is mistaken for a constant or for another


def export_onnx(network: AuctionNetwork, path: Path, bidders: int, items: int) -> None:
    """Write `network` to `path`.

    Args:
        network: what to export; it is left as it is.
        path: an ONNX file, overwritten if it exists.
        bidders: n of the file, unless it takes any.
        items: m of the file, unless it takes any.

    Raises:
        InputError: if the exporter is not installed.
    """
    if missing := [name for name in ("onnx", "onnxscript") if find_spec(name) is None]:
        raise InputError(f"export to ONNX needs {' and '.join(missing)}: pip install 'regretformer[onnx]'")
    any_size = takes_any_size(network)
    sizes = _TRACED if any_size else (_TRACED[0], bidders, items)
    free = {axis: Dim(name) for axis, name in enumerate(_AXES) if any_size or axis == 0}
    plain = copy.deepcopy(network).cpu().float().requires_grad_(False)  # torch 2.10 cannot export derivatives
    module = _Tuple(plain, any_size).eval()
    names = {"inputs": ["bids"], "outputs": ["allocation", "payments"]}
    write_onnx(module, torch.zeros(sizes), path, **names, dynamic_shapes={"bids": free})


def takes_any_size(network: AuctionNetwork) -> bool:
    """Whether a network takes other numbers of bidders and items than it was trained for."""
    if not isinstance(network, EquivariantNet | RegretFormer):
        return False
    support = network.normalisation
    alike = support is None or support.low.numel() == support.high.numel() == 1
    return alike and network.positions.bidders is None and network.positions.items is None


class _Tuple(nn.Module):
    """The network with tensors for results, which is all that the exporter knows.

    A network for any size is given a mask with everybody there: with one it takes no shortcut that fits one size only.
    """

    def __init__(self, network: AuctionNetwork, any_size: bool) -> None:
        super().__init__()
        self.network = network
        self.any_size = any_size

    def forward(self, bids: Tensor) -> tuple[Tensor, Tensor]:
        everybody = None
        if self.any_size:
            there = torch.ones_like(bids, dtype=torch.bool)
            everybody = Presence(there[:, :, 0], there[:, 0])
        allocation, payments = self.network(bids, everybody)
        return allocation, payments
