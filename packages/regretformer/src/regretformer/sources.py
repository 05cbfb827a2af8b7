"""Valuations as a user names them.

- `uniform`: on the setting's box;
- one distribution for every bidder and item, such as `exponential(1)`, `beta(2,2)` or the mixture
  `.75*uniform(0,3)+.25*uniform(3,8)`, truncated to the declared support;
- a .npy, .csv or .parquet file of recorded profiles;
- `package.module:name`, somebody's function or `Valuations`.
"""

import math
import re
from pathlib import Path
from typing import Literal

import torch
from gt_core.errors import InputError
from gt_core.imports import import_named
from torch import distributions

from regretformer.config import RECORDS, TrainConfig
from regretformer.marginals import Marginal, from_torch, mixture
from regretformer.recorded import RecordedValuations, covering, read_profiles, split_record
from regretformer.setting import Setting
from regretformer.valuations import FunctionValuations, IndependentValuations, UniformValuations, Valuations

__all__ = ["load_valuations", "make_valuations", "parse_marginal"]

Part = Literal["train", "held-out"]

_DISTRIBUTIONS = {
    "uniform": distributions.Uniform,
    "exponential": distributions.Exponential,
    "beta": distributions.Beta,
    "gamma": distributions.Gamma,
    "lognormal": distributions.LogNormal,
    "normal": distributions.Normal,
    "pareto": distributions.Pareto,
    "weibull": distributions.Weibull,
}
_TERM = re.compile(r"(?:([0-9.eE-]+)\*)?([a-z]+)\(([^()]*)\)")


def load_valuations(
    config: TrainConfig, setting: Setting | None = None, part: Part = "train", device: str = "cpu"
) -> Valuations:
    """The valuations that a run's config names.

    Args:
        config: of the run.
        setting: one of a mixture, or another size for evaluation; by default the config's, or a mixture's largest.
        part: `held-out` for evaluation.
        device: where samples live.

    Raises:
        InputError: as `make_valuations`, or if the valuations have another size than the setting.
    """
    return make_valuations(
        config.valuations,
        config.auction if setting is None else config.declared(setting),
        part=part,
        held_out=config.held_out,
        cover=not (config.low or config.high),
        independent=config.independent,
        device=torch.device(device),
    )


def make_valuations(
    source: str,
    setting: Setting,
    *,
    part: Part = "train",
    held_out: float = 0.2,
    cover: bool = False,
    independent: bool = False,
    device: torch.device | None = None,
) -> Valuations:
    """The valuations that a user's text stands for.

    Args:
        source: `uniform`; a distribution as `parse_marginal` takes it; a .npy, .csv or .parquet file; or
            `package.module:name`, where the name is that of a function as `FunctionValuations` takes it, or of a ready
            object of type `Valuations`.
        setting: bidders, items and the box of values and reports.
        part: which part of a record; other sources draw afresh for evaluation as for training.
        held_out: share of a record that is held out.
        cover: take the box of a record from the whole of it, and that of a distribution from its own support, instead
            of the setting.
        independent: whether a function's bidders are independent.
        device: where samples live.

    Raises:
        InputError: if there is no such source, or it does not fit the setting.
    """
    if source == "uniform":
        return UniformValuations(setting, device)
    if Path(source).suffix in RECORDS:
        record = read_profiles(Path(source), setting.bidders, setting.items)
        box = covering(setting, record) if cover else setting
        return RecordedValuations(box, split_record(record, held_out)[part == "held-out"], device)
    if "(" in source:
        bounds = [(-math.inf, math.inf)] if cover else list(zip(setting.low, setting.high, strict=True))
        marginals = {bound: parse_marginal(source, *bound) for bound in bounds}
        row = [marginals[bound] for bound in (bounds * setting.items)[: setting.items]]
        return IndependentValuations([row] * setting.bidders, setting.name, device)
    if ":" not in source:
        raise InputError(
            f"valuations must be uniform, a distribution such as exponential(1), a {', '.join(RECORDS[:-1])} or "
            f"{RECORDS[-1]} file, or package.module:name; got {source!r}"
        )
    named = import_named(source)
    if isinstance(named, Valuations):
        return _require_setting(named, setting, source).to(device or torch.device("cpu"))
    if not callable(named):
        raise InputError(f"{source} is of type {type(named).__name__}: it must be a function or Valuations")
    return FunctionValuations(named, setting, independent=independent, device=device)


def parse_marginal(text: str, low: float = -math.inf, high: float = math.inf) -> Marginal:
    """The distribution of one value that a text such as `exponential(1)` stands for, truncated to [low, high].

    Parameters are those of the torch distribution of that name. Terms WEIGHT*NAME(...) joined by + make a mixture, of
    which every part is truncated.

    Raises:
        InputError: if the text cannot be read, names no distribution, its parameters are refused, or the support is
            infinite and no bounds are given.
    """
    terms = [_TERM.fullmatch(term.strip()) for term in re.split(r"(?<![eE])\+", text)]
    found = [term.groups() for term in terms if term is not None]
    if len(found) < len(terms) or not {name for _, name, _ in found} <= set(_DISTRIBUTIONS):
        raise InputError(
            f"{text!r} is no distribution; write NAME(NUMBERS) with a name of {', '.join(_DISTRIBUTIONS)}, or a "
            "mixture WEIGHT*NAME(NUMBERS)+WEIGHT*NAME(NUMBERS)"
        )
    try:
        weights = [float(weight or 1) for weight, _, _ in found]
        parts = [_DISTRIBUTIONS[name](*map(float, filter(None, numbers.split(",")))) for _, name, numbers in found]
    except (TypeError, ValueError) as error:
        raise InputError(f"the numbers in {text!r} are refused: {error}") from error
    marginals = [from_torch(part, low, high) for part in parts]
    return marginals[0] if len(marginals) == 1 and weights == [1] else mixture(weights, marginals)


def _require_setting(valuations: Valuations, setting: Setting, source: str) -> Valuations:
    own = valuations.setting
    if (own.bidders, own.items) != (setting.bidders, setting.items):
        raise InputError(f"{source} has {own.bidders} bidders and {own.items} items, but the setting is {setting.name}")
    return valuations
