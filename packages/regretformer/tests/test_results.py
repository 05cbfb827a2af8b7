"""What is committed under results/, and the README that quotes it."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from gt_core.pretrained import names, read
from gt_core.seeding import Streams

from regretformer.api import load_pretrained
from regretformer.evaluate import measure_revenue
from regretformer.mechanisms import draw_named
from regretformer.networks.build import build
from regretformer.report import load_config, load_network
from regretformer.valuations import UniformValuations

PACKAGE = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in PACKAGE.glob("results/*/seed*/result.json"))
DISTILLATIONS = sorted(path.parent for path in PACKAGE.glob("results/distillation/*/result.json"))
CROSSED = sorted(PACKAGE.glob("results/cross-misreports/*.json"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, PACKAGE / "results" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_quotes_the_committed_results() -> None:
    module = script("table")
    readme = (PACKAGE / "README.md").read_text()
    assert module.updated(readme) == readme, "run results/table.py --write"
    front = module.FRONT.read_text()
    assert module.with_headline(front) == front, "run results/table.py --write"
    assert read(module.PRETRAINED) == module.shipped(), "run results/table.py --write"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_committed_model_earns_what_its_result_says(run: Path) -> None:
    result, network = json.loads((run / "result.json").read_text()), load_network(run)
    for auction in load_config(run).auctions:
        path = f"{auction.name}/" if "settings" in result else ""
        with torch.no_grad():
            revenue, error = measure_revenue(network, UniformValuations(auction), 20_000, Streams(1))
        assert revenue == pytest.approx(result[f"{path}revenue"], abs=5 * error)
    assert result["regret_sum_over_revenue"] <= result["regret_budget"] or result["constraint"] == "augmented"


@pytest.mark.parametrize("run", DISTILLATIONS, ids=lambda run: run.name)
def test_committed_student_earns_what_its_result_says(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    valuations = UniformValuations(load_config(run).auction)
    with torch.no_grad():
        revenue, error = measure_revenue(load_network(run), valuations, 20_000, Streams(1))
    assert revenue == pytest.approx(result["student_revenue"], abs=5 * error)
    assert len(result["teacher"].split("/")) == 2  # it ships, so that the command can be repeated


@pytest.mark.parametrize("file", CROSSED, ids=lambda file: file.stem)
def test_budget_holds_on_the_misreports_against_any_network(file: Path) -> None:
    """And not for the published networks, each of which has several times its budget of 0.001."""
    table = json.loads(file.read_text())
    shares = torch.tensor(table["regret_sum_over_revenue"])
    assert shares.shape == (len(table["mechanisms"]),) * 2
    for column, name in enumerate(table["mechanisms"]):
        assert (shares[:, column].max() <= 1e-3) == (not name.startswith("published")), name


def test_cross_misreports_measures_committed_and_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = build("regretnet", 1, 2, seed=0).state_dict()
    renamed = {name.replace("allocation_", "alloc_").replace("payment_", "pay_"): w for name, w in ours.items()}
    torch.save(renamed, tmp_path / "RegretNet_1x2_seed0.pt")
    typed = ["1x2", "--valuations", "20", "--published", str(tmp_path), "--folder", str(tmp_path / "new")]
    script("cross_misreports").main(typed)
    table = json.loads((tmp_path / "new" / "1x2.json").read_text())
    assert table["mechanisms"] == ["RegretNet", "EquivariantNet", "RegretFormer", "published RegretNet"]
    assert table["regret_sum"][3][3] > 100 * table["regret_sum"][2][2]  # it never learnt
    assert (table["attack"], table["n_valuations"], table["seed"]) == ("grid", 20, 0)
    assert {"command", "seconds", "version_torch", "hardware_cpu"} < table.keys()
    assert capsys.readouterr().out.startswith("| misreports against | regret of RegretNet |")


def test_readme_code_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The learnt auction of the README sells both items for a little less than the exact one."""
    monkeypatch.chdir(PACKAGE.parents[1])
    learning, opening = re.findall(r"```python\n(.*?)```", (PACKAGE / "README.md").read_text(), re.DOTALL)
    exec(compile(learning, "README.md", "exec"), names := {})
    assert capsys.readouterr().out == "['optimum', 'mine', 'vcg']\n"
    assert names["payments"].item() > 0.3
    exec(compile(opening, "README.md", "exec"), {})
    assert "payments=tensor([[0.8619]])" in capsys.readouterr().out


def test_what_ships_is_opened_by_name_and_drawn_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in names("regretformer"):
        setting = load_config(Path("pretrained") / name).auction
        allocation, payments = load_pretrained(name)(setting.high[0] * torch.ones(1, setting.bidders, setting.items))
        assert allocation.sum() > 0.9 * setting.items
        assert payments.sum() > 0
    assert [file.name for file in draw_named("pretrained/1x2")] == ["allocation.png", "regret.png"]
    assert (tmp_path / "pretrained/1x2/plots/allocation.png").is_file()
