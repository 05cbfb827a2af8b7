"""The fixed set, its remembered misreports, and whole iterations against the published formulas in plain float64."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from regretformer.config import PRESETS
from regretformer.published_search import PublishedSearch
from regretformer.train import Trainer
from regretformer.valuations import UniformValuations

SMALL = dataclasses.replace(
    PRESETS["paper"], setting="2x2", net="regretnet", iterations=40, batch=6, dataset_batches=3, ascent_steps=4
)


def plain_utility(network: nn.Module, values: Tensor, bids: Tensor, bidder: int) -> Tensor:
    """Of one bidder at one profile [n, m]."""
    allocation, payments = network(bids[None])
    total = -payments[0, bidder]
    for item in range(values.shape[1]):
        total = total + allocation[0, bidder, item] * values[bidder, item]
    return total


def plain_ascent(network: nn.Module, values: Tensor, start: Tensor, bidder: int, steps: int) -> Tensor:
    """Adam with rate 0.1 on one misreport [m], clamped to the unit box after every step; the last iterate."""
    report = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([report], lr=0.1)
    for _ in range(steps):
        bids = torch.stack([report if row == bidder else values[row] for row in range(len(values))])
        (report.grad,) = torch.autograd.grad(-plain_utility(network, values, bids, bidder), report)
        adam.step()
        with torch.no_grad():
            report.clamp_(0, 1)
    return report.detach()


def test_iterations_equal_the_published_formulas() -> None:
    """Five iterations, two passes over the set: misreports, revenue, regret, multiplier and weights, one at a time."""
    learner, twin = Trainer(SMALL), Trainer(SMALL)
    searches = []
    for each in (learner, twin):
        each.network.double()
        (search,) = each.searches
        assert isinstance(search, PublishedSearch)
        search.profiles, search.misreports = search.profiles.double(), search.misreports.double()
        searches.append(search)
    network, remembered = twin.network, searches[1].misreports.clone()
    adam, gamma = torch.optim.Adam(network.parameters(), lr=1e-3), 1.0

    for step in range(5):
        rows = searches[0].rows().tolist()
        figures = learner.iterate()

        revenue, regrets = torch.zeros(()).double(), [torch.zeros(()).double() for _ in range(2)]
        for row in rows:
            values = searches[1].profiles[row]
            revenue = revenue + network(values[None]).payments.sum() / 6
            for bidder in range(2):
                report = plain_ascent(network, values, remembered[row, bidder], bidder, 4)
                remembered[row, bidder] = report
                lie = values.clone()
                lie[bidder] = report
                gain = plain_utility(network, values, lie, bidder) - plain_utility(network, values, values, bidder)
                regrets[bidder] = regrets[bidder] + torch.relu(gain) / 6
        regret = regrets[0] + regrets[1]
        ratio = (regret / (revenue + 1e-8)).item()
        budget = max(1e-2 * (1e-1) ** (1.5 * step / 40), 1e-3)
        gamma = max(0.0, gamma + 0.5 * (math.log(ratio) - math.log(budget)))
        adam.zero_grad()
        (-revenue + gamma * regret).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        adam.step()

        assert figures["train/revenue"] == pytest.approx(revenue.item(), rel=1e-8)
        assert figures["train/regret_over_revenue"] == pytest.approx(ratio, rel=1e-7)
        assert figures["dual/budget"] == pytest.approx(budget, rel=1e-12)
        assert figures["dual/multiplier"] == pytest.approx(gamma, rel=1e-7)
        assert torch.allclose(searches[0].misreports[rows], remembered[rows], atol=1e-9)
        for mine, theirs in zip(learner.network.parameters(), network.parameters(), strict=True):
            assert torch.allclose(mine, theirs, atol=1e-8)


def test_paper_preset_is_the_published_recipe() -> None:
    paper = PRESETS["paper"]
    assert (paper.batch, paper.dataset_batches, paper.iterations) == (512, 1250, 200_000)
    assert (paper.ascent_steps, paper.ascent_rate, paper.dual_rate, paper.dual_floor) == (50, 0.1, 0.5, 0.0)
    assert (paper.learning_rate, paper.learning_rate_end, paper.clip_norm) == (1e-3, 1e-3, 1.0)
    assert (paper.budget_start, paper.regret_budget, paper.budget_until) == (1e-2, 1e-3, 2 / 3)
    assert (paper.budget_margin, paper.search, paper.constraint) == (1.0, "published", "budget")


def test_every_pass_visits_the_whole_set_in_another_order() -> None:
    search = PublishedSearch(SMALL, UniformValuations(SMALL.auction))
    network = Trainer(SMALL).network
    passes = []
    for _ in range(3):
        order = []
        for _ in range(3):
            rows = search.rows()
            found = search.find(network)
            assert torch.equal(found.profiles, search.profiles[rows])
            assert list(found.reports) == [0, 1]
            order += rows.tolist()
        passes.append(order)
    assert all(sorted(order) == list(range(18)) for order in passes)
    assert len({tuple(order) for order in passes}) == 3


def test_misreports_start_uniform_on_the_support_and_stay_there() -> None:
    config = dataclasses.replace(SMALL, setting="416x47", batch=500, dataset_batches=4)
    search = PublishedSearch(config, UniformValuations(config.auction))
    low, high = torch.tensor([4.0, 4.0]), torch.tensor([16.0, 7.0])
    share = ((search.misreports - low) / (high - low)).flatten()
    assert torch.allclose(share.histc(10, 0, 1) / len(share), torch.full((10,), 0.1), atol=0.02)
    search.find(Trainer(config).network)
    assert (search.misreports >= low).all()
    assert (search.misreports <= high).all()
