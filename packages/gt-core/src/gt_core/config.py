"""Configuration as frozen dataclasses, to JSON and back.

A config holds plain values only. Its fields' docstrings are the command line's help, its `__post_init__` refuses values
that cannot work, and a JSON file may set any subset of the fields but no others.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import dacite

from gt_core.errors import InputError

__all__ = ["Config", "RunConfig", "from_dict", "read_config", "to_dict"]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """What every training command takes; a package's config adds its own fields."""

    threads_change_bits: ClassVar[bool] = True
    """Whether the last bits of a result depend on the number of threads."""
    preset: str
    """The named set of defaults that everything else starts from."""
    seed: int = 0
    """The one source of all randomness."""
    out_dir: str = "runs/{name}"
    """Run directory; {name} stands for a name made from the settings."""
    device: str = "cpu"
    """Where tensors live: cpu, cuda or cuda:N."""
    threads: int = 1
    """CPU threads. Small networks gain little from more, and the last bits of a result depend on the number."""
    tensorboard: bool = False
    """Also write TensorBoard event files (needs the extra gt-core[tensorboard])."""

    def __post_init__(self) -> None:
        self.require("[0, inf)", "seed")
        self.require("[1, inf)", "threads")
        if self.device != "cpu" and self.device.split(":")[0] != "cuda":
            raise InputError(f"device must be cpu, cuda or cuda:N, got {self.device!r}")

    def require(self, interval: str, *names: str) -> None:
        """Refuse numbers outside an interval.

        Args:
            interval: such as "[1, inf)", "(0, inf)" or "[0, 1)"; a round bracket leaves the end out.
            names: the fields that must lie in it.

        Raises:
            InputError: one of them does not, or is no number.
        """
        low, high = (float(end) for end in interval[1:-1].split(", "))
        for name in names:
            value = getattr(self, name)
            if low < value < high or (value == low and interval[0] == "[") or (value == high and interval[-1] == "]"):
                continue
            if high < math.inf:
                raise InputError(f"{name} must lie in {interval}, got {value}")
            if interval == "(0, inf)":
                raise InputError(f"{name} must be positive and finite, got {value}")
            raise InputError(f"{name} must be at least {low:g}{' and finite' if value >= low else ''}, got {value}")

    def settled(self) -> Self:
        """The config as a run writes it down, with what depends on other fields filled in."""
        return self

    @property
    def name(self) -> str:
        """A name for the run, made from the settings that tell runs apart."""
        return f"{self.preset}-seed{self.seed}"

    @property
    def directory(self) -> Path:
        """The run directory, with the run's name filled in."""
        return Path(self.out_dir.replace("{name}", self.name))


Config = TypeVar("Config", bound=RunConfig)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The fields of `config` as JSON values."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def from_dict(base: Config, values: Mapping[str, Any], source: str) -> Config:
    """`base` with the fields in `values` replaced; `source` names their origin in errors.

    Raises:
        InputError: if a field does not exist, has the wrong type, or is refused by the config itself.
    """
    merged = {**to_dict(base), **values}
    try:
        return dacite.from_dict(type(base), _floats(type(base), merged), dacite.Config(strict=True, cast=[tuple]))
    except dacite.DaciteError as error:
        known = ", ".join(field.name for field in dataclasses.fields(base))
        raise InputError(f"{source}: {error}; the fields are {known}") from error


def read_config(base: Config, path: Path) -> Config:
    """`base` with the fields of the JSON file `path` replaced.

    Raises:
        InputError: if the file cannot be read, is no JSON object, or `from_dict` refuses it.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold a JSON object of config fields, not {type(values).__name__}")
    return from_dict(base, values, str(path))


def _floats(kind: type[RunConfig], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with integers made floats where a field is one; JSON may write 1 for 1.0, but a boolean is no number."""
    floats = {field.name for field in dataclasses.fields(kind) if field.type is float}
    return {key: float(value) if key in floats and type(value) is int else value for key, value in values.items()}
