"""Evaluations of one network in several settings: side by side where there are threads, and nothing measured is lost.

In a large mixture an honest search takes minutes per setting, and more than training in all. Settings have nothing in
common but the network, so each is measured by a process of its own, to the same figures whatever their number.
"""

import json
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from gt_core.environment import end_with_the_parent, prepare
from gt_core.files import write_json

__all__ = ["measured"]

Figures = dict[str, Any]


def measured(
    names: Sequence[str],
    measure: Callable[[str], Figures],
    *,
    threads: int = 1,
    kept: Path | None = None,
    how: Figures | None = None,
) -> dict[str, Figures]:
    """What `measure` returns for each name, in their order.

    Args:
        names: of the settings, smallest first.
        measure: of one setting; it must be one that another process can import.
        threads: how many settings are measured at a time, each by a process; one by one here if 1.
        kept: folder that holds a file for each setting that is done, `2x3.json`, so that an interrupted evaluation goes
            on where it was.
        how: what else the figures depend on; a kept file that was measured otherwise is measured anew.
    """
    found = {} if kept is None else {name: figures for name in names if (figures := _read(kept / f"{name}.json", how))}
    missing = [name for name in names if name not in found]
    for name, figures in _apart(missing, measure, min(threads, len(missing))):
        found[name] = figures
        if kept is not None:
            kept.mkdir(exist_ok=True)
            write_json(kept / f"{name}.json", {"how": how, "figures": figures})
    return {name: found[name] for name in names}


def _read(file: Path, how: Figures | None) -> Figures | None:
    if not file.is_file():
        return None
    content: Figures = json.loads(file.read_text())
    return content["figures"] if content["how"] == how else None


def _apart(names: Sequence[str], measure: Callable[[str], Figures], workers: int) -> Iterator[tuple[str, Figures]]:
    """Names and figures as they become known; on several workers those of the largest settings first."""
    if workers <= 1:
        yield from ((name, measure(name)) for name in names)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _begin) as pool:
        tasks = {pool.submit(measure, name): name for name in reversed(names)}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        except BaseException:  # also Ctrl-C: what is not done is not waited for
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _begin() -> None:
    """A worker has one thread, and ends with the process that started it, or without a word with Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    prepare("cpu", 1)
    end_with_the_parent()
