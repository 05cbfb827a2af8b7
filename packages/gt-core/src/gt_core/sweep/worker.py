"""What a worker does with a cell, wherever it is: the same on every backend."""

import contextlib
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol, cast

from gt_core.config import RunConfig
from gt_core.errors import InputError, NumericalError
from gt_core.imports import import_named

__all__ = ["LOG", "Backend", "Report", "Task", "run_cell"]

LOG = "worker.log"
"""What a cell's workers printed, in its directory."""


class Task(NamedTuple):
    """A cell for a worker.

    Attributes:
        train: the function that runs it, as package.module:function; called with the config.
        config: what to run.
        working_directory: where paths and a user's own modules are looked up.
    """

    train: str
    config: RunConfig
    working_directory: Path


class Report(NamedTuple):
    """How a worker's attempt at a cell ended.

    Attributes:
        error: what went wrong; empty if the cell is finished.
        final: whether another attempt would go wrong in the same way.
        interrupted: whether somebody asked it to stop.
    """

    error: str = ""
    final: bool = False
    interrupted: bool = False


class Backend(Protocol):
    """Where cells run. A backend only runs `run_cell`; what is run, and what again, the driver decides."""

    @property
    def slots(self) -> int:
        """How many cells may be at work at present."""
        ...

    def submit(self, task: Task) -> None:
        """Start a cell, or put it into the cluster's queue."""
        ...

    def reports(self, seconds: float) -> list[tuple[Task, Report]]:
        """Wait until attempts have ended, but not longer than `seconds`, and return those; at least one is at work."""
        ...

    def stop(self) -> None:
        """Ask all cells at work to save themselves and end."""
        ...

    def close(self) -> None:
        """End whatever is still at work."""
        ...


def run_cell(task: Task) -> Report:
    """Run a cell to its end, or on from where an earlier attempt left it.

    Two attempts at a cell never overlap, not even where one was believed dead: the later one waits. What they print
    goes to `worker.log` in the cell's directory.
    """
    os.chdir(task.working_directory)
    os.environ["OMP_NUM_THREADS"] = str(task.config.threads)  # of numpy; torch is told by the config
    directory = task.config.directory
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / LOG).open("a") as log, _alone(log), _output_to(log):
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} process {os.getpid()} of {platform.node()}\n")
        log.flush()
        return _attempt(task)


def _attempt(task: Task) -> Report:
    try:
        train = cast(Callable[[RunConfig], object], import_named(task.train))
        train(task.config)
    except (InputError, NumericalError) as error:
        return Report(str(error), final=True)
    except KeyboardInterrupt as stop:
        return Report(str(stop) or "interrupted", interrupted=True)
    except Exception as error:  # whatever it is, the driver is told, and the log has its traceback
        traceback.print_exc()
        return Report(f"{type(error).__name__}: {error}")
    return Report()


@contextlib.contextmanager
def _alone(file: IO[str]) -> Iterator[None]:
    """Wait until no other process holds this lock; the system takes it from one that dies. Windows has none."""
    if os.name == "posix":
        import fcntl

        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
    yield


@contextlib.contextmanager
def _output_to(file: IO[str]) -> Iterator[None]:
    """Send what this process prints, its native libraries included, to a file."""
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
        yield
    finally:
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
