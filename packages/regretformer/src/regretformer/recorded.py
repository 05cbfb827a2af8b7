"""Recorded valuations: profiles that were observed, in a file.

A record is a tensor [N, n, m] of N profiles. Files are .npy, .csv or .parquet with one profile per row: its n * m
values run through the items of the first bidder, then of the second, and so on (.npy may be [N, n, m] as well). What is
learnt on one part of a record is judged on the other, which training never sees.
"""

from pathlib import Path

import numpy as np
import torch
from gt_core.errors import InputError
from numpy.typing import NDArray
from torch import Tensor

from regretformer.setting import Setting
from regretformer.valuations import Valuations, require_finite, require_profiles

__all__ = ["RecordedValuations", "covering", "read_profiles", "split_record"]


class RecordedValuations(Valuations):
    """Draws with replacement from recorded profiles; the bidders of a profile may depend on each other.

    Args:
        setting: bidders, items and the box of reports, which must hold all recorded values.
        record: the profiles, [N, n, m].
        device: where samples live.

    Raises:
        InputError: if the record is empty, of another shape, not finite or outside the box.
    """

    def __init__(self, setting: Setting, record: Tensor, device: torch.device | None = None) -> None:
        super().__init__(setting, independent=False, device=device)
        shape = (len(record), setting.bidders, setting.items)
        self.record = require_profiles(record.to(self.low), shape, self.low, self.high, "the record")

    def profiles(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` recorded profiles, each drawn with the same probability, [count, n, m]."""
        rows = torch.randint(len(self.record), (count,), generator=generator, device=self.device)
        return self.record[rows]


def read_profiles(path: Path, bidders: int, items: int) -> Tensor:
    """The record in a .npy, .csv or .parquet file, [N, n, m], float64; a csv file may begin with a line of names.

    Raises:
        InputError: if the file cannot be read, is of another kind or shape, or holds a value that is no finite number.
    """
    if path.suffix not in _READERS:
        raise InputError(f"recorded valuations must be a file in {', '.join(_READERS)}; got {str(path)!r}")
    try:
        array = _READERS[path.suffix](path)
    except InputError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as a table of numbers: {error}") from error
    if array.shape[1:] not in {(bidders * items,), (bidders, items)}:
        raise InputError(
            f"{path} holds an array of shape {array.shape}; {bidders} bidders and {items} items need rows of "
            f"{bidders * items} values"
        )
    record = torch.from_numpy(array).reshape(-1, bidders, items)
    require_finite(record, str(path))
    return record


def _read_npy(path: Path) -> NDArray[np.float64]:
    return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)


def _read_csv(path: Path) -> NDArray[np.float64]:
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path} is empty")
    rows = [line.split(",") for line in lines[0 if _is_number(lines[0].split(",")[0]) else 1 :]]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1:
        raise InputError(f"{path} has rows of {lengths[0]} and of {lengths[-1]} values; all need the same number")
    return np.array(rows, dtype=np.float64)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()  # a missing value is no name of a column
    return True


def _read_parquet(path: Path) -> NDArray[np.float64]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(f"{path} needs pyarrow to be read: pip install 'regretformer[parquet]'") from error
    columns = parquet.read_table(path).columns
    return np.stack([np.asarray(column.to_numpy(), dtype=np.float64) for column in columns], axis=1)


_READERS = {".npy": _read_npy, ".csv": _read_csv, ".parquet": _read_parquet}


def split_record(record: Tensor, held_out: float = 0.2) -> tuple[Tensor, Tensor]:
    """The training part and the held-out part of a record [N, n, m].

    Held-out profiles are spread evenly over the record (each fifth one for 0.2), so that both parts span the time in
    which it was taken, and the parts are the same in every run.

    Args:
        record: [N, n, m].
        held_out: share of the profiles to hold out.

    Raises:
        InputError: if either part would be empty.
    """
    if not 0 < held_out < 1:
        raise InputError(f"the held-out share must lie strictly between 0 and 1, got {held_out}")
    steps = (torch.arange(len(record) + 1, dtype=torch.float64) * held_out + 1e-9).floor()
    chosen = steps.diff() > 0
    if chosen.all() or not chosen.any():
        part = "held-out" if not chosen.any() else "training"
        raise InputError(f"the {part} part is empty: {len(record)} profiles, of which a share {held_out} is held out")
    return record[~chosen], record[chosen]


def covering(setting: Setting, record: Tensor) -> Setting:
    """The setting with the smallest box that holds every bidder's recorded values of each item.

    Raises:
        InputError: if an item has one value only, or the record is empty or not finite.
    """
    require_finite(record, "the record")
    values = record.flatten(0, 1)
    return setting.within(values.amin(0).tolist(), values.amax(0).tolist())
