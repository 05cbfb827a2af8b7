"""What a run runs on: threads, processes and device, and versions and hardware as flat names for a result file."""

import ctypes
import multiprocessing
import os
import platform
import signal
import threading
from importlib import metadata
from pathlib import Path

from gt_core.errors import InputError

__all__ = ["end_with_the_parent", "hardware", "prepare", "versions"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def prepare(device: str, threads: int) -> None:
    """Set the number of torch's CPU threads and make sure that the device is there.

    Raises:
        InputError: if the device is a GPU that this machine or this build of torch lacks.
    """
    import torch

    if device.startswith("cuda"):
        index = torch.device(device).index or 0
        if index >= torch.cuda.device_count():
            raise InputError(
                f"device {device} is not there: torch sees {torch.cuda.device_count()} GPUs; use --device cpu"
            )
    torch.set_num_threads(threads)
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Let glibc keep what a step of training freed for the next one: page by page it costs a fifth of a short step."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the largest it takes
        libc.mallopt(_M_TRIM_THRESHOLD, 2**30)


def end_with_the_parent() -> None:
    """Send this process SIGTERM when the one whose `multiprocessing` started it ends, be it killed: none stays behind.

    A run then saves its state at the end of the step, so that whoever starts it again finds it at rest.
    """
    threading.Thread(target=_wait_for_the_parent, daemon=True).start()


def _wait_for_the_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # noqa: S101 (this runs in its child)
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def versions(*packages: str) -> dict[str, str]:
    """`{"version_python": …, "version_torch": …}` for Python, the libraries that decide numbers, and `packages`."""
    names = ("torch", "numpy", "gt-core", *packages)
    found = {f"version_{name.replace('-', '_')}": metadata.version(name) for name in names}
    return {"version_python": platform.python_version(), **found}


def hardware(device: str) -> dict[str, str | int]:
    """`{"hardware_cpu": …, "hardware_cores": …, "hardware_device": …, "hardware_system": …}`."""
    return {
        "hardware_cpu": _cpu_model(),
        "hardware_cores": os.cpu_count() or 1,
        "hardware_device": _device_name(device),
        "hardware_system": platform.platform(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _device_name(device: str) -> str:
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(device)
