"""The commands, as a user types them."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from gt_core.checkpoint import load_checkpoint

from regretformer.networks.build import build
from regretformer.plots import smooth

SMOKE = ("--preset", "smoke", "--iterations", "300")


def call(command: str, *args: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    name = {"eval": "evaluate", "import": "import_official"}.get(command, command.replace("-", "_"))
    code = f"from regretformer import cli; cli.{name}()"
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
        ("compare", (), "no mechanism is given; name directories of finished runs, or vcg"),
        ("compare", ("vgc", "--setting", "1x2"), "vgc holds no run"),
        ("cross-misreport", ("vcg",), "a known auction has no setting of its own: give --setting"),
        ("distill", (), "no teacher is given"),
        ("distill", ("optimum", "--setting", "2x2"), "nobody knows the optimal auction for 2x2"),
        ("plot", ("nowhere",), "nowhere holds no run"),
        ("import", ("nowhere.pt", "--setting", "1x2"), "nowhere.pt cannot be read"),
        ("export", ("vcg",), "vcg is a known auction and no network"),
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


def test_plot_draws_again_and_elsewhere(run: Path, tmp_path: Path) -> None:
    (run / "plots" / "regret.png").unlink()
    files = json.loads(call("plot", run, "--json").stdout)["files"]
    assert sorted(files) == sorted(str(path) for path in (run / "plots").iterdir())
    assert str(run / "plots" / "regret.png") in files
    assert call("plot", "optimum", "--setting", "1x2", "--out", tmp_path).stdout.split() == [
        str(tmp_path / "allocation.png"),
        str(tmp_path / "regret.png"),
    ]


def test_compare_ranks_a_run_beside_known_auctions_and_draws(run: Path, tmp_path: Path) -> None:
    options = (run, "vcg", "optimum", "--valuations", 20, "--out", tmp_path / "frontier.png")
    rows = {row["mechanism"]: row for row in json.loads(call("compare", *options, "--json").stdout)}
    assert rows["vcg"]["revenue"] == rows["vcg"]["regret_max"] == 0
    assert rows["optimum"]["regret_max"] <= 1e-6
    assert (rows["straight"]["net"], rows["straight"]["attack"]) == ("regretformer", "grid")
    assert (tmp_path / "frontier.png").stat().st_size > 10_000
    table = call("compare", "vcg", "--setting", "2x1", "--valuations", 20).stdout
    assert table.splitlines()[2].startswith("| vcg | 0.3")


def test_cross_misreport_prints_a_square(run: Path) -> None:
    table = json.loads(call("cross-misreport", run, "optimum", "--valuations", 50, "--json").stdout)
    assert table["mechanisms"] == ["straight", "optimum"]
    assert table["regret_sum"][0][0] > 0
    assert table["regret_sum"][1] == [0, 0]
    assert table["regret_sum"][0][1] == pytest.approx(0, abs=1e-6)
    alone = call("cross-misreport", run, "--valuations", 50).stdout
    assert f"{table['regret_sum_over_revenue'][0][0]:.6f}" in alone


def test_distill_leaves_a_student_that_other_commands_open(run: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    shown = call("distill", run, "--preset", "smoke", "--out-dir", student)
    result = json.loads((student / "result.json").read_text())
    assert all(not isinstance(value, dict) for value in result.values())
    assert (result["teacher"], result["net"], result["setting"]) == (str(run), "regretnet", "1x2")
    assert f"{result['student_revenue']:.4f}" in shown.stdout
    assert {path.name for path in (student / "plots").iterdir()} == {
        "allocation.png",
        "learning_curve.png",
        "regret.png",
    }
    again = call("distill", "--out-dir", student, "--resume")
    assert again.stdout == shown.stdout
    judged = json.loads(call("eval", student, "--valuations", 50, "--json").stdout)
    assert (judged["net"], judged["preset"]) == ("regretnet", "distilled")


def test_import_and_export_go_through_a_directory(tmp_path: Path) -> None:
    network = build("regretnet", 1, 2, seed=0)
    entries = {
        name.replace("allocation", "alloc").replace("payment", "pay"): entry
        for name, entry in network.state_dict().items()
    }
    torch.save(entries, tmp_path / "net.pt")
    options = (tmp_path / "net.pt", "--setting", "1x2", "--out", tmp_path / "net")
    done = json.loads(call("import", *options, "--json").stdout)
    assert done == {"directory": str(tmp_path / "net"), "net": "RegretNet", "setting": "1x2", "parameters": 21_305}
    done = json.loads(call("export", tmp_path / "net", "--json").stdout)
    assert done == {"file": str(tmp_path / "net" / "mechanism.onnx"), "setting": "1x2", "any_size": False}
    session = onnxruntime.InferenceSession(done["file"], providers=["CPUExecutionProvider"])
    bids = torch.rand(5, 1, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(bids).payments.numpy()
    assert np.allclose(session.run(["payments"], {"bids": bids.numpy()})[0], expected, atol=1e-6)


def test_help_needs_no_torch() -> None:
    code = "import sys, regretformer.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert "--regret-budget" in call("train", "--help").stdout


def test_smooth_is_a_running_mean() -> None:
    assert smooth(np.array([1.0, 3.0, 5.0, 7.0]), window=2).tolist() == [1.0, 2.0, 4.0, 6.0]
