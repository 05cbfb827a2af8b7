"""What is committed under results/, and the README that quotes it."""

import importlib.util
import json
from pathlib import Path

import pytest
from gt_core.pretrained import names, read

from mediated_marl.config import TrainConfig
from mediated_marl.markov_config import MarkovConfig
from mediated_marl.markov_report import evaluate_markov_run
from mediated_marl.markov_table import markov_row
from mediated_marl.published import PUBLISHED
from mediated_marl.report import audit_run, load_config, load_pretrained
from mediated_marl.table import over_seeds, row

PACKAGE = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in PACKAGE.glob("results/*/result.json"))
ONE_STEP = [run for run in RUNS if isinstance(load_config(run), TrainConfig)]
SEVERAL_STEPS = [run for run in RUNS if isinstance(load_config(run), MarkovConfig)]
ENUMERATED = [run for run in SEVERAL_STEPS if load_config(run).game in ("two-step-pd", "coin")]


def test_readme_quotes_the_committed_results():
    spec = importlib.util.spec_from_file_location("table", PACKAGE / "results" / "table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    readme = (PACKAGE / "README.md").read_text()
    assert module.updated(readme) == readme, "run results/table.py --write"
    front = module.FRONT.read_text()
    assert module.with_headline(front) == front, "run results/table.py --write"
    assert read(module.PRETRAINED) == module.shipped(), "run results/table.py --write"


@pytest.mark.parametrize("run", ONE_STEP, ids=lambda run: run.name)
def test_committed_model_is_worth_what_its_result_says(run):
    result, audited = json.loads((run / "result.json").read_text()), audit_run(run)
    assert audited["reward_per_seed"] == pytest.approx(result["reward_per_seed"], abs=1e-6)
    assert audited["deviation_gain_max"] == pytest.approx(result["deviation_gain_max"], abs=1e-6)


@pytest.mark.parametrize("run", SEVERAL_STEPS, ids=lambda run: run.name)
def test_committed_model_plays_as_its_result_says(run):
    """Within five standard errors, at least 2 per cent: the audit's figures are from 32 episodes, these from 100."""
    config, result = load_config(run), json.loads((run / "result.json").read_text())
    played = evaluate_markov_run(run, 100, seed=1)
    audited, said = played["return_per_seed"], result["return_per_seed"]
    for one, other, error in zip(audited, said, played["return_error_per_seed"], strict=True):
        assert one == pytest.approx(other, abs=5 * error * (1 + 100 / 32) ** 0.5 + 0.02 * (1 + abs(other)))
    choices = config.seeds * result["n_agents"]
    for one, other in zip(played["commitment_by_step"], result["commitment_by_step"], strict=True):
        pooled = (100 * one + 32 * other) / 132  # the fewer may have seen no exception at all
        variance = pooled * (1 - pooled) * (1 / 100 + 1 / 32) / choices
        assert one == pytest.approx(other, abs=5 * variance**0.5 + 0.002)


@pytest.mark.parametrize("run", ENUMERATED, ids=lambda run: run.name)
def test_committed_model_of_an_enumerated_game_is_worth_what_its_result_says(run):
    result, audited = json.loads((run / "result.json").read_text()), audit_run(run)
    for name in ("return_per_seed", "deviation_gain_per_seed", "commitment_by_step"):
        assert audited[name] == pytest.approx(result[name], abs=1e-4)


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


def test_committed_iterated_runs_under_encouragement_reach_the_largest_balance():
    equal, random = (
        json.loads((PACKAGE / "results" / run / "result.json").read_text())
        for run in ("iterated-pgg-e", "iterated-pgg-random-e")
    )
    assert over_seeds(equal["balance_per_seed"])[0] >= 55  # exact 57.665
    assert over_seeds(random["balance_per_seed"])[0] >= 27  # 28.8 on average, if all always contribute
    for one in (equal, random):
        assert over_seeds(one["deviation_gain_share_per_seed"])[0] <= 0.01


def test_committed_coin_game_is_worth_more_with_a_mediator():
    none, naive, constrained = (
        markov_row(load_config(run), json.loads((run / "result.json").read_text()))
        for run in (PACKAGE / "results" / f"coin-{mediator}" for mediator in ("none", "naive", "constrained"))
    )
    assert none["welfare"][2] < 0.5  # the end of the interval; exact 0
    assert naive["welfare"][0] > 10  # exact 11.06
    assert constrained["welfare"][1] > 10  # the beginning of the interval
    assert constrained["deviation_gain_share"][0] <= 0.03


@pytest.mark.parametrize("n_agents", [3, 10])
def test_committed_runs_of_the_paper_reproduce_its_cells(n_agents):
    run = PACKAGE / "results" / f"paper-e-{n_agents}"
    figures = row(load_config(run), json.loads((run / "result.json").read_text()))
    published = PUBLISHED["e", n_agents]
    assert figures["reward"][0] == pytest.approx(published.reward, abs=0.03)
    assert figures["commitment"][0] == pytest.approx(published.commitment, abs=0.03)


@pytest.mark.parametrize("name", names("mediated_marl"))
def test_what_ships_is_opened_by_name_and_audited(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    policies = load_pretrained(name)
    assert policies.agents.shape == (10, policies.game.n_agents, policies.game.n_actions + 1)
    assert audit_run(Path("pretrained") / name)["deviation_gain_max"] < 1e-3
