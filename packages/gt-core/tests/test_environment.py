import subprocess
import sys

import pytest
import torch
from rich.console import Console

from gt_core.environment import hardware, prepare, versions
from gt_core.errors import InputError
from gt_core.progress import ProgressDisplay


def test_versions_are_flat_names() -> None:
    found = versions("safetensors")
    assert set(found) == {"version_python", "version_torch", "version_numpy", "version_gt_core", "version_safetensors"}


def test_hardware_names_the_processor() -> None:
    found = hardware("cpu")
    assert found["hardware_device"] == "cpu"
    assert found["hardware_cores"] >= 1  # type: ignore[operator]
    assert found["hardware_cpu"]


def test_prepare_sets_threads() -> None:
    before = torch.get_num_threads()
    prepare("cpu", 1)
    assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_prepare_refuses_a_missing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="cuda:3 is not there: torch sees 1 GPUs"):
        prepare("cuda:3", 1)


def test_process_ends_with_a_parent_that_is_killed() -> None:
    child = (
        "from gt_core.environment import end_with_the_parent; import time; "
        "end_with_the_parent(); print('up', flush=True); time.sleep(600)"
    )
    spawn = "import multiprocessing; multiprocessing.get_context('spawn').Process(target=exec, args=({!r},)).start()"
    parent = subprocess.Popen([sys.executable, "-c", spawn.format(child)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    parent.kill()
    parent.communicate(timeout=60)  # returns once no process holds the other end of the pipe


def test_progress_off_a_terminal_ends_with_one_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(3) as progress:
        for step in range(3):
            progress.update(step + 1, {"loss": 0.12345})
    assert capsys.readouterr().err == "3/3  0:00:00 left  loss 0.1235\n"


def test_progress_on_a_terminal_shows_figures() -> None:
    console = Console(force_terminal=True, width=100, record=True)
    with ProgressDisplay(3, console=console) as progress:
        progress.update(3, {"loss": 0.5})
    assert "3/3" in console.export_text()
