"""Mechanisms as a user names them: the directory of a learnt one, or a known auction by its name.

A directory is a finished run of regretformer-train or regretformer-distill, or what regretformer-import made of a
published network. The known auctions are

    vcg, itemwise-myerson, bundle-myerson   in every setting
    straight-jacket                         for one bidder with uniform values of at most six items
    optimum                                 where the optimal auction is known

They take the setting of the directories named beside them. Mechanisms that are compared face the same valuations, so
all must be for one setting.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from gt_core.checkpoint import save_checkpoint
from gt_core.config import from_dict
from gt_core.errors import InputError, RunError
from gt_core.files import write_json

from regretformer.auction import Mechanism
from regretformer.config import TrainConfig
from regretformer.networks.network import AuctionNetwork
from regretformer.official import load_official, read_official
from regretformer.oracles import baselines, known_optimum, straight_jacket
from regretformer.report import draw_mechanism, draw_run, load_config, load_network, require_fits
from regretformer.setting import Setting, parse_setting
from regretformer.sources import load_valuations
from regretformer.valuations import UniformValuations, Valuations

__all__ = ["ORACLES", "NamedMechanism", "draw_named", "import_official", "open_learnt", "open_mechanisms"]


@dataclasses.dataclass(frozen=True)
class NamedMechanism:
    """A mechanism and what to call it."""

    name: str
    """The directory's name, or the known auction's."""
    mechanism: Mechanism
    """Bids to outcome."""
    config: TrainConfig | None = None
    """How it was learnt; None for a known auction."""


def open_mechanisms(names: Sequence[str], setting: str = "") -> tuple[list[NamedMechanism], Valuations]:
    """The mechanisms that the names stand for, and the valuations that all of them are for.

    Args:
        names: directories and known auctions.
        setting: what they must be for; only where no directory is named does it have to be given.

    Raises:
        InputError: if there is no name or the same twice, a name stands for nothing, or settings differ or do not fit.
        RunError: if a directory holds no finished run.
        CheckpointError: if its model is damaged.
    """
    if not names:
        raise InputError(f"no mechanism is given; name directories of finished runs, or {', '.join(ORACLES)}")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{repeated[0]} is given twice; name each mechanism once")
    configs = {name: load_config(Path(name)) for name in names if name not in ORACLES}
    size = parse_setting(_common_setting(configs, setting))
    valuations = load_valuations(_common_values(configs), size, "held-out")
    labels = _labels(configs)
    return [
        NamedMechanism(labels[name], _open(Path(name), configs[name], size), configs[name])
        if name in configs
        else NamedMechanism(name, ORACLES[name](valuations))
        for name in names
    ], valuations


def _open(directory: Path, config: TrainConfig, setting: Setting) -> AuctionNetwork:
    """The network in a directory; refuses a setting that it is not for."""
    network = load_network(directory)
    require_fits(network, config, setting)
    return network


def open_learnt(name: str) -> tuple[AuctionNetwork, TrainConfig]:
    """The network in a directory, for what only a network can do.

    Raises:
        InputError: if the name is a known auction's, or `open_mechanisms` refuses it.
    """
    if name in ORACLES:
        raise InputError(f"{name} is a known auction and no network; name the directory of a run or of an import")
    return load_network(Path(name)), load_config(Path(name))


def draw_named(name: str, setting: str = "", folder: Path | None = None) -> list[Path]:
    """Write all pictures of a mechanism; the files written.

    Args:
        name: a directory or a known auction.
        setting: what it must be for.
        folder: by default plots/ in the directory; for a known auction, here.

    Raises:
        InputError: if `open_mechanisms` refuses the name, or there is nothing to draw.
    """
    (one,), valuations = open_mechanisms([name], setting)
    if one.config is not None:
        written = draw_run(Path(name), folder)
    else:
        optimum = known_optimum(valuations.setting.name) if _is_as_named(valuations) else None
        title = f"{name}, {valuations.setting.name}"
        written = draw_mechanism(one.mechanism, valuations, folder or Path("plots"), title, optimum)
    if not written:
        raise InputError(f"there is nothing to draw of {name}: maps need two items, curves the metrics of a run")
    return written


def _common_setting(configs: dict[str, TrainConfig], setting: str) -> str:
    """The one setting of all; refuses two."""
    found: dict[str, str] = {}
    for name, config in configs.items():
        if len(config.auctions) == 1:
            found.setdefault(config.setting, name)
    if setting:
        found.setdefault(setting, "--setting")
    if not found:
        raise InputError("a known auction or a mixture has no setting of its own: give --setting, such as 2x2")
    if len(found) > 1:
        listed = " and ".join(f"{name} is for {one}" for one, name in found.items())
        raise InputError(f"mechanisms are compared on the same valuations, but {listed}; take those of one setting")
    return next(iter(found))


def _common_values(configs: dict[str, TrainConfig]) -> TrainConfig:
    """A config with the valuations of all; refuses two kinds. Without any config they are uniform."""
    found: dict[tuple[object, ...], str] = {}
    for name, config in configs.items():
        found.setdefault((config.valuations, config.low, config.high, config.held_out), name)
    if len(found) > 1:
        listed = " and ".join(f"{name} for {source}" for (source, *_), name in found.items())
        raise InputError(f"mechanisms are compared on the same valuations, but they were learnt on others: {listed}")
    return next(iter(configs.values()), TrainConfig())


def _labels(configs: dict[str, TrainConfig]) -> dict[str, str]:
    """The last part of each directory's path, or all of it where that does not tell directories apart."""
    last = {name: Path(name).resolve().name for name in configs}
    return {name: name if list(last.values()).count(short) > 1 else short for name, short in last.items()}


