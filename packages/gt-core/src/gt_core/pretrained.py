"""Trained models that ship with a package: finished runs without their logs, in its folder `pretrained/`.

Each is a directory with the run's config, its result, the model, and a card that says how it was trained and what it
is worth. Wherever a run's directory is asked for, `pretrained/NAME` stands for one of them.
"""

import json
import shutil
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from gt_core.errors import InputError
from gt_core.run import read_cost

__all__ = ["card", "contents", "located", "names", "read", "write"]

_FOLDER = "pretrained"


def names(package: str) -> list[str]:
    """What ships with a package, sorted."""
    return sorted(entry.name for entry in _folder(package).iterdir() if entry.is_dir())


def located(package: str, directory: Path) -> Path:
    """Where the files of a run are: `directory`, or in the package if that is `pretrained/NAME` and not here.

    Raises:
        InputError: if nothing of that name ships with the package.
    """
    if directory.parent != Path(_FOLDER) or (directory / "config.json").is_file():
        return directory
    shipped = _folder(package) / directory.name
    if not shipped.is_dir():
        raise InputError(f"{directory.name!r} does not ship with {package}; it has {', '.join(names(package))}")
    return shipped


def card(name: str, command: str, run: Path, table: str) -> str:
    """What a shipped run's README.md says.

    Args:
        name: its name.
        command: the training command that reads its config.
        run: its directory.
        table: its figures, in Markdown.
    """
    about = json.loads((run / "versions.json").read_text())
    found = {key.removeprefix("version_"): value for key, value in about.items() if key.startswith("version_")}
    versions = ", ".join(f"{package} {version}" for package, version in found.items())
    return (
        f"# {name}\n\nTrained by `{command} --config config.json` in {read_cost(run)['seconds']:.0f} s on "
        f"{about['hardware_cpu']}, {about['hardware_cores']} cores, with {versions}. "
        f"All figures are in `result.json`.\n\n{table}"
    )


def contents(run: Path, card: str) -> dict[Path, bytes]:
    """The files of a run that ship, by their place in its folder."""
    kept = (file for file in run.rglob("*") if file.is_file() and file.suffix not in (".png", ".jsonl"))
    return {file.relative_to(run): file.read_bytes() for file in kept} | {Path("README.md"): card.encode()}


def write(folder: Path, runs: Mapping[str, Mapping[Path, bytes]]) -> None:
    """Make `folder` hold these runs and nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, files in runs.items():
        for place, content in files.items():
            (folder / name / place).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / place).write_bytes(content)


def read(folder: Path) -> dict[str, dict[Path, bytes]]:
    """What `folder` holds, as `write` takes it."""
    return {
        run.name: {file.relative_to(run): file.read_bytes() for file in run.rglob("*") if file.is_file()}
        for run in sorted(folder.iterdir())
    }


def _folder(package: str) -> Path:
    return Path(str(resources.files(package))) / _FOLDER
