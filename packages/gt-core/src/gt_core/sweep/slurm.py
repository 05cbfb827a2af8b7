"""Cells as jobs of a Slurm cluster, through submitit; needs the extra `slurm`.

The folder of the cells must lie on a file system that the compute nodes share.
"""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gt_core.errors import InputError
from gt_core.sweep.worker import Report, Task, run_cell

if TYPE_CHECKING:
    from submitit import AutoExecutor, Job
    from submitit.helpers import DelayedSubmission

__all__ = ["Slurm"]

_POLL_SECONDS = 0.2


class Slurm:
    """One job per cell.

    Args:
        folder: holds submitit's own files, in `.submitit`.
        parameters: what submitit is told of each job, such as slurm_partition, timeout_min and mem_gb; a job that
            reaches its time limit goes back into the queue and on from its checkpoint.
        jobs: cells at a time, those that wait in Slurm's queue included; 0: all.
        cluster: slurm; or local, submitit's imitation of a cluster on this machine.

    Raises:
        InputError: if submitit or Slurm is not installed, or submitit refuses a parameter.
    """

    def __init__(self, folder: Path, parameters: Mapping[str, Any], jobs: int = 0, cluster: str = "slurm") -> None:
        try:
            import submitit
        except ImportError as error:
            raise InputError("submitit is not installed: pip install 'gt-core[slurm]'") from error
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise InputError("there is no sbatch here: run --backend slurm where jobs are submitted to Slurm")
        self.slots = jobs or sys.maxsize
        self._submitit, self._cluster = submitit, cluster
        self._folder, self._parameters = folder / ".submitit", parameters
        try:
            self._executor()
        except (AssertionError, NameError, TypeError, ValueError) as error:
            raise InputError(f"submitit refuses the parameters {dict(parameters)}: {error}") from error
        self._running: list[tuple[Job[Report], Task]] = []

    def submit(self, task: Task) -> None:
        """Submit a job: as many CPUs as the cell has threads, and one GPU if its device is one."""
        gpus = {"gpus_per_node": 1} if task.config.device.startswith("cuda") else {}
        executor = self._executor(cpus_per_task=task.config.threads, **gpus)
        self._running.append((executor.submit(_Requeued(), task), task))

    def _executor(self, **needs: int) -> "AutoExecutor":
        executor = self._submitit.AutoExecutor(self._folder, self._cluster)
        executor.update_parameters(name="cell", **{**needs, **self._parameters})
        return executor

    def reports(self, seconds: float) -> list[tuple[Task, Report]]:
        """Jobs that left the queue."""
        end = time.monotonic() + seconds
        while not (ended := [entry for entry in self._running if entry[0].done()]) and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        self._running = [entry for entry in self._running if entry not in ended]
        return [(task, _report(job)) for job, task in ended]

    def stop(self) -> None:
        """Cancel the jobs: Slurm sends SIGTERM, and a run saves its state at the end of the step."""
        for job, _ in self._running:
            job.cancel(check=False)

    def close(self) -> None:
        """Cancel what is still in the queue."""
        self.stop()
        self._running.clear()


def _report(job: "Job[Report]") -> Report:
    try:
        return job.result()
    except Exception as error:  # submitit's own, or what unpickling raises: the job did not report
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        return Report(f"job {job.job_id}: {lines[0]}")


class _Requeued:
    """`run_cell`, and what submitit puts back into the queue when a job's time is over."""

    def __call__(self, task: Task) -> Report:
        return run_cell(task)

    def checkpoint(self, task: Task) -> "DelayedSubmission":
        """The same again: the run's directory holds all that has been done."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, task)
