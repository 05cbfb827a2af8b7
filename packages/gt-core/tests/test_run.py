import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gt_core.checkpoint import load_checkpoint
from gt_core.config import RunConfig
from gt_core.errors import CheckpointError, InputError, NumericalError, RunError
from gt_core.run import Interrupted, Run, learn, read_cost, read_result, require_finite
from gt_core.seeding import Streams


@dataclasses.dataclass(frozen=True)
class WalkConfig(RunConfig):
    """A random walk stands in for training: its every step depends on all steps before."""

    preset: str = "walk"
    """Name."""
    steps: int = 20
    """Length."""


class Walk:
    def __init__(self, seed: int, stop_at: int | None) -> None:
        self.step, self.x, self.streams = 0, torch.zeros(3, dtype=torch.float64), Streams(seed)
        self.stop_at = stop_at

    def iterate(self) -> dict[str, float]:
        self.x = 0.9 * self.x + torch.randn(3, dtype=torch.float64, generator=self.streams.torch("walk"))
        self.step += 1
        if self.step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"train/x": self.x.sum().item()}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "x": self.x, "streams": self.streams.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.x = state["step"], state["x"]
        self.streams.load_state_dict(state["streams"])


def walk(config: WalkConfig, *, resume: bool = False, stop_at: int | None = None, interval: float = 0.0) -> Walk:
    run, state = Run(config, resume=resume, checkpoint_seconds=interval), Walk(config.seed, stop_at)
    learn(run, state, config.steps, {"train/bound": 7.0})
    run.keep_model({"x": state.x})
    run.finish({"x": state.x.tolist()})
    return state


@pytest.fixture
def config(tmp_path: Path) -> WalkConfig:
    return WalkConfig(out_dir=str(tmp_path / "run"))


def test_run_writes_what_it_promises(config: WalkConfig) -> None:
    walk(config)
    assert json.loads((config.directory / "config.json").read_text())["steps"] == 20
    about = json.loads((config.directory / "versions.json").read_text())
    assert {"version_python", "version_torch", "version_gt_core", "hardware_cpu", "hardware_device"} <= set(about)
    lines = [json.loads(line) for line in (config.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert all(line["train/bound"] == 7 and "train/x" in line for line in lines)
    result = read_result(config.directory)
    assert set(result) == {"seed", "x"}
    assert 0 < read_cost(config.directory)["seconds"] < 60
    assert len(list((config.directory / "checkpoints").iterdir())) == 2
    assert load_checkpoint(config.directory / "model")["x"].tolist() == result["x"]


@pytest.mark.parametrize("stop_at", [1, 7, 19, 20])
def test_run_stopped_and_resumed_equals_straight(tmp_path: Path, stop_at: int) -> None:
    straight = WalkConfig(out_dir=str(tmp_path / "straight"))
    stopped = WalkConfig(out_dir=str(tmp_path / "stopped"))
    expected = walk(straight)
    with pytest.raises(Interrupted, match="stopped by SIGTERM; --resume continues"):
        walk(stopped, stop_at=stop_at, interval=1e9)
    resumed = walk(stopped, resume=True)
    assert torch.equal(resumed.x, expected.x)
    for file in ("metrics.jsonl", "result.json"):
        assert (stopped.directory / file).read_bytes() == (straight.directory / file).read_bytes()


SCRIPT = (
    "import sys; from test_run import *; walk(WalkConfig(out_dir=sys.argv[1], steps=2000), resume=True, interval=.05)"
)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_run_killed_and_resumed_equals_straight(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    subprocess.run([*command, str(straight)], check=True, env=environment, capture_output=True)
    for kills in range(1, 3):
        process = subprocess.Popen([*command, str(killed)], env=environment, stderr=subprocess.DEVNULL)
        newest = max((int(path.name[5:]) for path in killed.glob("checkpoints/step-*")), default=0)
        while process.poll() is None and not any(
            int(path.name[5:]) > newest for path in killed.glob("checkpoints/step-*")
        ):
            time.sleep(0.001)
        time.sleep(0.01 * kills)
        process.kill()
        process.wait()
    subprocess.run([*command, str(killed)], check=True, env=environment, capture_output=True)
    for file in ("metrics.jsonl", "result.json"):
        assert (killed / file).read_bytes() == (straight / file).read_bytes()


def test_run_finished_and_resumed_does_nothing(config: WalkConfig) -> None:
    walk(config)
    before = {
        name: (config.directory / name).read_bytes() for name in ("metrics.jsonl", "result.json", "versions.json")
    }
    (config.directory / "versions.json").write_text("another machine's")
    walk(config, resume=True)
    after = {name: (config.directory / name).read_bytes() for name in before}
    assert after == before | {"versions.json": b"another machine's"}


def test_run_is_never_overwritten(config: WalkConfig) -> None:
    walk(config)
    with pytest.raises(RunError, match="already holds a run: --resume continues it, --out-dir starts another"):
        Run(config, resume=False)


def test_run_with_another_config_is_refused(config: WalkConfig) -> None:
    walk(config)
    with pytest.raises(RunError, match="steps was 20 and is now 30"):
        Run(dataclasses.replace(config, steps=30), resume=True)


def test_run_may_move_to_another_device_or_thread_count(config: WalkConfig) -> None:
    walk(config)
    assert Run(dataclasses.replace(config, threads=3), resume=True).result == read_result(config.directory)


def test_run_refuses_a_directory_of_something_else(config: WalkConfig) -> None:
    config.directory.mkdir()
    (config.directory / "thesis.tex").write_text("precious")
    with pytest.raises(RunError, match="holds no run; choose another"):
        Run(config, resume=True)


def test_run_starts_where_a_process_died_at_once(config: WalkConfig) -> None:
    (config.directory / "checkpoints").mkdir(parents=True)
    assert Run(config, resume=True).restore() is None


def test_run_damaged_checkpoint_is_named(config: WalkConfig) -> None:
    walk(config)
    newest = config.directory / "checkpoints" / "step-000000020"
    (newest / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="step-000000020"):
        Run(config, resume=True).restore()


def test_run_without_result_is_named(tmp_path: Path) -> None:
    for read, name in ((read_result, "result"), (read_cost, "cost")):
        with pytest.raises(RunError, match=f"holds no {name}.json"):
            read(tmp_path)


def test_run_writes_tensorboard_events(tmp_path: Path) -> None:
    walk(WalkConfig(out_dir=str(tmp_path / "run"), tensorboard=True, steps=3))
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_run_without_tensorboard_installed_is_refused(config: WalkConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match=r"pip install 'gt-core\[tensorboard\]'"):
        walk(dataclasses.replace(config, tensorboard=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_require_finite_names_the_quantity(value: float) -> None:
    require_finite(loss=1.0)
    with pytest.raises(NumericalError, match="loss became"):
        require_finite(revenue=1.0, loss=value)
