"""What is committed under results/, and the README that quotes it."""

import importlib.util
import json
from pathlib import Path

import pytest

from mediated_marl.config import TrainConfig
from mediated_marl.markov_config import MarkovConfig
from mediated_marl.markov_report import evaluate_markov_run
from mediated_marl.report import audit_run, load_config
from mediated_marl.table import PUBLISHED, over_seeds, row

PACKAGE = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in PACKAGE.glob("results/*/result.json"))
ONE_STEP = [run for run in RUNS if isinstance(load_config(run), TrainConfig)]
SEVERAL_STEPS = [run for run in RUNS if isinstance(load_config(run), MarkovConfig)]


def test_readme_quotes_the_committed_results():
    spec = importlib.util.spec_from_file_location("table", PACKAGE / "results" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (PACKAGE / "README.md").read_text()
    assert module.updated(readme) == readme, "run results/table.py --write"


@pytest.mark.parametrize("run", ONE_STEP, ids=lambda run: run.name)
def test_committed_model_is_worth_what_its_result_says(run):
    result, audited = json.loads((run / "result.json").read_text()), audit_run(run)
    assert audited["reward_per_seed"] == pytest.approx(result["reward_per_seed"], abs=1e-6)
    assert audited["deviation_gain_max"] == pytest.approx(result["deviation_gain_max"], abs=1e-6)


@pytest.mark.parametrize("run", SEVERAL_STEPS, ids=lambda run: run.name)
def test_committed_model_plays_as_its_result_says(run):
    result, played = json.loads((run / "result.json").read_text()), evaluate_markov_run(run, 100, seed=1)
    scale = 1 + max(map(abs, result["return_per_seed"]))  # the audit's figure may itself come from few episodes
    assert played["return_per_seed"] == pytest.approx(result["return_per_seed"], abs=0.25 * scale)
    assert played["commitment_by_step"] == pytest.approx(result["commitment_by_step"], abs=0.1)


@pytest.mark.parametrize("n_agents", [3, 10, 25])
def test_committed_sampled_runs_reach_the_optimum(n_agents):
    run = PACKAGE / "results" / f"sampled-e-{n_agents}"
    figures = row(load_config(run), json.loads((run / "result.json").read_text()))
    assert figures["reward"][0] >= 0.95
    assert figures["next_to_grand"][0] <= figures["next_to_grand_bound"] + 0.01


def test_committed_sampled_sacrifice_pays_agent_1_what_it_would_have_outside():
    result = json.loads((PACKAGE / "results" / "sampled-sacrifice" / "result.json").read_text())
    welfare, agent_1 = zip(*((sum(one), one[1]) for one in result["payoffs_per_seed"]), strict=True)
    assert over_seeds(list(welfare))[0] >= 4.4  # exact 4.5
    assert min(agent_1) >= 0.98  # on every seed; exact 1


@pytest.mark.parametrize("n_agents", [3, 10])
def test_committed_runs_of_the_paper_reproduce_its_cells(n_agents):
    run = PACKAGE / "results" / f"paper-e-{n_agents}"
    figures = row(load_config(run), json.loads((run / "result.json").read_text()))
    published = PUBLISHED["e", n_agents]
    assert figures["reward"][0] == pytest.approx(published.reward, abs=0.03)
    assert figures["commitment"][0] == pytest.approx(published.commitment, abs=0.03)