def _baseline(name: str) -> Callable[[Valuations], Mechanism]:
    def make(valuations: Valuations) -> Mechanism:
        found = baselines(valuations)
        if name not in found:
            raise InputError(
                f"{name} needs additive bidders and the distribution of every value, which these valuations do not tell"
            )
        return found[name]

    return make


def _straight_jacket(valuations: Valuations) -> Mechanism:
    setting = valuations.setting
    if setting.bidders > 1 or not _is_as_named(valuations) or set(setting.high) != {1.0}:
        raise InputError(
            f"straight-jacket auctions are for one bidder with uniform values in [0, 1], not for {setting.name}"
        )
    return straight_jacket(setting.items)


def _optimum(valuations: Valuations) -> Mechanism:
    optimum = known_optimum(valuations.setting.name) if _is_as_named(valuations) else None
    if optimum is None:
        raise InputError(f"nobody knows the optimal auction for {valuations.setting.name}; take itemwise-myerson")
    return optimum.mechanism


def _is_as_named(valuations: Valuations) -> bool:
    """Whether values are uniform on the support that the setting's name stands for."""
    setting = valuations.setting
    return isinstance(valuations, UniformValuations) and setting == parse_setting(setting.name)


ORACLES: dict[str, Callable[[Valuations], Mechanism]] = {
    "vcg": _baseline("vcg"),
    "itemwise-myerson": _baseline("itemwise-myerson"),
    "bundle-myerson": _baseline("bundle-myerson"),
    "straight-jacket": _straight_jacket,
    "optimum": _optimum,
}
"""The known auctions by name, each made for given valuations."""


def import_official(
    file: Path, directory: Path, setting: str, *, heads: int | None = None, regret_budget: float = 1e-3
) -> AuctionNetwork:
    """Make a directory of a published state dict that is opened like a finished run; returns its network.

    Args:
        file: as `torch.save` wrote it.
        directory: where to; it must not exist.
        setting: what the network was trained for.
        heads: attention heads of a RegretFormer that has none of the published widths.
        regret_budget: the budget it was trained under, with which its regret is compared.

    Raises:
        CheckpointError: if the file holds no such network, or one for another setting.
        InputError: if the setting or the budget is refused.
        RunError: if the directory exists.
    """
    auction = parse_setting(setting)
    network = load_official(file, (auction.bidders, auction.items), heads=heads)
    fields: dict[str, str | float] = {"preset": "imported", "setting": setting, "net": type(network).__name__.lower()}
    fields |= {"regret_budget": regret_budget, "budget_start": regret_budget}
    from_dict(TrainConfig(), fields, "the import")  # refuses a bad budget
    if directory.exists():
        raise RunError(f"{directory} exists already; choose another --out")
    directory.mkdir(parents=True)
    save_checkpoint(directory / "model", {"official": read_official(file), "heads": heads})
    write_json(directory / "config.json", fields)
    return network
