"""The commands on mechanisms, in this process: torch takes seconds to import in another."""

import contextlib
import io
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import onnxruntime
import pytest
import torch

from regretformer import cli
from regretformer.networks.build import build


def call(command: str, *args: object) -> str:
    """What a command prints."""
    name = {"eval": "evaluate", "import": "import_official"}.get(command, command.replace("-", "_"))
    line = [f"regretformer-{command}", *map(str, args)]
    with mock.patch.object(sys, "argv", line), contextlib.redirect_stdout(io.StringIO()) as printed:
        getattr(cli, name)()
    return printed.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "learnt"
    call("train", "--preset", "smoke", "--net", "regretnet", "--iterations", 100, "--out-dir", directory)
    return directory


def test_plot_draws_again_and_elsewhere(run: Path, tmp_path: Path) -> None:
    (run / "plots" / "regret.png").unlink()
    files = json.loads(call("plot", run, "--json"))["files"]
    assert sorted(files) == sorted(str(path) for path in (run / "plots").iterdir())
    assert str(run / "plots" / "regret.png") in files
    drawn = call("plot", "optimum", "--setting", "1x2", "--out", tmp_path).split()
    assert drawn == [str(tmp_path / "allocation.png"), str(tmp_path / "regret.png")]


def test_compare_ranks_a_run_beside_known_auctions_and_draws(run: Path, tmp_path: Path) -> None:
    options = (run, "vcg", "optimum", "--valuations", 20, "--out", tmp_path / "frontier.png")
    rows = {row["mechanism"]: row for row in json.loads(call("compare", *options, "--json"))}
    assert rows["vcg"]["revenue"] == rows["vcg"]["regret_max"] == 0
    assert rows["optimum"]["regret_max"] <= 1e-6
    assert (rows["learnt"]["net"], rows["learnt"]["attack"]) == ("regretnet", "grid")
    assert (tmp_path / "frontier.png").stat().st_size > 10_000
    table = call("compare", "vcg", "--setting", "1x2", "--valuations", 20)
    assert table.splitlines()[2].startswith("| vcg | 0.0000 ± 0.0000 | 0.000000 ± 0.000000 |")


def test_cross_misreport_prints_a_square(run: Path) -> None:
    table = json.loads(call("cross-misreport", run, "optimum", "--valuations", 50, "--json"))
    assert table["mechanisms"] == ["learnt", "optimum"]
    assert table["regret_sum"][0][0] > 0
    assert table["regret_sum"][1] == [0, 0]
    assert table["regret_sum"][0][1] == pytest.approx(0, abs=1e-6)
    alone = call("cross-misreport", run, "--valuations", 50)
    assert f"{table['regret_sum_over_revenue'][0][0]:.6f}" in alone


def test_distill_leaves_a_student_that_other_commands_open(run: Path, tmp_path: Path) -> None:
    student = tmp_path / "student"
    shown = call("distill", run, "--preset", "smoke", "--out-dir", student)
    result = json.loads((student / "result.json").read_text())
    assert all(not isinstance(value, dict) for value in result.values())
    assert (result["teacher"], result["net"], result["setting"]) == (str(run), "regretnet", "1x2")
    assert f"{result['student_revenue']:.4f}" in shown
    drawn = {path.name for path in (student / "plots").iterdir()}
    assert drawn == {"allocation.png", "learning_curve.png", "regret.png"}
    assert call("distill", "--out-dir", student, "--resume") == shown
    judged = json.loads(call("eval", student, "--valuations", 50, "--json"))
    assert (judged["net"], judged["preset"]) == ("regretnet", "distilled")


def test_import_and_export_go_through_a_directory(tmp_path: Path) -> None:
    network = build("regretnet", 1, 2, seed=0)
    entries = {
        name.replace("allocation", "alloc").replace("payment", "pay"): entry
        for name, entry in network.state_dict().items()
    }
    torch.save(entries, tmp_path / "net.pt")
    options = (tmp_path / "net.pt", "--setting", "1x2", "--out", tmp_path / "net")
    done = json.loads(call("import", *options, "--json"))
    assert done == {"directory": str(tmp_path / "net"), "net": "RegretNet", "setting": "1x2", "parameters": 21_305}
    done = json.loads(call("export", tmp_path / "net", "--json"))
    assert done == {"file": str(tmp_path / "net" / "mechanism.onnx"), "setting": "1x2", "any_size": False}
    session = onnxruntime.InferenceSession(done["file"], providers=["CPUExecutionProvider"])
    bids = torch.rand(5, 1, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(bids).payments.numpy()
    assert np.allclose(session.run(["payments"], {"bids": bids.numpy()})[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("compare", (), "no mechanism is given; name directories of finished runs, or vcg"),
        ("compare", ("vgc", "--setting", "1x2"), "vgc holds no run"),
        ("cross-misreport", ("vcg",), "has no setting of its own: give --setting"),
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
    with contextlib.redirect_stderr(io.StringIO()) as printed, pytest.raises(SystemExit) as stop:
        call(command, *args)
    assert stop.value.code == 2
    assert message in printed.getvalue()
    assert list(tmp_path.iterdir()) == []
