import dataclasses
import itertools
import math
from pathlib import Path

import pytest
import torch
from gt_core.errors import InputError
from gt_core.run import Run

from regretformer.auction import utilities
from regretformer.config import PRESETS, TrainConfig
from regretformer.train import Trainer, build_network, deviation_gain, draw_batch, find_misreports, screen, train

SMOKE = PRESETS["smoke"]


def trainer(**changes: object) -> Trainer:
    return Trainer(dataclasses.replace(SMOKE, **changes))  # type: ignore[arg-type]


def batch_of(learner: Trainer, bidder: int) -> tuple[object, ...]:
    return draw_batch(learner.config, learner.valuations, bidder, learner.streams)


@pytest.mark.parametrize(("setting", "groups"), [("1x2", 1), ("2x3", 4), ("3x1", 4)])
def test_batch_groups_share_their_opponents(setting: str, groups: int) -> None:
    learner = trainer(setting=setting)
    for bidder in range(learner.config.auction.bidders):
        profiles, candidates, who = batch_of(learner, bidder)
        assert profiles.shape == (groups, 64 // groups, learner.config.auction.bidders, learner.config.auction.items)
        assert candidates.shape == (groups, 64 // groups, learner.config.auction.items)
        assert who == bidder
        others = [other for other in range(profiles.shape[2]) if other != bidder]
        assert torch.equal(profiles[:, :, others], profiles[:, :1, others].expand_as(profiles[:, :, others]))
        assert profiles[:, :, bidder].flatten().unique().numel() == 64 * learner.config.auction.items


@pytest.mark.parametrize("setting", ["1x2", "2x2"])
def test_screen_finds_the_best_of_values_and_candidates(setting: str) -> None:
    """Against every pair of profile and report, one at a time."""
    learner = trainer(setting=setting, batch=8, values_per_group=4, candidates=6)
    batch = draw_batch(learner.config, learner.valuations, learner.config.auction.bidders - 1, learner.streams)
    truthful = learner.network(batch.profiles.flatten(0, 1))
    found = screen(learner.network, batch, truthful).unflatten(0, batch.profiles.shape[:2])
    for group, index in itertools.product(range(batch.profiles.shape[0]), range(batch.profiles.shape[1])):
        profile = batch.profiles[group, index]
        reports = torch.cat([batch.profiles[group, :, batch.bidder], batch.candidates[group]])
        gains = []
        for report in (*reports, found[group, index]):
            changed = profile.clone()
            changed[batch.bidder] = report
            gains.append(utilities(profile[None], learner.network(changed[None]))[0, batch.bidder].item())
        assert gains[-1] == pytest.approx(max(gains[:-1]), abs=1e-6)


def test_ascent_never_loses_against_the_screened_report() -> None:
    learner = trainer(setting="2x2", ascent_steps=5)
    batch = draw_batch(learner.config, learner.valuations, 0, learner.streams)
    truthful = learner.network(batch.profiles.flatten(0, 1))
    screened = deviation_gain(learner.network, batch, truthful, screen(learner.network, batch, truthful))
    reports = find_misreports(learner.network, learner.valuations, batch, truthful, learner.config)
    ascended = deviation_gain(learner.network, batch, truthful, reports)
    assert (ascended >= screened - 1e-6).all()
    assert ascended.mean() > screened.mean()
    assert all(parameter.requires_grad for parameter in learner.network.parameters())


def test_iteration_by_hand() -> None:
    """One iteration equals the formulas: gamma first, then Adam on -P + gamma R."""
    learner, twin = trainer(clip_norm=1e9), trainer(clip_norm=1e9)
    figures = learner.iterate()

    batch = draw_batch(twin.config, twin.valuations, 0, twin.streams)
    truthful = twin.network(batch.profiles.flatten(0, 1))
    reports = find_misreports(twin.network, twin.valuations, batch, truthful, twin.config)
    revenue = truthful.payments.sum() / 64
    regret = deviation_gain(twin.network, batch, truthful, reports).sum() / 64
    ratio = (regret / revenue).item()
    gamma = max(0.0, 1 + 0.5 * math.log(max(ratio / (twin.config.budget_margin * 0.01), 1e-2)))
    (gamma * regret - revenue).backward()
    torch.optim.Adam(twin.network.parameters(), lr=twin.config.learning_rate).step()

    assert figures["train/revenue"] == pytest.approx(revenue.item())
    assert figures["train/regret_over_revenue"] == pytest.approx(ratio)
    assert figures["dual/multiplier"] == pytest.approx(gamma)
    assert figures["dual/budget"] == 0.01
    for mine, theirs in zip(learner.network.parameters(), twin.network.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-7)


@pytest.mark.parametrize("net", ["regretformer", "equivariantnet", "regretnet"])
@pytest.mark.parametrize("setting", ["1x2", "416x47", "2x3"])
def test_every_network_learns_in_every_setting(net: str, setting: str) -> None:
    """Forty iterations without a constraint to speak of raise revenue, in units of the setting's values."""
    learner = trainer(
        net=net, setting=setting, regret_budget=10.0, budget_start=10.0, learning_rate=5e-3, iterations=60
    )
    revenues = [learner.iterate()["train/revenue"] / sum(learner.config.auction.high) for _ in range(40)]
    assert sum(revenues[-5:]) > sum(revenues[:5]) + 0.1


def test_network_sees_a_wide_support_as_the_unit_box() -> None:
    """With the weights of 1x2, the network of 416x47 allocates v as the other allocates v scaled to the unit box."""
    wide, unit = (build_network(trainer(setting=setting, net="regretnet").config) for setting in ("416x47", "1x2"))
    values = torch.rand(8, 1, 2, generator=torch.Generator().manual_seed(0))
    scaled = torch.tensor([4.0, 4.0]) + torch.tensor([12.0, 3.0]) * values
    with torch.no_grad():
        assert torch.allclose(wide(scaled).allocation, unit(values).allocation, atol=1e-5)


def test_training_is_deterministic_and_its_seed_matters() -> None:
    paths = []
    for seed in (0, 0, 1):
        learner = trainer(seed=seed)
        paths.append([learner.iterate() for _ in range(4)])
    assert paths[0] == paths[1]
    assert paths[0] != paths[2]


def test_training_leaves_global_randomness_alone() -> None:
    before = torch.random.get_rng_state()
    trainer().iterate()
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_raises_revenue_within_the_budget(tmp_path: Path) -> None:
    """Some hundred iterations on one item come near Myerson's 0.25 at honest regret of the size of the budget."""
    config = dataclasses.replace(
        SMOKE, setting="1x1", iterations=400, batch=128, candidates=128, learning_rate=5e-3, regret_budget=1e-2,
        out_dir=str(tmp_path / "run"),
    )  # fmt: skip
    network = train(Run(config, resume=False), config)
    values = torch.linspace(0, 1, 501).reshape(-1, 1, 1)
    with torch.no_grad():
        allocation, payments = network(values)
    gains = values[:, 0] * allocation[:, 0, 0] - payments[:, 0]  # every value (row) against every report (column)
    regret = (gains.amax(1) - gains.diagonal()).mean().item()
    revenue = payments.mean().item()
    assert revenue > 0.22
    assert regret / revenue < 2e-2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regret_budget": 0.0}, "regret_budget must be positive and finite, got 0.0"),
        ({"regret_budget": math.nan}, "regret_budget must be positive and finite, got nan"),
        ({"regret_budget": math.inf}, "regret_budget must be positive and finite, got inf"),
        ({"learning_rate": -1.0}, "learning_rate must be positive and finite, got -1.0"),
        ({"setting": "1x0"}, "got '1x0'"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"ascent_steps": -1}, "ascent_steps must be at least 0, got -1"),
        ({"budget_until": 1.5}, r"budget_until must lie in \(0, 1\], got 1.5"),
        ({"budget_start": 1e-4}, "budget_start 0.0001 is below regret_budget 0.001"),
        (
            {"setting": "2x2", "batch": 100, "values_per_group": 32},
            "batch 100 must be a multiple of values_per_group 32",
        ),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_config_refuses_and_names(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(TrainConfig(), **changes)  # type: ignore[arg-type]
