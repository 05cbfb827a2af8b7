"""Auctions that are known exactly: what they earn, and that nobody gains by lying to them."""

import itertools
import math

import numpy as np
import pytest
import torch
from gt_core.errors import InputError
from scipy.optimize import linprog
from torch import Tensor
from torch.distributions import Exponential

from regretformer.auction import Mechanism, utilities
from regretformer.evaluate import EvaluationConfig, evaluate
from regretformer.marginals import Marginal, from_cdf, from_torch, mixture, uniform
from regretformer.misreports import grid
from regretformer.myerson import BundleMyerson, ItemwiseMyerson, concave_hull, virtual_value
from regretformer.oracles import (
    baselines,
    known_optimum,
    straight_jacket,
    straight_jacket_prices,
    straight_jacket_revenue,
    vcg,
)
from regretformer.setting import parse_setting
from regretformer.valuations import FunctionValuations, IndependentValuations, UniformValuations, Valuations

IRREGULAR = mixture([0.75, 0.25], [uniform(0, 3), uniform(3, 8)])
WITH_GAP = mixture([0.6, 0.4], [uniform(0, 1), uniform(2, 3)])


def uniforms(setting: str) -> UniformValuations:
    return UniformValuations(parse_setting(setting))


def irregular() -> IndependentValuations:
    """Bidders and items that differ, two of the four distributions irregular."""
    return IndependentValuations(
        [[IRREGULAR, from_torch(Exponential(1.0), high=6.0)], [WITH_GAP, uniform(1, 4)], [IRREGULAR, uniform(0, 2)]]
    )


def measure(mechanism: Mechanism, valuations: Valuations, revenue_valuations: int = 400_000) -> dict[str, object]:
    single = valuations.setting.bidders == 1 and valuations.setting.items <= 2
    attack = "grid" if single else "strong"
    return evaluate(mechanism, valuations, EvaluationConfig(attack, 500, revenue_valuations, starts=12, steps=2))


CASES = [
    *((uniforms("2x2"), name, revenue) for name, revenue in (("vcg", 2 / 3), ("itemwise-myerson", 5 / 6))),
    (uniforms("2x2"), "bundle-myerson", 0.8392),
    (uniforms("3x1"), "itemwise-myerson", 17 / 32),
    (uniforms("1x2"), "vcg", 0.0),
    (uniforms("1x2"), "itemwise-myerson", 0.5),
    (uniforms("1x2"), "bundle-myerson", 0.5 * (2 / 3) ** 1.5 * 2),
    (uniforms("416x47"), "itemwise-myerson", 28 / 3),
    (uniforms("416x47"), "bundle-myerson", 9.6268),
    (uniforms("3x10"), "vcg", 5.0),
    (uniforms("3x10"), "itemwise-myerson", 5.3125),
    (irregular(), "vcg", None),
    (irregular(), "itemwise-myerson", None),
    (irregular(), "bundle-myerson", None),
]


@pytest.mark.parametrize(
    ("valuations", "name", "revenue"), CASES, ids=lambda case: getattr(getattr(case, "setting", None), "name", case)
)
def test_baseline_earns_its_revenue_without_regret(valuations: Valuations, name: str, revenue: float | None) -> None:
    """VCG earns m (n - 1) / (n + 1), Myerson m [(n - 1) / (n + 1) + 2^-n / (n + 1)] from uniform values."""
    mechanism = baselines(valuations)[name]
    if isinstance(mechanism, ItemwiseMyerson | BundleMyerson):
        revenue = mechanism.expected_revenue if revenue is None else revenue
        assert mechanism.expected_revenue == pytest.approx(revenue, abs=6e-5)
    figures = measure(mechanism, valuations, 50_000 if valuations.setting.items > 2 else 400_000)
    low, high = figures["revenue_ci"]
    if revenue is not None:
        assert low - (high - low) <= revenue <= high + (high - low)
    scale = valuations.high.sum().item()
    assert figures["regret_max"] <= 1e-6 * scale


