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
from gt_core.errors import InputError

from regretformer.plots import smooth
from regretformer.report import default_evaluation, evaluate_run, load_config

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
    assert result["baseline"] == "bundle-myerson"
    assert result["baseline_revenue"] == pytest.approx((2 / 3) ** 1.5, abs=0.02)  # sqrt(2/3) (1 - (2/3) / 2)
    assert result["regret_over_budget"] == pytest.approx(1000 * result["regret_sum_over_revenue"])
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row["train/regret_over_revenue"] for row in rows if row["step"] > 285]
    assert len(last) == 15
    assert result["training_ratio"] == pytest.approx(1000 * sum(last) / 15)
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


def test_train_on_a_record_with_the_published_search_judges_the_held_out_part(tmp_path: Path) -> None:
    """The held-out fifth is worth three times as much as the rest: only evaluation can earn it."""
    record = np.where(np.arange(50)[:, None] % 5 == 4, 30.0, 10.0) + np.linspace(0, 1, 50)[:, None] * np.ones((1, 2))
    np.savetxt(tmp_path / "bids.csv", record, delimiter=",", header="first,second", comments="")
    small = ("--batch", 16, "--dataset-batches", 4, "--ascent-steps", 3, "--iterations", 40)
    call(
        "train", "--preset", "paper", *small, "--net", "regretnet", "--constraint", "augmented", "--valuations",
        tmp_path / "bids.csv", "--evaluation-valuations", 60, "--out-dir", tmp_path / "run",
    )  # fmt: skip
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert config["valuations"] == result["valuations"] == str(tmp_path / "bids.csv")
    assert (result["constraint"], result["optimal_revenue"]) == ("augmented", None)
    assert [row["dual/penalty"] for row in rows] == [1.0 + 50 * (k + 1) for k in range(40)]
    assert result["revenue"] > 1.5 * rows[-1]["train/revenue"]
    evaluation = default_evaluation(load_config(tmp_path / "run"))
    assert evaluate_run(tmp_path / "run", evaluation).items() <= result.items()
    (tmp_path / "bids.csv").unlink()
    with pytest.raises(InputError, match=r"bids\.csv cannot be read"):
        evaluate_run(tmp_path / "run", evaluation)


def test_train_on_a_mixture_reports_every_setting_and_takes_others(tmp_path: Path) -> None:
    table = call("train", *SMOKE, "--setting", "1x1..1x2", "--net", "equivariantnet", "--out-dir", tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert all(not isinstance(value, dict) for value in result.values())
    assert result["settings"] == ["1x1", "1x2"]
    assert result["revenue"] == pytest.approx((result["1x1/revenue"] + result["1x2/revenue"]) / 2)
    assert result["regret_over_budget"] == max(result["1x1/regret_over_budget"], result["1x2/regret_over_budget"])
    assert (result["1x1/optimal_revenue"], result["1x2/optimal_revenue"]) == pytest.approx((0.25, 0.5492), abs=1e-4)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for index, name in enumerate(result["settings"]):
        assert f"{result[f'{name}/revenue']:.4f}" in table.stdout
        last = [r["train/regret_over_revenue"] for r in rows if r["step"] > 285 and r["train/setting"] == index]
        assert result[f"{name}/training_ratio"] == pytest.approx(1000 * sum(last) / len(last))
    larger = json.loads(
        call("eval", tmp_path / "run", "--setting", "2x3", "--attack", "protocol", "--valuations", 20, "--json").stdout
    )
    assert (larger["setting"], larger["n_valuations"], larger["training_ratio"]) == ("2x3", 20, None)
    assert larger["revenue"] > 0
    evaluation = default_evaluation(load_config(tmp_path / "run"))
    assert evaluate_run(tmp_path / "run", evaluation, threads=2).items() <= result.items()
    kept = tmp_path / "run" / "evaluation"
    assert sorted(file.name for file in kept.iterdir()) == ["1x1.json", "1x2.json"]
    assert json.loads((kept / "1x2.json").read_text())["figures"]["revenue"] == result["1x2/revenue"]


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
    assert ends[0]["constraint"] == ends[1]["constraint"]
    for file in ("metrics.jsonl", "result.json"):
        assert (killed / file).read_bytes() == (run / file).read_bytes()


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
        ("train", ("--preset", "quick"), "preset 'quick' does not exist; choose from fast, gpu, paper, smoke"),
        ("train", ("--setting", "2x2..2x3", "--net", "regretnet"), "regretnet fits one setting, not 2x2..2x3"),
        ("train", ("--valuations", "no_such_module:draw"), "no_such_module:draw cannot be imported"),
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
