"""Valuations as a user names them: `uniform`, a file of recorded profiles, or `package.module:name`."""

from pathlib import Path
from typing import Literal

import torch
from gt_core.errors import InputError
from gt_core.imports import import_named

from regretformer.recorded import RecordedValuations, covering, read_profiles, split_record
from regretformer.setting import Setting
from regretformer.valuations import FunctionValuations, UniformValuations, Valuations

__all__ = ["make_valuations"]


def make_valuations(
    source: str,
    setting: Setting,
    *,
    part: Literal["train", "held-out"] = "train",
    held_out: float = 0.2,
    cover: bool = False,
    independent: bool = False,
    device: torch.device | None = None,
) -> Valuations:
    """The valuations that a user's text stands for.

    Args:
        source: `uniform`; a .npy, .csv or .parquet file; or `package.module:name`, where the name is that of a function
            as `FunctionValuations` takes it, or of a ready object of type `Valuations`.
        setting: bidders, items and the box of values and reports.
        part: which part of a record; other sources draw afresh for evaluation as for training.
        held_out: share of a record that is held out.
        cover: take the box from the whole record instead of the setting.
        independent: whether a function's bidders are independent.
        device: where samples live.

    Raises:
        InputError: if there is no such source, or it does not fit the setting.
    """
    if source == "uniform":
        return UniformValuations(setting, device)
    if Path(source).suffix in {".npy", ".csv", ".parquet"}:
        record = read_profiles(Path(source), setting.bidders, setting.items)
        box = covering(setting, record) if cover else setting
        return RecordedValuations(box, split_record(record, held_out)[part == "held-out"], device)
    if ":" not in source:
        raise InputError(
            f"valuations must be uniform, a .npy, .csv or .parquet file, or package.module:name; got {source!r}"
        )
    named = import_named(source)
    if isinstance(named, Valuations):
        return _require_setting(named, setting, source)
    if not callable(named):
        raise InputError(f"{source} is of type {type(named).__name__}: it must be a function or Valuations")
    return FunctionValuations(named, setting, independent=independent, device=device)


def _require_setting(valuations: Valuations, setting: Setting, source: str) -> Valuations:
    own = valuations.setting
    if (own.bidders, own.items) != (setting.bidders, setting.items):
        raise InputError(f"{source} has {own.bidders} bidders and {own.items} items, but the setting is {setting.name}")
    return valuations