@pytest.mark.parametrize("name", ["vcg", "itemwise-myerson", "bundle-myerson"])
def test_baseline_has_no_regret_where_values_tie(name: str) -> None:
    """Values and reports on a coarse grid, so that many profiles tie, at reserves and in ironed intervals too."""
    valuations = irregular()
    mechanism = baselines(valuations)[name]
    generator = torch.Generator().manual_seed(0)
    unit = torch.randint(13, (400, 3, 2), generator=generator) / 12
    profiles = valuations.low + (valuations.high - valuations.low) * unit
    truthful = mechanism(profiles)
    assert truthful.allocation.sum(1).max() <= 1
    for bidder, report in itertools.product(range(3), grid(13, 2)):
        changed = profiles.clone()
        changed[:, bidder] = valuations.scale(report, bidder)
        gain = utilities(profiles, mechanism(changed)) - utilities(profiles, truthful)
        assert gain[:, bidder].max() <= 1e-5


@pytest.mark.parametrize("seed", [0, 1])
def test_vcg_is_the_second_price_of_each_item(seed: int) -> None:
    bids = torch.rand(100, 3, 2, generator=torch.Generator().manual_seed(seed))
    outcome = vcg(bids)
    for row, allocation, payments in zip(bids, *outcome, strict=True):
        expected = torch.zeros(3)
        for item in range(2):
            ranked = row[:, item].sort(descending=True)
            assert allocation[:, item].argmax() == ranked.indices[0]
            expected[ranked.indices[0]] += ranked.values[1]
        assert torch.allclose(payments, expected)


def test_vcg_gives_ties_to_the_first_for_their_value() -> None:
    outcome = vcg(torch.tensor([[[1.0], [1.0], [0.5]]]))
    assert outcome.allocation[0].flatten().tolist() == [1, 0, 0]
    assert outcome.payments[0].tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("bidders", "revenue"),
    [
        ([uniform(0, 1)] * 3, 17 / 32),
        ([from_torch(Exponential(1 / 3), high=150.0)] * 3, 2.7490),
        ([IRREGULAR] * 3, 2.3802),
        ([uniform(0, high) for high in range(1, 6)], 2.3147),
        ([from_cdf(lambda v: v.square(), lambda v: 2 * v, 0, 1)], 2 / math.sqrt(27)),
    ],
    ids=["uniform", "exponential", "irregular", "asymmetric", "cdf"],
)
def test_myerson_revenue_is_the_published_one(bidders: list[Marginal], revenue: float) -> None:
    """The optima of MyersonNet's benchmarks (deep-opt-auctions) and max p (1 - p^2); the middle ones are sampled."""
    assert ItemwiseMyerson([[bidder] for bidder in bidders]).expected_revenue == pytest.approx(revenue, rel=8e-3)


def test_virtual_value_by_hand() -> None:
    """U[1, 3] has phi(v) = 2 v - 3; the exponential of rate 2 has phi(v) = v - 1/2 far from its end."""
    values = torch.tensor([1.0, 1.5, 2.2, 3.0], dtype=torch.float64)
    assert torch.allclose(virtual_value(uniform(1, 3))(values), 2 * values - 3, atol=1e-12)
    assert torch.allclose(virtual_value(from_torch(Exponential(2.0), high=30.0))(values), values - 0.5, atol=1e-5)


