"""The pool: what is remembered, renewed and led uphill, and that it finds the regret there is."""

import dataclasses

import pytest
import torch
from gt_core.seeding import Streams
from torch import Tensor

from regretformer.auction import Outcome, replace_report, utilities
from regretformer.config import PRESETS
from regretformer.deviations import gains
from regretformer.evaluate import EvaluationConfig, measure_regret
from regretformer.networks.build import build
from regretformer.pool_search import PoolSearch
from regretformer.setting import parse_setting
from regretformer.valuations import FunctionValuations, UniformValuations


def search_for(setting: str, **changes: object) -> PoolSearch:
    config = dataclasses.replace(PRESETS["smoke"], setting=setting, **changes).settled()  # type: ignore[arg-type]
    return PoolSearch(config, UniformValuations(config.auction), Streams(0))


def test_visits_find_nearly_all_regret() -> None:
    """What visits to a few profiles of a fixed network find is what the strong attack finds on them."""
    torch.manual_seed(0)
    network = build("regretnet", 2, 2, seed=0)
    search = search_for("2x2", pool_batches=1, pool_visits=10_000)
    seen = []
    for _ in range(60):
        found = search.find(network)
        ((bidder, gained),) = gains(network, found).items()
        gained.mean().backward()
        search.learn(found)
        seen.append(gained.mean().item())
    honest = EvaluationConfig("strong", 64, 64, starts=12, steps=80)
    regret = measure_regret(network, search.valuations, found.profiles, honest, Streams(1))[:, bidder].mean().item()
    assert seen[1] < 0.9 * regret
    assert 0.97 * regret < seen[-1] <= 1.001 * regret


def test_the_best_report_is_kept_from_visit_to_visit() -> None:
    """For a fixed network the gain of a fixed profile never falls."""
    network = build("equivariantnet", 3, 2, seed=1)
    search = search_for("3x2", pool_batches=1, pool_visits=10_000)
    last: dict[int, Tensor] = {}
    for _ in range(12):
        found = search.find(network)
        ((bidder, gained),) = gains(network, found).items()
        gained.mean().backward()
        search.learn(found)
        order = found.profiles.sum((1, 2)).argsort()  # groups are visited in another order each time
        if bidder in last:
            assert (gained[order] >= last[bidder] - 1e-6).all()
        last[bidder] = gained[order].detach()


class FirstPrice:
    """One item to the highest bid, at that bid; a half for each where they are equal."""

    def __call__(self, bids: Tensor) -> Outcome:
        share = torch.sigmoid(20 * (bids - bids.flip(1)))
        return Outcome(share, (share * bids).sum(-1))


def test_reports_follow_the_gradient_of_utility() -> None:
    search = search_for("2x1", batch=16, values_per_group=4, pool_batches=1)
    pool = search.pools[1]
    rows = pool.visit()
    reports = pool.profiles[rows][:, :, 1].flatten(0, 1).requires_grad_(True)
    profiles = pool.profiles[rows].flatten(0, 1)
    utility = utilities(profiles, FirstPrice()(replace_report(profiles, 1, reports)))[:, 1]
    (gradient,) = torch.autograd.grad(utility.sum(), reports)
    pool.lead(rows, reports.detach(), gradient)
    moved = pool.ahead[rows].flatten(0, 1) - reports.detach()
    inside = (pool.ahead[rows].flatten() > 0) & (pool.ahead[rows].flatten() < 1)
    assert inside.sum() > 8
    assert torch.equal(moved.flatten().sign()[inside], gradient.flatten().sign()[inside])
    assert (moved.abs() <= 0.1 + 1e-6).all()
    assert (moved.flatten()[inside].abs() >= 0.003 - 1e-6).all()
    assert torch.equal(pool.best[rows].flatten(0, 1), reports.detach())


def test_where_nothing_was_gained_another_report_is_tried() -> None:
    search = search_for("2x3", batch=16, values_per_group=4, pool_batches=1)
    pool = search.pools[0]
    rows = pool.visit()
    reports = pool.profiles[rows][:, :, 0].flatten(0, 1)
    pool.lead(rows, reports, torch.zeros_like(reports))
    first = pool.ahead.clone()
    pool.lead(rows, reports, torch.zeros_like(reports))
    assert (first != pool.ahead).all()
    assert ((pool.ahead >= 0) & (pool.ahead <= 1)).all()


def test_groups_are_renewed_when_their_time_is_over() -> None:
    search = search_for("2x2", batch=8, values_per_group=4, pool_batches=3, pool_visits=5)
    pool = search.pools[0]
    assert len(pool.ages) == 6
    born = {row: pool.profiles[row].clone() for row in range(6)}
    lives = dict.fromkeys(range(6), 0)
    for visit in range(60):
        for row in pool.visit().tolist():
            if torch.equal(pool.profiles[row], born[row]):
                lives[row] += 1
                assert lives[row] <= 5
            else:
                assert visit < 15 or lives[row] == 5
                born[row], lives[row] = pool.profiles[row].clone(), 1


def test_every_pass_visits_every_group_once() -> None:
    pool = search_for("2x2", batch=8, values_per_group=4, pool_batches=4).pools[0]
    for _ in range(3):
        rows = torch.cat([pool.visit() for _ in range(4)])
        assert rows.sort().values.tolist() == list(range(8))


def test_profiles_of_dependent_bidders_are_never_rearranged() -> None:
    def draw_twins(count: int, source: torch.Generator) -> Tensor:
        return torch.rand((count, 1, 3), generator=source).expand(count, 2, 3)

    config = dataclasses.replace(PRESETS["smoke"], setting="2x3")
    search = PoolSearch(config, FunctionValuations(draw_twins, parse_setting("2x3")), Streams(0))
    profiles = search.find(build("regretnet", 2, 3, seed=0)).profiles
    assert profiles.shape == (64, 2, 3)
    assert torch.equal(profiles[:, 0], profiles[:, 1])


def test_bidders_take_turns() -> None:
    search, network = search_for("3x1", batch=4, values_per_group=2, candidates=4), build("regretnet", 3, 1, seed=0)
    assert [list(search.find(network).reports) for _ in range(4)] == [[0], [1], [2], [0]]


def test_learning_needs_the_gradient() -> None:
    search = search_for("2x2")
    found = search.find(build("regretnet", 2, 2, seed=0))
    with pytest.raises(RuntimeError, match="differentiate the loss first"):
        search.learn(found)
