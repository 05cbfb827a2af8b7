"""A run: a directory that outlives the process.

    config.json      the run's config, as given
    versions.json    versions and hardware
    metrics.jsonl    one JSON object per logged step
    checkpoints/     the two newest checkpoints
    model/           what was learnt, once training is finished
    cost.json        what the run took, once it is finished
    result.json      one flat object, written last
    tensorboard/     event files, with `tensorboard = True`

A run that was stopped at any moment and opened again with `resume=True` goes on from its newest checkpoint and writes
the same bytes of parameters, metrics and result as one that was never stopped. What depends on the machine and the hour
is in `versions.json` and `cost.json` only.
"""

import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, Protocol

from gt_core.checkpoint import load_checkpoint, save_checkpoint
from gt_core.config import RunConfig, read_config, to_dict
from gt_core.environment import hardware, versions
from gt_core.errors import InputError, NumericalError, RunError
from gt_core.files import write_json
from gt_core.parallel import ALONE, Team
from gt_core.progress import ProgressDisplay

__all__ = ["Interrupted", "Learner", "Run", "learn", "read_cost", "read_result", "require_finite"]

_KEPT_CHECKPOINTS = 2
_FREE_TO_CHANGE = {"out_dir", "device", "threads", "tensorboard"}


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop and has saved its state.

    Attributes:
        signum: the signal that asked.
    """

    def __init__(self, signum: int, directory: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; --resume continues {directory}")
        self.signum = signum


def require_finite(**quantities: float) -> None:
    """Refuse to go on with numbers that mean nothing.

    Raises:
        NumericalError: naming the first quantity that is NaN or infinite.
    """
    for name, value in quantities.items():
        if not math.isfinite(value):
            raise NumericalError(
                f"{name} became {value}; the last checkpoint is intact. A smaller learning rate is the usual remedy."
            )


def read_result(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The `result.json` of a finished run.

    Raises:
        RunError: if there is none.
    """
    return _read_finished(directory, "result.json")


def read_cost(directory: str | os.PathLike[str]) -> dict[str, Any]:
    """The `cost.json` of a finished run: `seconds` is the wall-clock time of training, over all its parts.

    Raises:
        RunError: if there is none.
    """
    return _read_finished(directory, "cost.json")


