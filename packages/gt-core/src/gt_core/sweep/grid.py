"""A grid: every combination of the values that some fields of a config take, each with a directory of its own."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gt_core.config import RunConfig, to_dict
from gt_core.errors import InputError

__all__ = ["NO_FIGURE_DEPENDS_ON", "Cell", "config_hash", "make_cells"]

NO_FIGURE_DEPENDS_ON = {"out_dir", "tensorboard"}
"""Fields of a config that change nothing in a result."""


class Cell(NamedTuple):
    """One run of a grid.

    Attributes:
        config: what to run; its directory is the cell's own.
        settings: the fields that the grid gives, by name.
    """

    config: RunConfig
    settings: Mapping[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether the result is there."""
        return (self.config.directory / "result.json").is_file()


def config_hash(config: RunConfig) -> str:
    """Ten hexadecimal digits of the SHA-256 of all fields that a result may depend on, threads and device included."""
    fields = {name: value for name, value in to_dict(config).items() if name not in NO_FIGURE_DEPENDS_ON}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]


def make_cells(
    base: Callable[[Mapping[str, Any]], RunConfig], values: Mapping[str, Sequence[Any]], folder: Path
) -> list[Cell]:
    """Every combination of `values`, once, the last field changing fastest.

    Args:
        base: from the settings of a cell to the config that all other fields are taken from, such as a preset.
        values: of each field that is given.
        folder: holds the cells' directories, called after the config's name and hash.

    Raises:
        InputError: if a config is refused; the message names its settings.
    """
    cells = {}
    for combination in itertools.product(*values.values()):
        settings = dict(zip(values, combination, strict=True))
        try:
            config = dataclasses.replace(base(settings), **settings)
        except InputError as error:
            said = ", ".join(f"{name} = {value}" for name, value in settings.items())
            raise InputError(f"{error} (in the cell {said})" if said else str(error)) from error
        directory = folder / f"{config.name}-{config_hash(config)}"
        cells[directory] = Cell(dataclasses.replace(config, out_dir=str(directory)), settings)
    return list(cells.values())
