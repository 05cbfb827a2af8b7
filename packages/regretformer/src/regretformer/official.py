"""Import of published checkpoints: state dicts of the official code, of all three networks and any setting.

What a file holds is read off its entries: their names say which network it is, their shapes how large. Two things they
leave open. How many heads share the width of an attention follows from that width for the published shapes. And with
positional encodings, each of which nests the first layer one level deeper and is an entry `pe`, bidders inside items, a
single one could be of either; the setting decides.

Files are read with `weights_only=True`: nothing in them is executed.
"""

import io
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from gt_core.errors import CheckpointError
from torch import Tensor

from regretformer.networks import equivariantnet
from regretformer.networks.build import NetName
from regretformer.networks.equivariantnet import EquivariantNet
from regretformer.networks.network import AuctionNetwork
from regretformer.networks.regretformer import RegretFormer, Shape, published_shape
from regretformer.networks.regretnet import RegretNet

__all__ = ["convert_official", "load_official", "read_official"]

Size = tuple[int, int]
"""Bidders and items."""
Entries = Mapping[str, Tensor]

_PUBLISHED: tuple[Size, ...] = ((1, 2), (2, 2), (2, 3), (2, 5), (3, 10))
_HEADS = {(32, 32): 2, (64, 64): 2, (128, 128): 4}  # by channels and width of the attention
_ENCODING = re.compile(r"input_layer\.(?:0\.)?1\.pe")

_EXCHANGEABLE = (
    (r"^input_layer(\.0)+", "input_layer"),
    (r"\.channel_layer", ".own"),
    (r"\.row_layer", ".over_bidders"),
    (r"\.col_layer", ".over_items"),
    (r"\.mat_layer", ".over_both"),
)
_OURS: dict[NetName, tuple[tuple[str, str], ...]] = {
    "regretnet": ((r"^alloc_layers", "allocation_layers"), (r"^pay_layers", "payment_layers")),
    "equivariantnet": (
        *_EXCHANGEABLE,
        (r"^head_layer\.alloc_layer", "allocation_layer"),
        (r"^head_layer\.pay_layer", "payment_layer"),
    ),
    "regretformer": (
        *_EXCHANGEABLE,
        (r"^body_layers\.", "blocks."),
        (r"attention_item", "item_attention"),
        (r"attention_agent", "bidder_attention"),
        (r"\.w_qs", ".queries"),
        (r"\.w_ks", ".keys"),
        (r"\.w_vs", ".values"),
        (r"attention\.fc", "attention.output"),
        (r"^(blocks\.\d+)\.fc\.", r"\1.join."),
        (r"^head_layer\.encoder_agent", "head.bidder_vectors"),
        (r"^head_layer\.encoder_item", "head.item_vectors"),
        (r"^head_layer\.fc_payment\.0", "head.fractions"),
        (r"^head_layer", "head"),
        (r"\.layer_norm", ".norm"),
    ),
}
"""How the official names become ours: substitutions, one after the other."""


