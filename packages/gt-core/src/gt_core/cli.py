"""The command line that all training commands share.

`--preset NAME` picks a set of defaults, `--config FILE` replaces some of them, and every field of the config is an
option that replaces both. `--resume` continues an interrupted run, and starts one where there is none, so the same
command line can be repeated until it succeeds. This module imports no torch: `--help` answers at once.
"""

import argparse
import contextlib
import dataclasses
import functools
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Generic, ParamSpec

import tyro
from rich.console import Console

from gt_core.config import Config, read_config
from gt_core.errors import InputError, NumericalError

__all__ = ["Invocation", "command", "parse_training"]

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True)
class Invocation(Generic[Config]):
    """A training command as typed."""

    options: Annotated[Config, tyro.conf.arg(name="")]
    """The run's config."""
    config: Path | None = None
    """JSON file with any of the options below; options on the command line win over it."""
    resume: bool = False
    """Continue the run in the run directory, bit for bit, or start it if there is none."""


def parse_training(
    presets: Mapping[str, Config], default: str, prog: str, description: str, args: Sequence[str] | None = None
) -> tuple[Config, bool]:
    """Parse a training command.

    Args:
        presets: configs by name; each has its own name as `preset`.
        default: the preset used without `--preset`.
        prog: the command's name.
        description: what the command does, for `--help`.
        args: the arguments, `sys.argv[1:]` if not given.

    Returns:
        The config, and whether to resume.

    Raises:
        InputError: if the preset is unknown, the config file is refused, or a value is.
        SystemExit: with status 2 if an option is unknown or malformed, 0 after `--help`.
    """
    args = sys.argv[1:] if args is None else list(args)
    early = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    early.add_argument("--preset", default=default)
    early.add_argument("--config", type=Path)
    early.add_argument("--resume", action="store_true")
    early.add_argument("--out-dir")
    known, _ = early.parse_known_args(args)

    base = _base_config(presets, known.preset, known.config)
    saved = Path(known.out_dir or "") / "config.json"
    if known.resume and known.out_dir and saved.is_file():
        base = read_config(base, saved)  # `--resume --out-dir RUN` needs no other option
    generic: Any = Invocation  # a class made from a variable's type: beyond static types
    invocation: Invocation[Config] = tyro.cli(
        generic[type(base)],
        prog=prog,
        description=description,
        default=Invocation(base, known.config),
        args=args,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return invocation.options, invocation.resume


def _base_config(presets: Mapping[str, Config], preset: str, file: Path | None) -> Config:
    if preset not in presets:
        raise InputError(f"preset {preset!r} does not exist; choose from {', '.join(presets)}")
    return presets[preset] if file is None else read_config(presets[preset], file)


def command(main: Callable[P, None]) -> Callable[P, None]:
    """Turn what a person can act on into one line on stderr and an exit status.

    2 for bad input, 1 for a numerical or disk failure, 130 after Ctrl-C and 143 after SIGTERM.
    """

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        with _exit_on_error():
            main(*args, **kwargs)

    return wrapped


@contextlib.contextmanager
def _exit_on_error() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as stop:
        _fail(stop, 128 + getattr(stop, "signum", signal.SIGINT))
    except InputError as error:
        _fail(error, 2)
    except (NumericalError, OSError) as error:
        _fail(error, 1)


def _fail(error: BaseException, status: int) -> None:
    text = str(error) or "stopped" if isinstance(error, KeyboardInterrupt) else f"error: {error}"
    Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)
    raise SystemExit(status) from error
