"""Runs that were finished elsewhere, such as those that a repository holds, in place of repeating them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gt_core.config import to_dict
from gt_core.errors import InputError
from gt_core.sweep.grid import NO_FIGURE_DEPENDS_ON, Cell

__all__ = ["reuse_finished"]


def reuse_finished(cells: Sequence[Cell], folders: Sequence[Path]) -> None:
    """Copy finished runs into the directories of the cells that have their configs.

    A config matches if every field that it holds, and that a result may depend on, is the cell's; a field that is newer
    than the run is not compared, as when a run is resumed.

    Args:
        cells: those that are finished are left alone.
        folders: where runs lie, at any depth: a `config.json` with a `result.json` beside it.

    Raises:
        InputError: a folder does not exist, or holds no finished run.
    """
    found = [run for folder in folders for run in _runs(folder)]
    for cell in cells:
        if not cell.is_finished and (run := _matching(cell, found)) is not None:
            _copy(run, cell.config.directory)


def _runs(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    runs = sorted(file.parent for file in folder.rglob("config.json") if file.with_name("result.json").is_file())
    if not runs:
        raise InputError(f"{folder} holds no finished run: there is no config.json with a result.json beside it")
    configs = [json.loads((run / "config.json").read_text()) for run in runs]
    return [(run, config) for run, config in zip(runs, configs, strict=True) if "seed" in config]


def _matching(cell: Cell, found: Sequence[tuple[Path, dict[str, Any]]]) -> Path | None:
    wanted = to_dict(cell.config.settled())
    free = NO_FIGURE_DEPENDS_ON | (set() if cell.config.threads_change_bits else {"threads"})
    for run, config in found:
        if all(name in wanted and wanted[name] == config[name] for name in config.keys() - free):
            return run
    return None


def _copy(run: Path, directory: Path) -> None:
    """The whole directory, its result last, since with it a run counts as finished."""
    shutil.copytree(run, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("result.json"))
    shutil.copy(run / "result.json", directory)
