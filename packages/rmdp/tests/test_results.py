"""What is committed under results/, and the README that quotes it."""

import dataclasses
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from gt_core.pretrained import names, read

from rmdp import load_pretrained
from rmdp.config import PRESETS
from rmdp.setup import build_population
from rmdp.train import evaluate_model, load_model

PACKAGE = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in PACKAGE.glob("results/*/seed*/result.json"))


def script(name):
    spec = importlib.util.spec_from_file_location(name, PACKAGE / "results" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ablations_run_once_and_are_tabulated(tmp_path, capsys):
    ablations, file = script("ablations"), tmp_path / "ablations.json"
    typed = ["--preset", "smoke", "--k", "2", "--iterations", "1", "--file", str(file)]
    ablations.main([*typed, "--only", "ours", "sigma", "pinned", "truncation"])
    runs = json.loads(file.read_text())
    assert [run["variant"] for run in runs] == ["ours", "sigma", "pinned", "truncation"]
    assert all(0 <= run["welfare"] <= run["ceiling"] for run in runs)
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 2 + 4
    assert f"| as it is | 1 | {runs[0]['welfare']:.4g} | +0% |" in first
    ablations.main([*typed, "--only", "ours"])
    assert json.loads(file.read_text()) == runs


def test_fixed_noise_stays_and_pinned_users_too():
    ablations = script("ablations")
    config = dataclasses.replace(PRESETS["smoke"], iterations=2, hidden=(8, 8))
    for kind, stays in ((ablations.EM, False), (ablations.FixedSigma, True)):
        learner = kind(config, build_population(config))
        learner.iterate()
        sigma = learner.representatives.policies.log_sigma.detach().exp()
        assert bool((sigma == sigma.flatten()[0]).all()) == stays
    before, after = np.array([0, 0, 1, 1, 0]), np.array([1, 1, 0, 0, 1])
    assert ablations.pinned(before, after).tolist() == [1, 1, 0, 1, 0]


def test_losses_add_up_and_are_those_of_the_model():
    run = PACKAGE / "results" / "HalfCheetah-v4-k1-em" / "seed0"
    stored = json.loads((run / "losses.json").read_text())
    found = script("losses").losses(load_model(run))
    assert found == pytest.approx(stored, abs=0.01)  # other processors, other last digits
    lost = [found[name] for name in ("clusters", "offset", "ripple", "start")]
    assert sum(lost) == pytest.approx(found["ceiling"] - found["welfare"])
    assert min(lost[:3]) > -1e-9


def test_readme_quotes_the_committed_results():
    module = script("table")
    readme = (PACKAGE / "README.md").read_text()
    assert module.updated(readme) == readme, "run results/table.py --write"
    front = module.FRONT.read_text()
    assert module.with_headline(front) == front, "run results/table.py --write"
    assert read(module.PRETRAINED) == module.shipped(), "run results/table.py --write"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_committed_model_is_worth_what_its_result_says(run):
    result = json.loads((run / "result.json").read_text())
    # robots that fall end an episode early, so that two of them say less
    tolerance = {"resource-gathering": 0.02, "HalfCheetah-v4": 0.1}.get(result["env"], 0.25)
    figures = evaluate_model(load_model(run), seed=1, episodes=2)
    assert figures["welfare"] == pytest.approx(result["welfare"], rel=tolerance)
    assert figures["assignment"] == result["assignment"]
    assert figures["ceiling"] == pytest.approx(result["ceiling"])


@pytest.mark.parametrize("name", names("rmdp"))
def test_what_ships_is_opened_by_name_and_serves_its_users(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    trained, model = load_model(Path("pretrained") / name), load_pretrained(name)
    assert evaluate_model(trained, episodes=1) == model.evaluate(episodes=1)
