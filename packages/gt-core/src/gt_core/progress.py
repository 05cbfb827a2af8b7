"""Progress with time left: a live bar on a terminal, a plain line now and then elsewhere. Both go to stderr."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

__all__ = ["ProgressDisplay"]

_PLAIN_SECONDS = 15.0


class ProgressDisplay:
    """Shows how far a run is.

    Args:
        total: steps of the whole run.
        completed: steps done before this process started.
        console: where to show it, by default stderr.
    """

    def __init__(self, total: int, completed: int = 0, console: Console | None = None) -> None:
        self.total, self.completed = total, completed
        self._console = console or Console(stderr=True)
        self._started, self._start_step = time.monotonic(), completed
        self._last_line = self._last_refresh = self._started
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "ProgressDisplay":
        if self._console.is_terminal:
            columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[text]}"))
            self._bar = Progress(*columns, console=self._console, refresh_per_second=4)
            self._task = self._bar.add_task("", total=self.total, completed=self.completed, text="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, completed: int, figures: Mapping[str, float]) -> None:
        """Say that `completed` steps are done and show `figures` by name; cheap enough to call at every step."""
        self.completed = completed
        now = time.monotonic()
        if now - self._last_refresh < 0.25 and completed < self.total:
            return
        self._last_refresh = now
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=completed, text=self._text(now, figures))
        elif now - self._last_line >= _PLAIN_SECONDS or completed == self.total:
            self._last_line = now
            line = f"{completed}/{self.total}  {self._text(now, figures)}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _text(self, now: float, figures: Mapping[str, float]) -> str:
        shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        return f"{self._remaining(now)}  {shown}"

    def _remaining(self, now: float) -> str:
        done = self.completed - self._start_step
        if done <= 0:
            return "-:--:-- left"
        seconds = round((now - self._started) / done * (self.total - self.completed))
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"