def test_virtual_value_is_ironed_by_hand() -> None:
    """Three quarters U[0, 3], one quarter U[3, 8].

    On [0, 3] the density is 1/4 and phi(v) = 2 v - 4, which reaches 2; on [3, 8] it is 1/20 and phi(v) = 2 v - 8, which
    starts at -2. The flat part [a, b] has a level c = 2 a - 4 = 2 b - 8, so b = a + 2, and R(q(a)) - R(q(b)) equals
    c (q(a) - q(b)) with q(a) = 1 - a / 4 and q(b) = (8 - b) / 20: a^2 - 7 a + 11 = 0, so a = (7 - sqrt 5) / 2 = 2.382.
    """
    ironed = virtual_value(IRREGULAR)
    values = torch.tensor([1.0, 2.0, 2.4, 3.0, 4.3, 5.0, 8.0], dtype=torch.float64)
    assert ironed(values).tolist() == pytest.approx([-2, 0, *[3 - math.sqrt(5)] * 3, 2, 8], abs=2e-3)
    level = ironed(torch.tensor([3.5], dtype=torch.float64))
    assert ironed.threshold(level, strict=False).item() == pytest.approx((7 - math.sqrt(5)) / 2, abs=3e-3)
    assert ironed.threshold(level, strict=True).item() == pytest.approx((11 - math.sqrt(5)) / 2, abs=3e-3)


def test_myerson_ties_in_an_ironed_interval_by_hand() -> None:
    """Both values lie in the ironed [a, b]: the first bidder wins and pays a; the second needs and pays b."""
    a, b = (7 - math.sqrt(5)) / 2, (11 - math.sqrt(5)) / 2
    auction = ItemwiseMyerson([[IRREGULAR]] * 2)
    bids = torch.tensor([[[3.0], [4.0]], [[3.0], [4.6]], [[1.9], [1.0]], [[1.0], [3.0]]])
    outcome = auction(bids)
    assert outcome.allocation[..., 0].tolist() == [[1, 0], [0, 1], [0, 0], [0, 1]]
    expected = torch.tensor([[a, 0], [0, b], [0, 0], [0, 2.0]])
    assert torch.allclose(outcome.payments, expected, atol=3e-3)


def test_concave_hull_by_hand() -> None:
    """Prices 1, 2, 3, 4 sell with probability 1, 3/4, 1/4, 1/5; (1/4, 3/4) lies under the line of its neighbours."""
    quantiles = torch.tensor([1.0, 0.75, 0.25, 0.2])
    assert concave_hull(quantiles, quantiles * torch.tensor([1.0, 2.0, 3.0, 4.0])) == [0, 1, 3]


@pytest.mark.parametrize(
    ("marginal", "step"),
    [(IRREGULAR, 0.05), (WITH_GAP, 0.02), (uniform(0, 1), 0.01)],
    ids=["irregular", "gap", "regular"],
)
@pytest.mark.parametrize("bidders", [1, 2, 3])
def test_myerson_revenue_is_that_of_the_linear_programme(marginal: Marginal, step: float, bidders: int) -> None:
    """Optimal revenue rises with values, so the programme with values rounded down earns a little less."""
    programme = optimal_revenue_of_discrete(marginal, bidders, step)
    revenue = ItemwiseMyerson([[marginal]] * bidders).expected_revenue
    assert programme - 1e-5 <= revenue <= programme + 3e-4


def rounded_down(marginal: Marginal, step: float) -> tuple[np.ndarray, np.ndarray]:
    edges = torch.linspace(marginal.low, marginal.high, round((marginal.high - marginal.low) / step) + 1).double()
    masses = marginal.cdf(edges).diff().numpy()
    return edges[:-1].numpy()[masses > 1e-9], masses[masses > 1e-9]


def optimal_revenue_of_discrete(marginal: Marginal, bidders: int, step: float) -> float:
    """Revenue of the optimal auction of one item to equal bidders with values rounded down, by a linear programme.

    Variables: each type's probability of winning x_k and expected payment p_k. Constraints: truthful among neighbours
    (which suffices for monotone x), rational, and feasible, by Border's theorem for sets of high types.
    """
    values, masses = rounded_down(marginal, step)
    size = len(masses)
    rows, limits = [], []
    x, p = np.eye(2 * size)[:size], np.eye(2 * size)[size:]
    for k in range(size):
        pairs = [(k, other) for other in (k - 1, k + 1) if 0 <= other < size]
        rows += [values[i] * (x[j] - x[i]) - (p[j] - p[i]) for i, j in pairs]
        limits += [0.0] * len(pairs)
        tail = masses[k:].sum()
        rows.append(bidders * (masses[k:, None] * x[k:]).sum(0))
        limits.append(1 - (1 - tail) ** bidders if k else 1.0)
    rows += [x[k] - x[k + 1] for k in range(size - 1)]
    limits += [0.0] * (size - 1)
    rows.append(p[0] - values[0] * x[0])
    limits.append(0.0)
    objective = -bidders * np.concatenate([np.zeros(size), masses])
    bounds = [(0, 1)] * size + [(None, None)] * size
    solution = linprog(objective, A_ub=np.array(rows), b_ub=np.array(limits), bounds=bounds)
    assert solution.success
    return -solution.fun