def load_official(
    path: str | os.PathLike[str], setting: Size | None = None, *, heads: int | None = None
) -> AuctionNetwork:
    """The network in a published checkpoint.

    Args:
        path: a file that `torch.save` wrote, with a state dict of the official code.
        setting: bidders and items that it must be for; None takes what comes.
        heads: attention heads of a RegretFormer that has none of the published widths.

    Raises:
        CheckpointError: if the file cannot be read, or holds no such network or one for another setting.
    """
    entries = read_official(path)
    try:
        return convert_official(entries, setting, heads=heads)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def read_official(path: str | os.PathLike[str]) -> Entries:
    """What a file that `torch.save` wrote holds, which `convert_official` makes a network of.

    Raises:
        CheckpointError: if it cannot be read, or holds more than tensors.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    try:
        entries: Entries = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is no file of tensors alone; save `network.state_dict()`, not the network, with torch.save"
        ) from error
    return entries


def convert_official(entries: Entries, setting: Size | None = None, *, heads: int | None = None) -> AuctionNetwork:
    """The network whose official state dict is given, in its dtype; see `load_official`."""
    net = _network_name(entries)
    if any(not torch.isfinite(entry).all() for entry in entries.values()):
        raise CheckpointError("the checkpoint holds weights that are NaN or infinite; take an earlier one")
    encodings = [name for name in sorted(entries) if _ENCODING.fullmatch(name)]  # the inner one first
    weights = {_our_name(net, name): entry for name, entry in entries.items() if name not in encodings}
    network: AuctionNetwork
    try:
        if net == "regretnet":
            network = _regretnet(weights, setting)
        elif net == "equivariantnet":
            network = _equivariantnet(weights, setting, _positions(entries, encodings, setting))
        else:
            network = _regretformer(weights, setting, _positions(entries, encodings, setting), heads)
    except KeyError as error:
        raise CheckpointError(f"this {net} is incomplete: it lacks {error}") from error
    _fill(network, weights | _encodings(network, entries, encodings), net)
    return network


def _network_name(entries: object) -> NetName:
    """Which network the entries are of."""
    if not isinstance(entries, Mapping) or not all(isinstance(entry, Tensor) for entry in entries.values()):
        raise CheckpointError("the checkpoint is no state dict, a flat dict of tensors; save `network.state_dict()`")
    if any(name.startswith("alloc_layers.") for name in entries):
        return "regretnet"
    if any(name.startswith("head_layer.alloc_layer.") for name in entries):
        return "equivariantnet"
    if any(name.startswith("head_layer.encoder_") for name in entries):
        return "regretformer"
    some = ", ".join(sorted(entries)[:3]) or "none"
    raise CheckpointError(
        f"the checkpoint is no RegretNet, EquivariantNet or RegretFormer of the official code: its entries are {some}, "
        "…; a network trained with regretformer-train is opened by its run directory"
    )


def _our_name(net: NetName, name: str) -> str:
    for pattern, replacement in _OURS[net]:
        name = re.sub(pattern, replacement, name)
    return name


def _regretnet(weights: Entries, setting: Size | None) -> RegretNet:
    layers = _count(weights, r"allocation_layers\.(\d+)\.weight")
    first, last = weights["allocation_layers.0.weight"], weights[f"payment_layers.{layers - 1}.weight"]
    (width, inputs), bidders = first.shape, len(last)
    items = inputs // bidders
    if setting is not None and setting != (bidders, items):
        size = _written((bidders, items))
        raise CheckpointError(f"this RegretNet is for {size}, not for {_written(setting)}; name {size} as its setting")
    return RegretNet(bidders, items, layers, width=width)


def _equivariantnet(weights: Entries, setting: Size | None, positions: Size) -> EquivariantNet:
    layers = 2 + _count(weights, r"body_layers\.(\d+)\.own\.weight")
    _demand_setting("EquivariantNet", setting, layers, equivariantnet.published_layers)
    return EquivariantNet(layers, channels=len(weights["input_layer.own.weight"]), positions=positions)


def _regretformer(weights: Entries, setting: Size | None, positions: Size, heads: int | None) -> RegretFormer:
    width, channels = weights["blocks.0.item_attention.queries.weight"].shape
    heads = heads or _HEADS.get((channels, width))
    if not heads or width % heads:
        raise CheckpointError(
            f"this RegretFormer has {channels} channels and attention of width {width}, which cannot be shared by "
            f"{heads or 'an unknown number of'} heads; give `heads`, the number it was trained with"
        )
    blocks = _count(weights, r"blocks\.(\d+)\.join\.weight")
    shape = Shape(channels=channels, head_channels=width // heads, heads=heads, blocks=blocks)
    _demand_setting("RegretFormer", setting, shape, published_shape)
    return RegretFormer(shape, positions=positions)


def _count(weights: Entries, pattern: str) -> int:
    """How many layers are numbered by the pattern."""
    return sum(re.fullmatch(pattern, name) is not None for name in weights)


def _demand_setting(net: str, setting: Size | None, shape: object, published: Callable[[int, int], object]) -> None:
    """Refuse a shape that was published for other settings only."""
    if setting not in _PUBLISHED or published(*setting) == shape:
        return
    others = [_written(other) for other in _PUBLISHED if published(*other) == shape]
    raise CheckpointError(
        f"this {net} has not the shape published for {_written(setting)}, {published(*setting)}, but {shape}, "
        f"as for {' and '.join(others) or 'no setting'}; name its setting, or none to take it as it is"
    )


def _positions(entries: Entries, encodings: list[str], setting: Size | None) -> Size:
    """How many bidders and items the encodings tell apart."""
    lengths = [entries[name].flatten(0, -2).shape[0] for name in encodings]
    if not lengths:
        return 0, 0
    if len(lengths) == 2:
        return lengths[0], lengths[1]
    (length,) = lengths
    if setting is None or length not in setting or setting == (length, length):
        raise CheckpointError(
            f"its one positional encoding tells {length} bidders or {length} items apart; which it is only a setting "
            f"with {length} of one and not of the other can say, not {_written(setting) if setting else 'none'}"
        )
    return (length, 0) if setting[0] == length else (0, length)


def _encodings(network: AuctionNetwork, entries: Entries, names: list[str]) -> dict[str, Tensor]:
    """The positional encodings under our names and in our shapes, bidders first."""
    ours = [(name, buffer) for name, buffer in network.named_buffers() if name.startswith("positions.")]
    return {ours_name: entries[name].view_as(buffer) for (ours_name, buffer), name in zip(ours, names, strict=True)}


def _fill(network: AuctionNetwork, weights: Entries, net: NetName) -> None:
    """Load the weights, all of them and nothing else."""
    expected = network.state_dict().keys()
    if expected != weights.keys():
        lacking, unknown = sorted(expected - weights.keys()), sorted(weights.keys() - expected)
        raise CheckpointError(f"this {net} lacks {lacking or 'nothing'} and has {unknown or 'nothing'} in excess")
    network.to(next(iter(weights.values())).dtype)
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise CheckpointError(f"entries of this {net} do not fit together: {error}") from error


def _written(setting: Size) -> str:
    return f"{setting[0]}x{setting[1]}"
