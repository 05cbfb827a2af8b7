"""Cells as tasks of a Ray cluster; needs the extra `ray`.

Every node must have the packages installed and see the folder of the cells under the same path.
"""

import contextlib
import io
import logging
import os
import socket
from typing import Any

from gt_core.errors import InputError
from gt_core.sweep.worker import Report, Task, run_cell

__all__ = ["RayCluster"]

_ANSWER_SECONDS = 5.0


class RayCluster:
    """One Ray task per cell, in a worker process of its own.

    Args:
        address: HOST:PORT of the cluster's head, or auto for the cluster that this machine is a node of.
        jobs: cells at a time; 0: as many as the cluster has CPUs for, which may change.
        threads: of one cell.
        gpu: whether a cell needs one.

    Raises:
        InputError: if Ray is not installed, no cluster answers, or no node of it could run a cell.
    """

    def __init__(self, address: str = "auto", jobs: int = 0, threads: int = 1, gpu: bool = False) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise InputError("ray is not installed: pip install 'gt-core[ray]'") from error
        _require_answer(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            remedy = "start one with `ray start --head`, and run this on one of its nodes"
            raise InputError(f"no Ray cluster can be used at {address}: {_first_sentence(error)}; {remedy}") from error
        self._silence = contextlib.ExitStack()  # Ray prints messages of its own to where --json belongs
        self._silence.enter_context(contextlib.redirect_stdout(io.StringIO()))
        self._ray = ray
        self._jobs, self._threads = jobs, threads
        self._running: dict[Any, Task] = {}
        self._require_node(threads, gpu)
        # Ray's own retries are off: the driver counts and reports them.
        self._run = ray.remote(max_retries=0, max_calls=1, scheduling_strategy="SPREAD")(run_cell)

    def _require_node(self, threads: int, gpu: bool) -> None:
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= threads and node.get("GPU", 0) >= gpu for node in nodes):
            has = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
            self.close()
            raise InputError(f"a cell takes {threads} CPUs and {int(gpu)} GPUs, but the Ray cluster's nodes have {has}")

    @property
    def slots(self) -> int:
        """What the nodes that are there now have CPUs for."""
        return self._jobs or max(1, int(self._ray.cluster_resources().get("CPU", 1)) // self._threads)

    def submit(self, task: Task) -> None:
        """Hand a cell to Ray: as many CPUs as it has threads, and one GPU if its device is one."""
        gpus = int(task.config.device.startswith("cuda"))
        self._running[self._run.options(num_cpus=task.config.threads, num_gpus=gpus).remote(task)] = task

    def reports(self, seconds: float) -> list[tuple[Task, Report]]:
        """Tasks that ended, with their workers and nodes or without."""
        ready, _ = self._ray.wait(list(self._running), timeout=seconds)
        return [(self._running.pop(reference), self._report(reference)) for reference in ready]

    def _report(self, reference: Any) -> Report:  # noqa: ANN401 (a type of Ray)
        try:
            report: Report = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return Report(_first_sentence(error))
        return report

    def stop(self) -> None:
        """Ray interrupts the tasks: a run saves its state at the end of the step."""
        self._cancel(force=False)

    def close(self) -> None:
        """Kill what is still at work and leave the cluster."""
        self._cancel(force=True)
        self._running.clear()
        self._ray.shutdown()
        self._silence.close()

    def _cancel(self, *, force: bool) -> None:
        for reference in self._running:
            self._ray.cancel(reference, force=force)


def _require_answer(address: str) -> None:
    """Refuse an address where nobody listens, for which Ray itself would wait long.

    Raises:
        InputError: naming it.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():
        raise InputError(f"address must be HOST:PORT of a Ray cluster's head, or auto, got {address!r}")
    try:
        with contextlib.closing(socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS)):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(f"address {address} does not answer: {error}; is the Ray cluster's head there?") from error


def _first_sentence(error: Exception) -> str:
    """Ray's messages have ten."""
    return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
