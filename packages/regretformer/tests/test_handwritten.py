"""The utility of a report and its gradient, written out, against automatic differentiation of the networks."""

import itertools

import pytest
import torch
from gt_core.errors import InputError
from torch import Tensor

from regretformer.auction import Mechanism, Outcome, replace_report, utilities
from regretformer.misreports import ascend, frozen
from regretformer.networks.build import NetName, ToldApart, build
from regretformer.networks.equivariantnet import EquivariantNet
from regretformer.networks.handwritten.build import is_written_out, profiles_at_once, report_utility
from regretformer.networks.network import AuctionNetwork
from regretformer.networks.regretformer import RegretFormer, Shape

SETTINGS = ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (2, 5), (3, 2), (3, 10))
NETS: tuple[tuple[NetName, ToldApart], ...] = (
    ("regretformer", "none"),
    ("regretformer", "both"),
    ("regretformer", "sizes"),
    ("regretformer", "rivals"),
    ("equivariantnet", "none"),
    ("equivariantnet", "both"),
    ("equivariantnet", "sizes"),
    ("equivariantnet", "rivals"),
    ("regretnet", "none"),
)


def scattered(network: AuctionNetwork, generator: torch.Generator, size: float = 0.1) -> AuctionNetwork:
    """The network with every weight moved, shifts of norms and biases too."""
    with torch.no_grad():
        for weight in network.parameters():
            weight += size * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return network


def recorded(network: AuctionNetwork) -> Mechanism:
    """The network as a function, whose gradients torch records."""
    return lambda bids: network(bids)


def recorded_gradient(network: AuctionNetwork, profiles: Tensor, bidder: int, reports: Tensor) -> tuple[Tensor, Tensor]:
    """Utility [B] and its gradient by the reports [B, m], by automatic differentiation."""
    reports = reports.clone().requires_grad_()
    utility = utilities(profiles, network(replace_report(profiles, bidder, reports)))[:, bidder]
    return utility.detach(), torch.autograd.grad(utility.sum(), reports)[0]