def test_myerson_of_unequal_irregular_bidders_is_that_of_the_linear_programme() -> None:
    """The same bound, with an allocation for every pair of types and payments for truthful interim utilities."""
    first, second = IRREGULAR, mixture([0.5, 0.5], [uniform(1, 2), uniform(4, 6)])
    programme = optimal_revenue_of_pair(first, second, step=0.25)
    revenue = ItemwiseMyerson([[first], [second]]).expected_revenue
    assert programme <= revenue <= programme + 1e-2


def optimal_revenue_of_pair(first: Marginal, second: Marginal, step: float) -> float:
    """Revenue of the optimal auction of one item to two bidders with values rounded down, by a linear programme."""
    grids = [rounded_down(marginal, step) for marginal in (first, second)]
    sizes = [len(values) for values, _ in grids]
    cells = sizes[0] * sizes[1]
    unit = np.eye(2 * cells + sum(sizes))
    won = [unit[:cells].reshape(*sizes, -1), unit[cells : 2 * cells].reshape(*sizes, -1)]
    interim = [np.einsum("abv,b->av", won[0], grids[1][1]), np.einsum("abv,a->bv", won[1], grids[0][1])]
    paid = [unit[2 * cells : 2 * cells + sizes[0]], unit[2 * cells + sizes[0] :]]
    rows = [(won[0] + won[1]).reshape(cells, -1)]
    limits = [np.ones(cells)]
    for (values, _), x, p in zip(grids, interim, paid, strict=True):
        lies = values[:, None, None] * (x[None] - x[:, None]) - (p[None] - p[:, None])
        rows += [lies.reshape(len(values) ** 2, -1), p - values[:, None] * x]
        limits += [np.zeros(len(values) ** 2), np.zeros(len(values))]
    revenue = sum((masses[:, None] * p).sum(0) for (_, masses), p in zip(grids, paid, strict=True))
    bounds = [(0, 1)] * (2 * cells) + [(None, None)] * sum(sizes)
    solution = linprog(-revenue, A_ub=np.concatenate(rows), b_ub=np.concatenate(limits), bounds=bounds)
    assert solution.success
    return -solution.fun


@pytest.mark.parametrize(
    ("items", "reserve"), [(1, 0.5), (2, math.sqrt(2 / 3)), (3, 1.1629), (5, 1.9251), (10, 3.9292)]
)
def test_bundle_reserve_is_the_monopoly_price(items: int, reserve: float) -> None:
    """Of the sum of uniform values (Irwin-Hall); for two items p (1 - p^2 / 2) is largest at sqrt(2/3)."""
    auction = BundleMyerson([[uniform(0, 1)] * items] * 2)
    assert auction.reserves == pytest.approx([reserve] * 2, abs=1e-4)