def _read_finished(directory: str | os.PathLike[str], name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((Path(directory) / name).read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{directory} holds no {name} ({error}); is it a run, and finished?") from error
    return content


class Run:
    """A run directory opened for training.

    Use it as a context manager around the training loop: inside, SIGINT and SIGTERM save a checkpoint at the end of the
    step and raise `Interrupted`.

    Args:
        config: what to run; it also names the directory.
        resume: continue the run in the directory, or start it if there is none.
        packages: distributions whose versions are recorded, besides Python, torch, numpy and gt-core.
        shown: figures shown with the progress: label to name in the log.
        checkpoint_seconds: time between checkpoints.
        team: the processes of the run; only the one that leads touches the directory.

    Raises:
        RunError: if the directory holds a run and `resume` is off, or a run with another config.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        resume: bool,
        packages: tuple[str, ...] = (),
        shown: Mapping[str, str] | None = None,
        checkpoint_seconds: float = 30.0,
        team: Team = ALONE,
    ) -> None:
        self.config = config
        self.directory = config.directory
        self.team = team
        self.seconds = 0.0
        self._packages = packages
        self._shown = shown or {}
        self._checkpoint_seconds = checkpoint_seconds
        self._latest: Mapping[str, float] = {}
        self._signum = 0
        self._handlers: dict[int, Any] = {}
        self._metrics: BinaryIO | None = None
        self._tensorboard: Any = None
        self._metrics_bytes = 0
        refusal = self._refusal(resume) if team.leads else None
        if (refusal := team.tell(refusal)) is not None:
            raise refusal

    def _refusal(self, resume: bool) -> RunError | None:
        try:
            self._open_directory(resume)
        except RunError as error:
            return error
        return None

    def _open_directory(self, resume: bool) -> None:
        saved = self.directory / "config.json"
        if saved.is_file():
            if not resume:
                raise RunError(f"{self.directory} already holds a run: --resume continues it, --out-dir starts another")
            self._require_same_config(saved)
        elif self.directory.exists() and not self._is_unstarted():
            raise RunError(f"{self.directory} exists and holds no run; choose another --out-dir")
        (self.directory / "checkpoints").mkdir(parents=True, exist_ok=True)
        for leftover in (self.directory / "checkpoints").glob(".*.tmp"):
            shutil.rmtree(leftover)
        if not (self.directory / "result.json").is_file():
            about = {**versions(*self._packages), **hardware(self.config.device)}
            write_json(self.directory / "versions.json", about)
        if not saved.is_file():
            write_json(saved, to_dict(self.config))

    def _is_unstarted(self) -> bool:
        """Whether a process died between creating the directory and writing its config."""
        allowed = {"checkpoints", "versions.json", "worker.log"}
        return all(entry.name in allowed or entry.suffix == ".tmp" for entry in self.directory.iterdir())

    def _require_same_config(self, saved: Path) -> None:
        before, now = to_dict(read_config(self.config, saved)), to_dict(self.config)
        changed = [name for name in now if before[name] != now[name] and name not in _FREE_TO_CHANGE]
        if changed:
            listed = ", ".join(f"{name} was {before[name]!r} and is now {now[name]!r}" for name in changed)
            raise RunError(f"{self.directory} was started with another config ({listed}); choose another --out-dir")

    @property
    def result(self) -> dict[str, Any] | None:
        """The result, if the run is finished."""
        is_there = self.team.leads and (self.directory / "result.json").is_file()
        result: dict[str, Any] | None = self.team.tell(read_result(self.directory) if is_there else None)
        return result

    def restore(self) -> dict[str, Any] | None:
        """The state saved last, or None at the start of a run; call it before the first `log`.

        Raises:
            CheckpointError: if the newest checkpoint is damaged; deleting it falls back to the one before.
        """
        checkpoints = self._checkpoints() if self.team.leads else []
        saved = self.team.tell(load_checkpoint(checkpoints[-1]) if checkpoints else None)
        if saved is None:
            return None
        self.seconds, self._metrics_bytes = saved["seconds"], saved["metrics_bytes"]
        state: dict[str, Any] = saved["state"]
        return state

    def _checkpoints(self) -> list[Path]:
        return sorted((self.directory / "checkpoints").glob("step-*"))

    def __enter__(self) -> "Run":
        if self.team.leads:
            self._tensorboard = self._open_tensorboard()
            self._metrics = (self.directory / "metrics.jsonl").open("ab")
            self._metrics.truncate(self._metrics_bytes)  # lines after the checkpoint will be written again
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self._handlers[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._handlers.items():
            signal.signal(signum, handler)
        self._handlers = {}
        if self._metrics is not None:
            self._metrics.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _on_signal(self, signum: int, _: FrameType | None) -> None:
        self._signum = signum
        signal.signal(signum, self._handlers[signum])  # a second one does not wait for the step to end

    def _open_tensorboard(self) -> Any:  # noqa: ANN401 (an optional dependency's type)
        if not self.config.tensorboard:
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("tensorboard is not installed: pip install 'gt-core[tensorboard]'") from error
        return SummaryWriter(self.directory / "tensorboard")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Append `figures` to the metrics, under names grouped by prefix (`train/…`, `eval/…`, `dual/…`, `time/…`)."""
        if not self.team.leads:
            return
        if self._metrics is None:
            raise RuntimeError("a run logs inside its `with` block only")
        self._latest = figures
        self._metrics_bytes += self._metrics.write((json.dumps({"step": step, **figures}) + "\n").encode())
        if self._tensorboard is not None:
            for name, value in figures.items():
                self._tensorboard.add_scalar(name, value, step)

    def steps(self, start: int, total: int, state: Callable[[], Mapping[str, Any]]) -> Iterator[int]:
        """The steps `start`, …, `total - 1`, with progress, checkpoints and a clean stop on a signal.

        Args:
            start: the first step to do; the state's own count of steps done.
            total: steps of the whole run.
            state: called between steps; what `restore` will return.

        Yields:
            The step to do now.

        Raises:
            Interrupted: after a signal, once the state is saved.
        """
        began, before = time.monotonic(), self.seconds
        saved_at = began
        with ProgressDisplay(total, start) if self.team.leads else nullcontext() as progress:
            for step in range(start, total):
                yield step
                now = time.monotonic()
                self.seconds = before + now - began
                signum = self.team.largest(self._signum)
                if progress is not None:
                    shown = {label: self._latest[name] for label, name in self._shown.items() if self._latest}
                    progress.update(step + 1, shown)
                if self.team.leads and (signum or now - saved_at >= self._checkpoint_seconds or step + 1 == total):
                    self._save(step + 1, state())
                    saved_at = now
                if signum:
                    raise Interrupted(signum, self.directory)

    def _save(self, step: int, state: Mapping[str, Any]) -> None:
        if self._metrics is None:
            raise RuntimeError("a run saves inside its `with` block only")
        self._metrics.flush()
        os.fsync(self._metrics.fileno())
        content = {"seconds": self.seconds, "metrics_bytes": self._metrics_bytes, "state": state}
        save_checkpoint(self.directory / "checkpoints" / f"step-{step:09d}", content)
        for old in self._checkpoints()[:-_KEPT_CHECKPOINTS]:
            shutil.rmtree(old)

    def keep_model(self, state: Mapping[str, Any]) -> None:
        """Write `model/`, a checkpoint of what was learnt; one that is there already came from the same bits."""
        if self.team.leads and not (self.directory / "model").exists():
            save_checkpoint(self.directory / "model", state)

    def finish(self, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Write `cost.json`, and then `result.json`, which is the seed and `figures`; returns the latter."""
        write_json(self.directory / "cost.json", {"seconds": round(self.seconds, 3)})
        result = {"seed": self.config.seed, **figures}
        write_json(self.directory / "result.json", result)
        return result


class Learner(Protocol):
    """What `learn` drives: all state that changes during training."""

    @property
    def step(self) -> int:
        """Iterations done."""
        ...

    def iterate(self) -> Mapping[str, float]:
        """Do one iteration and return the figures to log, if any."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """Everything needed to continue."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        ...


def learn(run: Run, learner: Learner, iterations: int, constants: Mapping[str, float] | None = None) -> None:
    """Iterate a learner to the end, from the run's newest checkpoint if it has one, and log what it returns.

    Args:
        run: where to.
        learner: what to iterate.
        iterations: how many there are in all.
        constants: figures that never change, logged beside the others.
    """
    saved = run.restore()
    if saved is not None:
        learner.load_state_dict(saved)
    with run:
        for step in run.steps(learner.step, iterations, learner.state_dict):
            figures = learner.iterate()
            if figures:
                run.log(step + 1, {**figures, **(constants or {})})
