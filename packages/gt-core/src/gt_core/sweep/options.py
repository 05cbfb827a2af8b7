"""The options of a sweep's command: those of the config, each a list, and those of the sweep itself.

Commas separate the values of a field: `--k 1,2,5 --algorithm em,random`. A comma between brackets separates nothing:
`--valuations uniform,beta(2,2)` are two values. What a training command takes as several words stands in quotes:
`--hidden '64 64,32 32'`.
"""

import dataclasses
import itertools
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from gt_core.config import RunConfig, read_config
from gt_core.errors import InputError
from gt_core.sweep.grid import Cell, make_cells

__all__ = ["BackendOptions", "SweepOptions", "parse_sweep", "split_values"]


@dataclasses.dataclass(frozen=True)
class BackendOptions:
    """Where cells run."""

    backend: Literal["processes", "here", "ray", "slurm"] = "processes"
    """Where cells run: processes of this machine; here, one after another in this process; a Ray cluster (extra ray);
    Slurm through submitit (extra slurm)."""
    address: str = "auto"
    """HOST:PORT of the Ray cluster's head; auto: the cluster that this machine is a node of."""
    slurm: tuple[str, ...] = ()
    """What submitit is told of each job, such as slurm_partition=cpu timeout_min=600 mem_gb=4."""
    jobs: int = 0
    """Cells at a time; 0: as many as there are cores, as the Ray cluster has CPUs, or all at once with Slurm."""
    retries: int = 3
    """How often a cell may die without getting further before it has failed."""

    def __post_init__(self) -> None:
        for name in ("jobs", "retries"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must be at least 0, got {getattr(self, name)}")
        for parameter in self.slurm:
            if "=" not in parameter:
                raise InputError(f"slurm takes NAME=VALUE, got {parameter!r}")

    @property
    def slurm_parameters(self) -> dict[str, str | int]:
        """The parameters by name, whole numbers as such."""
        pairs = (parameter.split("=", 1) for parameter in self.slurm)
        return {name: int(value) if value.isdecimal() else value for name, value in pairs}


@dataclasses.dataclass(frozen=True)
class SweepOptions(BackendOptions):
    """What a sweep takes besides the fields of a config."""

    out_dir: Path = Path("runs")
    """Folder of the cells; the directory of each is named after its settings and its config's hash."""
    config: Path | None = None
    """JSON file with any of the fields below; options on the command line win over it."""
    json: bool = False
    """Print one JSON array with an object per cell and nothing else."""


class _Values(NamedTuple):
    """The values of a field, as given on the command line; a field that is not given keeps its default's type."""

    items: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class _Invocation:
    """A sweep's command as typed."""

    sweep: Annotated[SweepOptions, tyro.conf.arg(name="")]
    """The sweep"""
    grid: Annotated[Any, tyro.conf.arg(name="")]
    """The fields of a run, each a value or several between commas"""


def parse_sweep(
    presets: Mapping[str, RunConfig],
    default: Callable[[Mapping[str, Any]], str],
    prog: str,
    description: str,
    args: Sequence[str] | None = None,
) -> tuple[list[Cell], SweepOptions]:
    """Parse a sweep's command, and make the config of every cell.

    Each cell starts from its preset. Besides the config's fields the command takes `--seeds N` for the seeds
    0, ..., N - 1, unless the config has a field of that name.

    Args:
        presets: configs by name; each has its own name as `preset`.
        default: from the settings of a cell that names no preset to the one it starts from.
        prog: the command's name.
        description: what the command does, for `--help`.
        args: the arguments, `sys.argv[1:]` if not given.

    Raises:
        InputError: if a preset is unknown, presets have different fields, or a config refuses its values.
        SystemExit: with status 2 if an option is unknown or malformed, 0 after `--help`.
    """
    args = sys.argv[1:] if args is None else list(args)
    typed = _first_values(args)
    file = Path(typed["config"]) if "config" in typed else None

    def base(settings: Mapping[str, Any]) -> RunConfig:
        preset = settings.get("preset") or default(settings)
        if preset not in presets:
            raise InputError(f"preset {preset!r} does not exist; choose from {', '.join(presets)}")
        return presets[preset] if file is None else read_config(presets[preset], file)

    first = base(typed)

    def base_of_one_kind(settings: Mapping[str, Any]) -> RunConfig:
        config = base(settings)
        if type(config) is not type(first):
            raise InputError(f"presets {first.preset} and {config.preset} have different options; sweep each by itself")
        return config

    values, options = _parse(first, prog, description, args)
    return make_cells(base_of_one_kind, values, options.out_dir), options


def split_values(text: str) -> list[str]:
    """`text` at its commas, but for those between brackets.

    Raises:
        ValueError: if there is nothing between two commas.
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    parts = [part.strip() for part in parts]
    if "" in parts and len(parts) > 1:
        raise ValueError(f"there is a value missing between the commas of {text!r}")
    return parts


def _first_values(args: Sequence[str]) -> dict[str, str]:
    """The first value of every option that is typed, by name: enough to know which options there are."""
    found = {}
    for option, following in itertools.pairwise([*args, ""]):
        name, equals, value = option.removeprefix("--").partition("=")
        if option.startswith("--"):
            found[name.replace("-", "_")] = (value if equals else following).partition(",")[0]
    return found


def _parse(
    first: RunConfig, prog: str, description: str, args: Sequence[str]
) -> tuple[dict[str, tuple[Any, ...]], SweepOptions]:
    """The values of the fields that are given, and the sweep's own options; `first` has the defaults to show."""
    names = [field.name for field in dataclasses.fields(first) if field.name != "out_dir"]
    grid = _grid_class(type(first), names)(**{name: getattr(first, name) for name in names})
    invocation = tyro.cli(
        _Invocation,
        prog=prog,
        description=description,
        default=_Invocation(SweepOptions(), grid),
        args=args,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    given = {name: getattr(invocation.grid, name) for name in names}
    values = {name: value.items for name, value in given.items() if isinstance(value, _Values)}
    if "seeds" not in names and (seeds := invocation.grid.seeds) != 1:
        if "seed" in values or seeds < 1:
            raise InputError(f"give --seed as a list, or --seeds, at least 1, for the seeds from 0 on; got {seeds}")
        values["seed"] = tuple(range(seeds))
    return values, invocation.sweep


def _grid_class(kind: type[RunConfig], names: Sequence[str]) -> Any:  # noqa: ANN401 (a class made from fields)
    """A dataclass whose fields take lists of what the fields of a config take, under the same help."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields: list[Any] = [(name, Annotated[Any, _list_of(hints[name])]) for name in names]
    fields.append(("out_dir", tyro.conf.Suppress[str], ""))
    if "seeds" not in names:
        about = "Runs of each setting, with the seeds 0, 1, ...; instead of seed."
        fields.append(("seeds", Annotated[int, tyro.conf.arg(help=about)], 1))
    unchecked = {"__post_init__": lambda _: None}  # a list is no config: each cell's is checked when it is made
    return dataclasses.make_dataclass("Grid", fields, bases=(kind,), namespace=unchecked, frozen=True)


def _list_of(annotation: Any) -> PrimitiveConstructorSpec[Any]:  # noqa: ANN401 (an annotation)
    """How several values of a type are read from one argument."""
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(annotation, set()))
    if not isinstance(spec, PrimitiveConstructorSpec):
        raise TypeError(f"a sweep cannot read fields of the type {annotation}")

    def read(arguments: list[str]) -> _Values:
        return _Values(tuple(_read_one(spec, text) for text in split_values(arguments[0])))

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{spec.metavar},...",
        instance_from_str=read,
        is_instance=lambda _: True,
        str_from_instance=lambda value: [" ".join(spec.str_from_instance(value))],
    )


def _read_one(spec: PrimitiveConstructorSpec[Any], text: str) -> Any:  # noqa: ANN401 (the field's type)
    words = [text] if spec.nargs == 1 else text.split()
    for word in words:
        if spec.choices is not None and word not in spec.choices:
            raise ValueError(f"{word!r} is none of {', '.join(spec.choices)}")
    return spec.instance_from_str(words)