def test_bundle_is_a_second_price_auction_with_reserve() -> None:
    auction = BundleMyerson([[uniform(0, 1)] * 2] * 2)
    bids = torch.tensor([[[0.9, 0.9], [0.5, 0.5]], [[0.1, 0.2], [0.6, 0.5]], [[0.4, 0.4], [0.1, 0.7]]])
    outcome = auction(bids)
    assert outcome.allocation[..., 0].tolist() == outcome.allocation[..., 1].tolist() == [[1, 0], [0, 1], [0, 0]]
    expected = torch.tensor([[1.0, 0.0], [0.0, math.sqrt(2 / 3)], [0.0, 0.0]])
    assert torch.allclose(outcome.payments, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("items", "prices", "revenue"),
    [
        (1, [1 / 2], 1 / 4),
        (2, [2 / 3, (4 - math.sqrt(2)) / 3], (12 + 2 * math.sqrt(2)) / 27),
        (3, [3 / 4, (6 - math.sqrt(2)) / 4, 1.2257], 0.8754),
        (4, [0.8000, 1.3172, 1.5805, 1.6008], 1.2196),
        (5, [0.8333, 1.4310, 1.8174, 2.0006, 1.9855], 1.5763),
        (6, [0.8571, 1.5123, 1.9864, 2.2855, 2.4161, 2.3774], 1.9434),
    ],
)
def test_straight_jacket_has_the_known_prices_and_revenue(items: int, prices: list[float], revenue: float) -> None:
    """Giannakopoulos and Koutsoupias 2014; from four items on prices and revenues were simulated, to 1e-3."""
    computed = straight_jacket_prices(items)
    tolerance = 1e-3 if items > 3 else 1e-4
    assert computed == pytest.approx(prices, abs=tolerance)
    assert straight_jacket_revenue(computed) == pytest.approx(revenue, abs=5e-4 if items > 2 else 1e-6)


@pytest.mark.parametrize("items", [2, 4, 6])
def test_straight_jacket_prices_meet_their_definition(items: int) -> None:
    """The volume of the values that buy nothing of r items, by counting quasi-random points."""
    prices = straight_jacket_prices(items)
    for count in range(1, items + 1):
        points = torch.quasirandom.SobolEngine(count, scramble=True, seed=0).draw(2**17, dtype=torch.float64)
        sums = points.sort(descending=True).values.cumsum(-1)
        unsold = (sums <= torch.tensor(prices[:count], dtype=torch.float64)).all(-1).double().mean().item()
        assert unsold == pytest.approx(1 - count / (items + 1), abs=1e-3)


def test_straight_jacket_refuses_what_is_not_known() -> None:
    for items in (0, 7):
        with pytest.raises(InputError, match=f"for 1 to 6 items, got {items}"):
            straight_jacket(items)


@pytest.mark.parametrize("setting", ["1x1", "1x2", "1x3", "1x4", "1x5", "1x6", "416x47"])
def test_optimum_earns_its_revenue_without_regret(setting: str) -> None:
    optimum = known_optimum(setting)
    assert optimum is not None
    valuations = uniforms(setting)
    figures = measure(optimum.mechanism, valuations, 300_000)
    low, high = figures["revenue_ci"]
    assert low - (high - low) <= optimum.revenue <= high + (high - low)
    assert figures["regret_max"] <= 1e-6 * valuations.high.sum().item()
    assert all(
        baseline.expected_revenue <= optimum.revenue + 1e-5
        for baseline in baselines(valuations).values()
        if isinstance(baseline, ItemwiseMyerson | BundleMyerson)
    )


def test_optimum_of_the_asymmetric_setting_by_hand() -> None:
    """Of 36 equally likely unit cells, 8 buy (1/2, 1) for 8 and 24 buy everything for 12."""
    optimum = known_optimum("416x47")
    assert optimum is not None
    assert optimum.revenue == pytest.approx((8 * 8 + 24 * 12) / 36)
    bids = torch.tensor([[[4.0, 5.0]], [[5.0, 6.0]], [[9.0, 4.0]], [[7.0, 6.5]]])
    outcome = optimum.mechanism(bids)
    assert outcome.allocation[:, 0].tolist() == [[0, 0], [0.5, 1], [1, 1], [0.5, 1]]
    assert outcome.payments[:, 0].tolist() == [0, 8, 12, 8]


def test_baselines_without_known_distributions_are_vcg_alone() -> None:
    def draw(count: int, source: torch.Generator) -> Tensor:
        return torch.rand((count, 2, 2), generator=source)

    assert baselines(FunctionValuations(draw, parse_setting("2x2"))) == {"vcg": vcg}
