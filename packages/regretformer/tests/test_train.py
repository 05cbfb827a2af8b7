import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from gt_core.checkpoint import load_checkpoint, save_checkpoint
from gt_core.config import read_config, to_dict
from gt_core.errors import InputError
from gt_core.files import write_json
from gt_core.run import Run
from torch.distributions import Beta

from regretformer.config import PRESETS, TrainConfig
from regretformer.deviations import gains
from regretformer.marginals import from_torch, uniform
from regretformer.pool_search import PoolSearch
from regretformer.published_search import PublishedSearch
from regretformer.report import load_network
from regretformer.train import Trainer, build_network, train
from regretformer.valuations import IndependentValuations

SMOKE = PRESETS["smoke"]


def trainer(**changes: object) -> Trainer:
    return Trainer(dataclasses.replace(SMOKE, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["relative", "published"])
def test_iteration_by_hand(loss: str) -> None:
    """One iteration equals the formulas: gamma first, then Adam on -ln P + gamma R / P, or on -P + gamma R."""
    learner, twin = (trainer(clip_norm=1e9, loss=loss, multiplier_start=2.0) for _ in range(2))
    figures = learner.iterate()

    found = twin.searches[0].find(twin.network)
    revenue = found.truthful.payments.sum() / 64
    regret = gains(twin.network, found)[0].sum() / 64
    ratio = (regret / revenue).item()
    gamma = max(0.0, 2 + twin.config.dual_rate * math.log(max(ratio / (twin.config.budget_margin * 0.01), 1e-2)))
    (gamma * regret - revenue if loss == "published" else gamma * regret / revenue - revenue.log()).backward()
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


def network_for(setting: str, **changes: object) -> torch.nn.Module:
    return trainer(setting=setting, **changes).network


def test_network_sees_a_wide_support_as_the_unit_box() -> None:
    """With the weights of 1x2, the network of 416x47 allocates v as the other allocates v scaled to the unit box."""
    wide, unit = (network_for(setting, net="regretnet") for setting in ("416x47", "1x2"))
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
    network = train(Run(config, resume=False), Trainer(config))
    values = torch.linspace(0, 1, 501).reshape(-1, 1, 1)
    with torch.no_grad():
        allocation, payments = network(values)
    gains = values[:, 0] * allocation[:, 0, 0] - payments[:, 0]  # every value (row) against every report (column)
    regret = (gains.amax(1) - gains.diagonal()).mean().item()
    revenue = payments.mean().item()
    assert revenue > 0.22
    assert regret / revenue < 2e-2


RECIPES = {
    "pool": {"setting": "2x2", "ascent_steps": 1, "pool_batches": 2, "pool_visits": 2},
    "pool, one bidder": {"setting": "1x2", "pool_batches": 2, "pool_visits": 2},
    "augmented": {"setting": "2x2", "constraint": "augmented", "iterations": 4000},
    "published": {"setting": "2x2", "search": "published", "ascent_steps": 2, "dataset_batches": 3},
    "mixture": {"setting": "1x1..2x2", "net": "equivariantnet"},
    "mixture, published and augmented": {
        "setting": "1x1..2x2", "search": "published", "ascent_steps": 1, "dataset_batches": 2,
        "constraint": "augmented", "net": "equivariantnet",
    },
}  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("stopped", [3, 4])
def test_resumed_training_equals_uninterrupted_training(recipe: str, stopped: int, tmp_path: Path) -> None:
    straight, before, after = (trainer(**RECIPES[recipe]) for _ in range(3))
    expected = [straight.iterate() for _ in range(8)]
    figures = [before.iterate() for _ in range(stopped)]
    save_checkpoint(tmp_path / "stopped", before.state_dict())
    after.load_state_dict(load_checkpoint(tmp_path / "stopped"))
    figures += [after.iterate() for _ in range(8 - stopped)]
    assert figures == expected
    for search, resumed in zip(straight.searches, after.searches, strict=True):
        if isinstance(search, PublishedSearch):
            assert isinstance(resumed, PublishedSearch)
            assert torch.equal(search.misreports, resumed.misreports)
        if isinstance(search, PoolSearch):
            assert isinstance(resumed, PoolSearch)
            for pool, other in zip(search.pools, resumed.pools, strict=True):
                for name, value in pool.state_dict().items():
                    assert torch.equal(torch.as_tensor(value), torch.as_tensor(other.state_dict()[name])), name
    for mine, theirs in zip(straight.network.parameters(), after.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("net", ["regretformer", "equivariantnet"])
def test_mixture_trains_on_every_setting(net: str) -> None:
    learner = trainer(setting="1x2..2x3", net=net, batch=16, candidates=16)
    rows = [learner.iterate() for _ in range(24)]
    assert [valuations.setting.name for valuations in learner.valuations] == ["1x2", "1x3", "2x2", "2x3"]
    counts = np.bincount([int(row["train/setting"]) for row in rows], minlength=4)
    assert counts.sum() == 24
    assert counts.min() >= 2
    for index, search in enumerate(learner.searches):
        assert search.state_dict()["batches"] == counts[index]
    with torch.no_grad():
        assert learner.network(torch.rand(2, 3, 8)).allocation.shape == (2, 3, 8)  # and takes any other
    assert learner.network.input_layer.rivals
    for told_apart in ("none", "sizes"):
        network = trainer(setting="1x2..2x3", net=net, told_apart=told_apart).network
        assert not network.input_layer.rivals
        assert (network.positions.sizes is None) == (told_apart == "none")


def test_training_does_not_depend_on_the_currency() -> None:
    """A thousand times the values: the same path in ratios and shares, and a thousand times the revenue."""
    unit, thousand = trainer(setting="2x2"), trainer(setting="2x2", high=(1000.0,))
    for _ in range(6):
        one, other = unit.iterate(), thousand.iterate()
        assert other["train/revenue"] == pytest.approx(1000 * one["train/revenue"], rel=1e-4)
        assert other["train/regret_over_revenue"] == pytest.approx(one["train/regret_over_revenue"], rel=1e-3)
        assert other["dual/multiplier"] == pytest.approx(one["dual/multiplier"], rel=1e-3)


@pytest.mark.parametrize("net", ["regretformer", "equivariantnet"])
@pytest.mark.parametrize("told_apart", ["none", "bidders", "items", "both", "sizes", "rivals"])
def test_a_kept_network_is_told_what_it_was(net: str, told_apart: str, tmp_path: Path) -> None:
    options = {"setting": "2x2", "net": net, "told_apart": told_apart, "iterations": 2, "out_dir": str(tmp_path)}
    config = dataclasses.replace(SMOKE, **options)  # type: ignore[arg-type]
    network = train(Run(config, resume=False), Trainer(config))
    bids = torch.rand(5, 2, 2)
    torch.testing.assert_close(load_network(tmp_path)(bids), network(bids), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("marginals", "told_apart"),
    [
        ([[0, 0], [0, 0]], "none"),
        ([[0, 1], [0, 1]], "items"),
        ([[0, 0], [1, 1]], "bidders"),
        ([[0, 1], [1, 0]], "both"),
    ],
)
def test_network_tells_apart_whom_the_valuations_do_not_make_alike(marginals: list[list[int]], told_apart: str) -> None:
    laws = [uniform(0, 1), from_torch(Beta(2.0, 2.0))]
    valuations = IndependentValuations([[laws[index] for index in row] for row in marginals])
    positions = build_network(SMOKE, valuations).positions
    assert (positions.bidders is not None) == (told_apart in ("bidders", "both"))
    assert (positions.items is not None) == (told_apart in ("items", "both"))
    none = build_network(dataclasses.replace(SMOKE, told_apart="none"), valuations).positions
    assert none.bidders is None
    assert none.items is None


@pytest.mark.parametrize(
    ("net", "parameters"), [("regretformer", 49_985 + 6 * 64), ("equivariantnet", 16_930 + 6 * 32)]
)
def test_network_of_a_mixture_is_small_if_it_attends(net: str, parameters: int) -> None:
    """RegretFormer's shape is that of 2x3, EquivariantNet's of 3x7; six more columns for two numbers and the rivals."""
    largest = IndependentValuations([[uniform(0, 1)] * 7] * 3)
    network = build_network(dataclasses.replace(SMOKE, net=net, setting="2x3..3x7"), largest)  # type: ignore[arg-type]
    assert sum(weights.numel() for weights in network.parameters()) == parameters


@pytest.mark.parametrize(
    ("entries", "shape"),
    [([[(0, 1)] * 2] * 2, None), ([[(0, 5)] * 2] * 2, ()), ([[(0, 5), (1, 2)]] * 2, (2,)),
     ([[(0, 5), (1, 2)], [(0, 5), (1, 3)]], (2, 2))],
)  # fmt: skip
def test_network_is_given_the_support_in_as_few_numbers_as_hold_it(
    entries: list[list[tuple[float, float]]], shape: tuple[int, ...] | None
) -> None:
    valuations = IndependentValuations([[uniform(*entry) for entry in row] for row in entries])
    normalisation = build_network(SMOKE, valuations).normalisation
    assert (None if normalisation is None else tuple(normalisation.low.shape)) == shape
    if normalisation is not None:
        assert torch.equal(normalisation.high.expand(2, 2), valuations.high)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": (-1.0,)}, "bids must have 0 <= low < high < inf, got low -1.0, high 1.0"),
        ({"setting": "2x2", "valuations": "missing.csv"}, "missing.csv cannot be read"),
        ({"valuations": "math:pi"}, "math:pi is of type float: it must be a function or Valuations"),
    ],
)
def test_trainer_refuses_valuations_and_names_them(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        trainer(**changes)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("recipe", RECIPES)
def test_training_on_a_gpu(recipe: str) -> None:
    on_cpu, on_gpu = trainer(**RECIPES[recipe]), trainer(**RECIPES[recipe], device="cuda")
    figures = [on_gpu.iterate() for _ in range(4)]
    assert all(parameter.is_cuda for parameter in on_gpu.network.parameters())
    assert figures[0]["train/revenue"] == pytest.approx(on_cpu.iterate()["train/revenue"], rel=0.2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regret_budget": 0.0}, "regret_budget must be positive and finite, got 0.0"),
        ({"regret_budget": math.nan}, "regret_budget must be positive and finite, got nan"),
        ({"regret_budget": math.inf}, "regret_budget must be positive and finite, got inf"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, got -1.0"),
        ({"setting": "1x0"}, "got '1x0'"),
        ({"setting": "2x3..1x4"}, "begins with its smallest setting; '2x3..1x4' is the other way round"),
        ({"setting": "1x2..416x47"}, "reaches from one BIDDERSxITEMS to another, such as 2x3..3x7"),
        ({"setting": "2x2..2x3", "net": "regretnet"}, "regretnet fits one setting, not 2x2..2x3"),
        ({"setting": "2x2..2x3", "valuations": "a.csv"}, "a.csv has profiles of one size, but the setting is the mix"),
        ({"setting": "2x2..2x3", "valuations": "a:b"}, "a:b has profiles of one size"),
        (
            {"setting": "2x2..2x3", "told_apart": "items"},
            "told_apart must be auto, none, sizes or rivals for the mixture 2x2..2x3",
        ),
        ({"low": (2.0,)}, "item 1 must lie between finite low < high, got 2.0 and 1.0"),
        ({"high": (1.0, 2.0, 3.0)}, "low and high need one number per item, 2"),
        ({"dataset_batches": 0}, "dataset_batches must be at least 1, got 0"),
        ({"penalty": math.nan}, "penalty must be positive and finite, got nan"),
        ({"penalty_step": -1.0}, "penalty_step must be at least 0, got -1.0"),
        ({"dual_floor": 1.0}, r"dual_floor must lie in \[0, 1\), got 1.0"),
        ({"iterations": -1}, "iterations must be at least 0, got -1"),
        ({"candidates": -1}, "candidates must be at least 0, got -1"),
        ({"ascent_steps": -2}, "ascent_steps must be at least 0, or -1 for the default, got -2"),
        ({"budget_until": 1.5}, r"budget_until must lie in \[0, 1\], got 1.5"),
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


def test_config_of_every_preset_survives_its_file(tmp_path: Path) -> None:
    for preset in PRESETS.values():
        config = dataclasses.replace(preset, setting="1x3", low=(0.0, 1.0, 2.0), high=(5.0,), valuations="beta(2,2)")
        write_json(tmp_path / "config.json", to_dict(config))
        assert read_config(TrainConfig(), tmp_path / "config.json") == config


def test_paper_preset_is_the_published_iteration() -> None:
    """The paper's loss, search, first multiplier and constant rate (specification, sections 2 and 3)."""
    paper = PRESETS["paper"]
    assert (paper.loss, paper.search, paper.multiplier_start, paper.ascent_steps) == ("published", "published", 1.0, 50)
    assert paper.learning_rate == paper.learning_rate_end == 1e-3


def test_config_names_runs_apart() -> None:
    changes = [
        {}, {"valuations": "some/bids.csv"}, {"valuations": "my.market:draw"}, {"constraint": "augmented"},
        {"setting": "2x3..3x7"},
    ]  # fmt: skip
    assert [dataclasses.replace(TrainConfig(), **change).name for change in changes] == [  # type: ignore[arg-type]
        "regretformer-1x2-fast-seed0",
        "regretformer-1x2-bids.csv-fast-seed0",
        "regretformer-1x2-my.market_draw-fast-seed0",
        "regretformer-1x2-fast-augmented-seed0",
        "regretformer-2x3..3x7-fast-seed0",
    ]


def test_large_auctions_first_imitate_a_known_one() -> None:
    """After the imitation a network of one bidder and one item nearly is Myerson's auction, before any regret."""
    config = dataclasses.replace(PRESETS["smoke"], setting="1x1", net="regretnet", imitation=0.9, iterations=400)
    trainer = Trainer(config)
    assert trainer.imitated == 360
    for _ in range(360):
        assert trainer.iterate() == {}
    bids = torch.tensor([[[0.2]], [[0.35]], [[0.65]], [[0.9]]])
    with torch.no_grad():
        allocation, payments = trainer.network(bids)
    torch.testing.assert_close(allocation.flatten(), torch.tensor([0.0, 0, 1, 1]), rtol=0, atol=0.1)
    torch.testing.assert_close(payments.flatten(), torch.tensor([0.0, 0, 0.5, 0.5]), rtol=0, atol=0.05)
    assert trainer.iterate()["dual/budget"] == trainer.config.budget_start


def test_without_a_known_auction_nothing_is_imitated() -> None:
    trainer = Trainer(dataclasses.replace(PRESETS["smoke"], setting="1x2-unit", imitation=0.5))
    before = {name: weight.clone() for name, weight in trainer.network.state_dict().items()}
    assert trainer.iterate() == {}
    torch.testing.assert_close(trainer.network.state_dict(), before, rtol=0, atol=0)


def test_a_config_is_settled_by_the_size_of_its_setting() -> None:
    """What the user gives stays; the rest comes from the setting, and of a mixture from its largest."""
    small, large = TrainConfig(setting="1x2").settled(), TrainConfig(setting="2x3..3x7", iterations=5).settled()
    assert small.iterations > 0
    assert small.batch > 0
    assert small.learning_rate > 0
    assert small.ascent_steps == 0
    assert large.iterations == 5
    assert large.ascent_steps > 0
    assert large.settled() == large
    assert TrainConfig(regret_budget=0.05).settled().budget_start == 0.05
    assert TrainConfig(setting="3x7", iterations=5).settled().batch == large.batch
