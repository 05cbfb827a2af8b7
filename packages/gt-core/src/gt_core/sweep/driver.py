"""The driver of a sweep: hands cells out, counts deaths, tries again, and stops in good order."""

import collections
import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal, NamedTuple

from rich.console import Console

from gt_core.progress import ProgressDisplay
from gt_core.sweep.grid import Cell
from gt_core.sweep.worker import LOG, Backend, Report, Task

__all__ = ["Outcome", "SweepStopped", "sweep"]

_WAIT_SECONDS = 0.5


class Outcome(NamedTuple):
    """What became of a cell.

    Attributes:
        cell: which.
        status: `finished` now, `found` finished, `failed` for good, or `stopped` with its state saved.
        deaths: attempts that ended without a result.
        error: what the last of them said.
    """

    cell: Cell
    status: Literal["finished", "found", "failed", "stopped"]
    deaths: int = 0
    error: str = ""

    @property
    def seconds(self) -> float | None:
        """Wall-clock time of training, if the cell is finished."""
        return _read(self.cell, "cost.json").get("seconds")

    @property
    def result(self) -> dict[str, Any]:
        """The result, empty if the cell is not finished."""
        return _read(self.cell, "result.json")


class SweepStopped(KeyboardInterrupt):
    """The sweep was asked to stop; all cells are at rest and can be continued.

    Attributes:
        signum: the signal that asked.
        outcomes: of all cells.
    """

    def __init__(self, signum: int, outcomes: Sequence[Outcome]) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}; the same command goes on")
        self.signum, self.outcomes = signum, outcomes


def sweep(
    cells: Sequence[Cell], train: str, backend: Backend, *, retries: int = 3, console: Console | None = None
) -> list[Outcome]:
    """Run the cells that have no result yet, and return what became of all, in their order.

    Args:
        cells: the grid.
        train: the function that runs a config, as package.module:function. It must continue a run that was begun.
        backend: where; it is closed at the end.
        retries: how often a cell may die one time after another without getting further before it has failed for good.
            What bad input or a number that is not finite ended is not tried again.
        console: where progress and deaths are shown, by default stderr.

    Raises:
        SweepStopped: after SIGINT or SIGTERM, once all cells at work have saved themselves.
    """
    driver = _Driver(cells, train, backend, retries, console or Console(stderr=True))
    try:
        driver.run()
    finally:
        backend.close()
    outcomes = [driver.outcomes[cell.config.directory] for cell in cells]
    if driver.signals:
        raise SweepStopped(driver.signals[0], outcomes)
    return outcomes


class _Driver:
    def __init__(self, cells: Sequence[Cell], train: str, backend: Backend, retries: int, console: Console) -> None:
        self.cells = {cell.config.directory: cell for cell in cells}
        self.train, self.backend, self.retries, self.console = train, backend, retries, console
        self.outcomes = {place: Outcome(cell, "found") for place, cell in self.cells.items() if cell.is_finished}
        self.waiting = collections.deque(place for place in self.cells if place not in self.outcomes)
        self.running: set[Path] = set()
        self.deaths: collections.Counter[Path] = collections.Counter()
        self.patience = {place: (retries, _newest_checkpoint(place)) for place in self.waiting}
        self.signals: list[int] = []

    def run(self) -> None:
        """Until every cell has its outcome."""
        with _received(self.signals), ProgressDisplay(len(self.cells), len(self.outcomes), self.console) as progress:
            asked = 0
            while self.waiting or self.running:
                if len(self.signals) > asked:
                    asked = len(self.signals)
                    self._stop(at_once=asked > 1)
                while self.waiting and len(self.running) < self.backend.slots:
                    self._submit(self.waiting.popleft())
                self._show(progress)
                for task, report in self.backend.reports(_WAIT_SECONDS) if self.running else ():
                    self._settle(task.config.directory, report)
            self._show(progress)

    def _show(self, progress: ProgressDisplay) -> None:
        failed = sum(outcome.status == "failed" for outcome in self.outcomes.values())
        progress.update(
            len(self.outcomes), {"running": len(self.running), "failed": failed, "deaths": self.deaths.total()}
        )

    def _submit(self, place: Path) -> None:
        self.running.add(place)
        self.backend.submit(Task(self.train, self.cells[place].config, Path.cwd()))

    def _settle(self, place: Path, report: Report) -> None:
        """A cell's attempt ended: it is finished, is tried again, or has failed."""
        self.running.remove(place)
        cell = self.cells[place]
        if not report.error and not cell.is_finished:
            shared = "its worker says that it is finished, but no result is here: do all nodes see this folder?"
            report = Report(shared, final=True)
        if not report.error:
            self.outcomes[place] = Outcome(cell, "finished", self.deaths[place])
            return
        if self.signals:
            self.outcomes[place] = Outcome(cell, "stopped", self.deaths[place])
            return
        self.deaths[place] += 1
        if report.final or not self._may_try_again(place):
            self._say(f"{place} failed: {report.error}; see {LOG} there")
            self.outcomes[place] = Outcome(cell, "failed", self.deaths[place], report.error)
        else:
            self._say(f"{place} died: {report.error}; it goes on from its checkpoint")
            self.waiting.appendleft(place)

    def _may_try_again(self, place: Path) -> bool:
        """Whether the cell got further than at its last death, or has not died too often since."""
        left, before = self.patience[place]
        now = _newest_checkpoint(place)
        left = self.retries if now > before else left - 1
        self.patience[place] = left, now
        return left >= 0

    def _stop(self, *, at_once: bool) -> None:
        """Start nothing more; at the second signal do not wait for what is at work."""
        for place in self.waiting:
            self.outcomes[place] = Outcome(self.cells[place], "stopped", self.deaths[place])
        self.waiting.clear()
        if at_once:
            for place in self.running:
                self.outcomes[place] = Outcome(self.cells[place], "stopped", self.deaths[place])
            self.running.clear()
        else:
            self._say(f"stopping: {len(self.running)} cells save themselves (Ctrl-C again does not wait for them)")
            self.backend.stop()

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def _received(signals: list[int]) -> Iterator[None]:
    """Gather SIGINT and SIGTERM in `signals` instead of being ended by them."""

    def receive(signum: int, _: FrameType | None) -> None:
        signals.append(signum)

    handlers = {signum: signal.signal(signum, receive) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


def _newest_checkpoint(directory: Path) -> str:
    return max((path.name for path in (directory / "checkpoints").glob("step-*")), default="")


def _read(cell: Cell, name: str) -> dict[str, Any]:
    file = cell.config.directory / name
    content: dict[str, Any] = json.loads(file.read_text()) if cell.is_finished and file.is_file() else {}
    return content
