"""Cells one after another in this process: for cells of seconds, which a process of their own would take to start."""

from gt_core.sweep.worker import Report, Task, run_cell

__all__ = ["ThisProcess"]


class ThisProcess:
    """Runs a cell when it is submitted."""

    slots = 1

    def __init__(self) -> None:
        self._ended: list[tuple[Task, Report]] = []

    def submit(self, task: Task) -> None:
        """Run it to its end.

        Raises:
            KeyboardInterrupt: if it was asked to stop; it has saved itself.
        """
        report = run_cell(task)
        if report.interrupted:
            raise KeyboardInterrupt(report.error)
        self._ended.append((task, report))

    def reports(self, seconds: float) -> list[tuple[Task, Report]]:  # noqa: ARG002 (nothing is waited for)
        """What ended since the last call."""
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        """Nothing is at work between cells."""

    def close(self) -> None:
        """Nothing is left at work."""
