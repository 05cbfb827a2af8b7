"""Cells as processes of this machine; needs nothing but Python's standard library."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from gt_core.environment import end_with_the_parent
from gt_core.sweep.worker import Report, Task, run_cell

__all__ = ["Processes"]


class Processes:
    """One process per cell, so that nothing is left of a cell when it ends, and none takes another with it.

    Args:
        jobs: cells at a time; 0: as many as keep every core busy.
        threads: of one cell.
    """

    def __init__(self, jobs: int = 0, threads: int = 1) -> None:
        self.slots = jobs or max(1, _cores() // threads)
        self._context = multiprocessing.get_context("spawn")
        self._running: dict[Connection, tuple[SpawnProcess, Task]] = {}

    def submit(self, task: Task) -> None:
        """Start a process."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(sender, task))
        process.start()
        sender.close()
        self._running[receiver] = process, task

    def reports(self, seconds: float) -> list[tuple[Task, Report]]:
        """Processes that ended; one that was killed closes its end of the pipe without a word."""
        ended = []
        ready = wait(list(self._running), timeout=seconds)
        for receiver in [one for one in self._running if one in ready]:
            process, task = self._running.pop(receiver)
            try:
                report = receiver.recv()
            except EOFError:
                report = None
            receiver.close()
            process.join()
            ended.append((task, report or Report(f"its process {_end(process.exitcode or 0)}")))
        return ended

    def stop(self) -> None:
        """SIGTERM: a run saves its state at the end of the step."""
        for process, _ in self._running.values():
            process.terminate()

    def close(self) -> None:
        """SIGKILL to what is still at work."""
        for process, _ in self._running.values():
            process.kill()
            process.join()
        self._running.clear()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _end(status: int) -> str:
    return f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _work(sender: Connection, task: Task) -> None:
    if os.name == "posix":
        os.setpgrp()  # Ctrl-C in a terminal reaches the driver alone, which then asks the cells
    end_with_the_parent()
    sender.send(run_cell(task))
