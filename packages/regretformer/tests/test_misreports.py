import itertools

import pytest
import torch
from torch import Tensor, nn

from regretformer.auction import Outcome, replace_report, utilities
from regretformer.misreports import ascend, best_of_menu, frozen, grid, stratified
from regretformer.networks.build import build
from regretformer.oracles import vcg

UNIT = (torch.zeros(1), torch.ones(1))


def pay_what_you_bid(bids: Tensor) -> Outcome:
    """Each bidder gets b_ij of item j for b_ij^2: the best report is half the value and gains v^2 / 4 per item."""
    return Outcome(bids, bids.square().sum(-1))


def test_best_of_menu_is_the_maximum_over_pairs() -> None:
    generator = torch.Generator().manual_seed(0)
    values, allocation = (torch.rand(3, size, 2, generator=generator) for size in (4, 5))
    payments = torch.rand(3, 5, generator=generator)
    utility, index = best_of_menu(values, allocation, payments)
    for g, s in itertools.product(range(3), range(4)):
        gains = [float(values[g, s] @ allocation[g, k] - payments[g, k]) for k in range(5)]
        assert utility[g, s].item() == pytest.approx(max(gains), abs=1e-6)
        assert gains[index[g, s]] == pytest.approx(max(gains), abs=1e-6)


def test_grid_covers_the_faces() -> None:
    points = grid(3, 2)
    assert {tuple(point) for point in points.tolist()} == set(itertools.product([0.0, 0.5, 1.0], repeat=2))
    assert grid(5, 1).shape == (5, 1)


@pytest.mark.parametrize(("count", "items", "cells"), [(16, 2, 4), (20, 2, 4), (8, 3, 2), (7, 3, 1), (5, 1, 5)])
def test_stratified_puts_one_point_in_every_cell(count: int, items: int, cells: int) -> None:
    points = stratified((3,), count, items, torch.Generator().manual_seed(0))
    assert points.shape == (3, count, items)
    assert points.min() >= 0
    assert points.max() < 1
    for group in points:
        assert {tuple(cell) for cell in (group * cells).long().tolist()} == set(
            itertools.product(range(cells), repeat=items)
        )


def test_ascend_finds_the_best_report() -> None:
    values = torch.tensor([[[0.2]], [[0.6]], [[1.0]]])
    reports, utility = ascend(pay_what_you_bid, values, 0, values[:, 0], *UNIT, steps=200, rate=0.05)
    assert torch.allclose(reports, values[:, 0] / 2, atol=1e-3)
    assert torch.allclose(utility, values[:, 0, 0] ** 2 / 4, atol=1e-6)


def test_ascend_moves_the_deviating_bidder_only() -> None:
    def all_pay_the_average(bids: Tensor) -> Outcome:
        share = bids / (1 + bids.sum(1, keepdim=True))
        return Outcome(share, bids.mean(1).sum(-1, keepdim=True).expand(bids.shape[:2]))

    profiles = torch.rand(5, 3, 2, generator=torch.Generator().manual_seed(1))
    box = (torch.zeros(2), torch.ones(2))
    reports, utility = ascend(all_pay_the_average, profiles, 1, profiles[:, 1], *box, steps=30, rate=0.05)
    changed = torch.cat([profiles[:, :1], reports.unsqueeze(1), profiles[:, 2:]], dim=1)
    outcome = all_pay_the_average(changed)
    expected = (outcome.allocation[:, 1] * profiles[:, 1]).sum(-1) - outcome.payments[:, 1]
    assert torch.allclose(utility, expected, atol=1e-6)


def test_ascend_stays_in_the_support() -> None:
    def free(bids: Tensor) -> Outcome:
        return Outcome(bids, torch.zeros(bids.shape[:2]))

    low, high = torch.tensor([4.0, 4.0]), torch.tensor([16.0, 7.0])
    profiles = torch.tensor([[[5.0, 5.0]]])
    reports, _ = ascend(free, profiles, 0, profiles[:, 0], low, high, steps=100, rate=0.1)
    assert reports.tolist() == [[16.0, 7.0]]


def test_ascend_first_step_by_hand() -> None:
    """The first Adam step is the gradient's sign: at b = 1 with value 1, u = b - b^2 falls, so down by the rate."""
    values = torch.tensor([[[1.0]]])
    reports, _ = ascend(pay_what_you_bid, values, 0, values[:, 0], *UNIT, steps=1, rate=0.1, decay=False)
    assert reports.item() == pytest.approx(0.9)


def test_ascend_keeps_the_best_iterate_unless_told_otherwise() -> None:
    values = torch.tensor([[[1.0]]])
    start = torch.tensor([[0.5]])  # the optimum; Adam with a constant rate overshoots it
    start_off = start + 0.01
    _, best = ascend(pay_what_you_bid, values, 0, start_off, *UNIT, steps=1, rate=0.3, decay=False)
    _, last = ascend(pay_what_you_bid, values, 0, start_off, *UNIT, steps=1, rate=0.3, decay=False, best_iterate=False)
    assert best.item() == pytest.approx(0.25 - 0.01**2)
    assert last.item() == pytest.approx(0.25 - 0.29**2)


def test_frozen_restores_what_was_trainable() -> None:
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    with frozen(layer):
        assert not layer.weight.requires_grad
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad
    with frozen(pay_what_you_bid):
        pass


def test_ascend_in_parts_equals_ascend_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network, profiles = (
        build("regretnet", 2, 2, seed=0),
        torch.rand(7, 2, 2, generator=torch.Generator().manual_seed(0)),
    )
    box = (torch.zeros(2), torch.ones(2))
    at_once = ascend(network, profiles, 0, profiles[:, 0], *box, steps=5, rate=0.1)
    monkeypatch.setattr("regretformer.misreports.profiles_at_once", lambda *_: 3)
    in_parts = ascend(network, profiles, 0, profiles[:, 0], *box, steps=5, rate=0.1)
    for one, other in zip(at_once, in_parts, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_ascend_asks_a_menu_only_once() -> None:
    asked = []

    def menu(bids: Tensor) -> Outcome:
        asked.append(len(bids))
        return Outcome((bids > 0.5).float(), 0.5 * (bids > 0.5).float().sum(-1))

    profiles = torch.tensor([[[0.9]], [[0.2]]])
    reports, utility = ascend(menu, profiles, 0, profiles[:, 0], *UNIT, steps=50, rate=0.1)
    assert asked == [2]
    assert torch.equal(reports, profiles[:, 0])
    assert utility.tolist() == pytest.approx([0.4, 0.0])


def test_ascent_where_outcomes_are_steps_ends_where_it_starts() -> None:
    """What a bidder of VCG pays is another's bid: utility has a gradient, but it is zero."""
    generator = torch.Generator().manual_seed(0)
    profiles, start = torch.rand(16, 3, 2, generator=generator), torch.rand(16, 2, generator=generator)
    evaluated = []

    def counted(bids: Tensor) -> Outcome:
        evaluated.append(bids)
        outcome = vcg(bids)
        assert outcome.payments.requires_grad
        return outcome

    reports, utility = ascend(counted, profiles, 1, start, *UNIT, steps=300, rate=0.05)
    assert len(evaluated) == 1
    assert torch.equal(reports, start)
    assert torch.equal(utility, utilities(profiles, vcg(replace_report(profiles, 1, start)))[:, 1])