@pytest.mark.parametrize(("net", "told_apart"), NETS)
@pytest.mark.parametrize(("bidders", "items"), SETTINGS)
def test_utility_and_gradient_equal_automatic_differentiation(
    net: NetName, told_apart: ToldApart, bidders: int, items: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    for shape in (None, (), (items,), (bidders, items)):
        low, width = torch.rand((2, *(shape or ())), generator=generator, dtype=torch.float64)
        support = None if shape is None else (low, low + width)
        network = build(net, bidders, items, seed=1, support=support, told_apart=told_apart).double()
        larger_input = told_apart in ("sizes", "rivals")  # it saturates with more
        scattered(network, generator, 0.05 if larger_input else 0.1)
        unit = torch.rand((2, 4, bidders, items), generator=generator, dtype=torch.float64)
        profiles, others = low + width * unit
        for bidder in {0, bidders - 1}:
            evaluate = report_utility(network, profiles, bidder)
            for reports in (others[:, bidder], profiles[:, bidder]):
                utility, slope = evaluate(reports, differentiate=True)
                expected, gradient = recorded_gradient(network, profiles, bidder, reports)
                torch.testing.assert_close(utility, expected, rtol=0, atol=1e-10)
                torch.testing.assert_close(slope, gradient, rtol=0, atol=1e-10)
                assert gradient.abs().max() > 1e-5


@pytest.mark.parametrize(("net", "told_apart"), NETS)
@pytest.mark.parametrize(("bidders", "items"), [(1, 2), (2, 2), (2, 3)])
def test_ascent_finds_the_misreports_of_automatic_differentiation(
    net: NetName, told_apart: ToldApart, bidders: int, items: int
) -> None:
    generator = torch.Generator().manual_seed(2)
    network = scattered(build(net, bidders, items, seed=0, told_apart=told_apart).double(), generator)
    profiles = torch.rand(6, bidders, items, generator=generator, dtype=torch.float64)
    start = torch.rand(6, items, generator=generator, dtype=torch.float64)
    box = (torch.zeros(items, dtype=torch.float64), torch.ones(items, dtype=torch.float64))
    for decay, best_iterate in itertools.product((False, True), repeat=2):
        options = {"steps": 10, "rate": 0.05, "decay": decay, "best_iterate": best_iterate}
        with frozen(network):
            found, utility = ascend(network, profiles, 0, start, *box, **options)
        expected, expected_utility = ascend(recorded(network), profiles, 0, start, *box, **options)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(utility, expected_utility, rtol=0, atol=1e-10)
        assert (found - start).abs().max() > 0.01


@pytest.mark.parametrize("net", ["regretformer", "equivariantnet", "regretnet"])
def test_single_precision_agrees_to_its_digits(net: NetName) -> None:
    generator = torch.Generator().manual_seed(0)
    network = scattered(build(net, 2, 3, seed=0), generator)
    profiles, reports = torch.rand(9, 2, 3, generator=generator), torch.rand(9, 3, generator=generator)
    utility, slope = report_utility(network, profiles, 1)(reports, differentiate=True)
    expected, gradient = recorded_gradient(network, profiles, 1, reports)
    assert utility.dtype == torch.float32
    torch.testing.assert_close(utility, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(slope, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("net", ["regretformer", "equivariantnet", "regretnet"])
def test_outcomes_that_are_certain_give_finite_gradients(net: NetName) -> None:
    generator = torch.Generator().manual_seed(0)
    network = scattered(build(net, 2, 2, seed=0), generator, 30.0)
    profiles, reports = torch.rand(50, 2, 2, generator=generator), torch.rand(50, 2, generator=generator)
    for part in report_utility(network, profiles, 0)(reports, differentiate=True):
        assert part is not None
        assert part.isfinite().all()


def test_what_was_returned_is_not_overwritten_by_the_next_report() -> None:
    network, profiles = build("regretformer", 2, 2, seed=0), torch.rand(3, 2, 2)
    evaluate = report_utility(network, profiles, 0)
    utility, slope = evaluate(profiles[:, 0], differentiate=True)
    assert slope is not None
    before, slope_before = utility.clone(), slope.clone()
    evaluate(torch.zeros(3, 2), differentiate=True)
    assert torch.equal(utility, before)
    assert torch.equal(slope, slope_before)
    without, nothing = evaluate(profiles[:, 0], differentiate=False)
    assert torch.equal(without, before)
    assert nothing is None


def test_two_entries_with_many_heads_attend_as_the_network_says() -> None:
    shape = Shape(channels=8, head_channels=3, heads=4, blocks=2)
    network = scattered(RegretFormer(shape).double(), torch.Generator().manual_seed(0))
    profiles, reports = torch.rand(5, 2, 2, dtype=torch.float64), torch.rand(5, 2, dtype=torch.float64)
    utility, slope = report_utility(network, profiles, 1)(reports, differentiate=True)
    expected, gradient = recorded_gradient(network, profiles, 1, reports)
    torch.testing.assert_close(utility, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(slope, gradient, rtol=0, atol=1e-10)


def test_positions_of_more_bidders_than_the_network_knows_are_refused() -> None:
    network = build("regretformer", 2, 2, seed=0, told_apart="bidders")
    profiles = torch.rand(1, 3, 2)
    with pytest.raises(InputError, match="tells 2 bidders apart by position, got 3"):
        ascend(network, profiles, 0, profiles[:, 0], torch.zeros(2), torch.ones(2), steps=1, rate=0.1)


def test_what_is_not_written_out_is_left_to_automatic_differentiation() -> None:
    class Discounting(EquivariantNet):
        def forward(self, bids: Tensor, mask: object = None) -> Outcome:
            assert mask is None
            allocation, payments = super().forward(bids)
            return Outcome(allocation, 0.5 * payments)

    profiles = torch.rand(5, 2, 2)
    assert is_written_out(build("equivariantnet", 2, 2, seed=0), profiles)
    assert not is_written_out(build("equivariantnet", 2, 2, seed=0, demand="unit"), profiles)
    assert not is_written_out(build("equivariantnet", 2, 2, seed=0), profiles.double())
    assert not is_written_out(recorded(build("equivariantnet", 2, 2, seed=0)), profiles)
    network = Discounting(3)
    box = (torch.zeros(2), torch.ones(2))
    found = ascend(network, profiles, 0, profiles[:, 0], *box, steps=3, rate=0.1)
    expected = ascend(recorded(network), profiles, 0, profiles[:, 0], *box, steps=3, rate=0.1)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("count", [0, 1, 64, 511, 513, 5000])
def test_parts_are_about_equal(count: int) -> None:
    network, profiles = build("regretformer", 2, 5, seed=0), torch.empty(count, 2, 5)
    if not count:
        assert profiles_at_once(network, profiles) == 0
        return
    sizes = [len(part) for part in profiles.split(profiles_at_once(network, profiles))]
    assert sum(sizes) == count
    assert max(sizes) <= 512
    assert max(sizes) - min(sizes) < len(sizes)
