"""What is committed under results/, and the README that quotes it."""

import importlib.util
import json
from pathlib import Path

import pytest

from rmdp.train import evaluate_model, load_model

PACKAGE = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in PACKAGE.glob("results/*/seed*/result.json"))


def test_readme_quotes_the_committed_results():
    spec = importlib.util.spec_from_file_location("table", PACKAGE / "results" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (PACKAGE / "README.md").read_text()
    assert module.updated(readme) == readme, "run results/table.py --write"


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")
def test_committed_model_is_worth_what_its_result_says(run):
    result = json.loads((run / "result.json").read_text())
    walks = result["env"] == "resource-gathering"
    figures = evaluate_model(load_model(run), seed=1, episodes=1 if walks else 2)
    assert figures["welfare"] == pytest.approx(result["welfare"], rel=0.02 if walks else 0.1)
    assert figures["assignment"] == result["assignment"]
    assert figures["ceiling"] == pytest.approx(result["ceiling"])
