"""The commands, as a user types them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from gt_core.checkpoint import load_checkpoint

from regretformer.plots import smooth

SMOKE = ("--preset", "smoke", "--iterations", "300")


def call(command: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    code = f"from regretformer import cli; cli.{ {'train': 'train', 'eval': 'evaluate'}[command] }()"
    line = [sys.executable, "-W", "error", "-c", code, *map(str, args)]
    return subprocess.run(line, check=check, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "straight"
    call("train", *SMOKE, "--out-dir", directory)
    return directory


def test_train_leaves_result_and_plots(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    assert all(not isinstance(value, dict) for value in result.values())
    assert (result["setting"], result["net"], result["attack"], result["n_valuations"]) == (
        "1x2",
        "regretformer",
        "grid",
        200,
    )
    assert result["optimal_revenue"] == pytest.approx(0.5492, abs=1e-4)
    assert result["regret_over_budget"] == pytest.approx(1000 * result["regret_sum_over_revenue"])
    assert {path.name for path in (run / "plots").iterdir()} == {
        "allocation.png",
        "learning_curve.png",
        "multiplier.png",
        "regret.png",
    }
    assert all(path.stat().st_size > 10_000 for path in (run / "plots").iterdir())


def test_eval_prints_the_figures_of_the_result(run: Path) -> None:
    printed = json.loads(call("eval", run, "--json").stdout)
    result = json.loads((run / "result.json").read_text())
    assert printed.items() <= result.items()
    table = call("eval", run, "--valuations", 50).stdout
    assert f"{printed['revenue']:.4f}" in table


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_train_killed_and_resumed_ends_with_the_same_bits(run: Path, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    code = (
        "import sys; from gt_core import run; from regretformer import cli; "
        "run.Run.__init__.__kwdefaults__['checkpoint_seconds'] = 0.05; cli.train()"
    )
    line = [sys.executable, "-c", code, *SMOKE, "--out-dir", str(killed), "--resume"]
    for _ in range(2):
        process = subprocess.Popen(line, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        before = newest(killed)
        while newest(killed) <= before and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert 0 < newest(killed) < 300
    call("train", "--out-dir", killed, "--resume")

    ends = [load_checkpoint(folder / "checkpoints" / "step-000000300")["state"] for folder in (run, killed)]
    for name, tensor in ends[0]["network"].items():
        assert np.array_equal(tensor.numpy(), ends[1]["network"][name].numpy()), name
    assert ends[0]["multiplier"] == ends[1]["multiplier"]
    assert (killed / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    results = [json.loads((folder / "result.json").read_text()) for folder in (run, killed)]
    assert {**results[0], "seconds": 0} == {**results[1], "seconds": 0}


def newest(run: Path) -> int:
    return max((int(path.name.removeprefix("step-")) for path in run.glob("checkpoints/step-*")), default=0)


def test_train_does_not_overwrite(run: Path) -> None:
    again = call("train", *SMOKE, "--out-dir", run, check=False)
    assert again.returncode == 2
    assert "already holds a run" in again.stderr
    finished = call("train", "--out-dir", run, "--resume")
    assert "optimal revenue" in finished.stdout


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("train", ("--setting", "0x2"), "got '0x2'"),
        ("train", ("--regret-budget", "0"), "regret_budget must be positive and finite, got 0.0"),
        ("train", ("--preset", "quick"), "preset 'quick' does not exist; choose from fast, smoke"),
        ("train", ("--config", "missing.json"), "missing.json cannot be read"),
        ("train", ("--device", "cuda:77"), "device cuda:77 is not there"),
        ("train", ("--lerning-rate", "1"), "--learning-rate"),
        ("eval", ("nowhere",), "nowhere holds no run"),
        ("eval", (), "run"),
    ],
)
def test_command_bad_input_exits_with_2_and_names_it(
    command: str, args: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = call(command, *args, check=False)
    assert refused.returncode == 2
    assert message in refused.stderr.replace("\n", " ")
    assert "Traceback" not in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch() -> None:
    code = "import sys, regretformer.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert "--regret-budget" in call("train", "--help").stdout


def test_smooth_is_a_running_mean() -> None:
    assert smooth(np.array([1.0, 3.0, 5.0, 7.0]), window=2).tolist() == [1.0, 2.0, 4.0, 6.0]
