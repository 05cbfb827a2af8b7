"""What holds for all three networks: shapes, initialisation, masks, normalisation, positions."""

import math

import pytest
import torch
from gt_core.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regretformer.networks.build import build
from regretformer.networks.exchangeable import entries_first, highest_rivals, sell, sinusoids
from regretformer.networks.masks import Presence, pad
from regretformer.networks.network import AuctionNetwork, tanh
from regretformer.networks.regretnet import RegretNet, run

NETS = ("regretformer", "equivariantnet", "regretnet")
ANY_SIZE = ("regretformer", "equivariantnet")


def network(net: str, bidders: int, items: int, seed: int = 0, **options: object) -> AuctionNetwork:
    """A network away from its initial state, where norms and biases do nothing."""
    built = build(net, bidders, items, seed=seed, **options).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in built.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
    return built


def bids(count: int, bidders: int, items: int, seed: int = 0) -> Tensor:
    return torch.rand(count, bidders, items, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("net", "counts"),  # the published shapes for 1x2, 2x2, 2x3, 2x5 and 3x10
    [
        ("regretformer", (12_705, 49_985, 49_985, 362_753, 362_753)),
        ("equivariantnet", (4_546, 4_546, 12_802, 16_930, 16_930)),
        ("regretnet", (21_305, 22_008, 22_711, 24_117, 91_343)),
    ],
)
def test_build_gives_the_published_number_of_parameters(net: str, counts: tuple[int, ...]) -> None:
    settings = ((1, 2), (2, 2), (2, 3), (2, 5), (3, 10))
    built = [build(net, n, m, seed=0) for n, m in settings]
    assert tuple(sum(p.numel() for p in one.parameters()) for one in built) == counts
    assert all(len(one.state_dict()) == len(list(one.parameters())) for one in built)  # no buffers unless asked for


@pytest.mark.parametrize("net", NETS)
def test_build_depends_on_its_seed_alone(net: str) -> None:
    torch.rand(1)
    before = torch.get_rng_state()
    first = build(net, 2, 3, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    again, other = build(net, 2, 3, seed=7), build(net, 2, 3, seed=8)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_regretnet_starts_xavier_uniform_with_zero_biases() -> None:
    for layers in (net := build("regretnet", 2, 5, seed=0)).allocation_layers, net.payment_layers:
        for layer in layers:
            bound = math.sqrt(6 / sum(layer.weight.shape))
            assert layer.bias.abs().max() == 0
            assert 0.95 * bound < layer.weight.abs().max() <= bound


@pytest.mark.parametrize("net", ANY_SIZE)
def test_the_others_start_with_the_defaults_of_torch(net: str) -> None:
    for name, weight in build(net, 2, 3, seed=0).named_parameters():
        if name.endswith(("own.weight", "join.weight")):  # uniform within 1 / sqrt(inputs)
            bound = 1 / math.sqrt(weight.shape[1])
            assert 0.8 * bound < weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"net": "lstm"}, "lstm"),
        ({"net": "regretformer", "bidders": 0}, "0x2"),
        ({"net": "regretnet", "told_apart": "both"}, "regretnet tells everybody apart"),
        ({"net": "regretformer", "told_apart": "all"}, "all"),
        ({"net": "regretnet", "demand": "two"}, "demand must be one of additive, unit; got 'two'"),
        ({"net": "regretformer", "support": (torch.tensor([4.0, 4.0]), torch.tensor([16.0, 4.0]))}, "low < high"),
        ({"net": "regretnet", "support": (torch.tensor(-1.0), torch.tensor(1.0))}, "-1.0"),
    ],
)
def test_build_refuses_what_cannot_work(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(**{"bidders": 1, "items": 2, "seed": 0} | options)


def test_regretnet_names_the_size_it_takes() -> None:
    net = build("regretnet", 2, 3, seed=0).double()
    with pytest.raises(InputError, match=r"\[B, 2, 3\], got \(4, 3, 2\)"):
        net(bids(4, 3, 2))
    padded, mask = pad([bids(1, 2, 3)[0]])
    with pytest.raises(InputError, match="with a mask"):
        net(padded, mask)


@torch.no_grad()
@pytest.mark.parametrize("net", NETS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(n=st.integers(1, 4), m=st.integers(1, 4), seed=st.integers(0, 10**6), low=st.sampled_from([0.0, 4.0]))
def test_networks_are_feasible_and_individually_rational(net: str, n: int, m: int, seed: int, low: float) -> None:
    profiles = low + (1 + low) * bids(4, n, m, seed)
    support = None if low == 0 else (torch.full((m,), low), torch.full((m,), 2 * low + 1))
    outcome = network(net, n, m, seed, support=support)(profiles)
    assert outcome.allocation.min() >= 0
    assert outcome.allocation.sum(1).max() <= 1 + 1e-12
    assert outcome.payments.min() >= 0
    assert ((profiles * outcome.allocation).sum(-1) - outcome.payments).min() >= -1e-12


@torch.no_grad()
@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(("n", "m"), [(1, 3), (3, 1), (2, 3), (3, 2)])
def test_unit_demand_gives_nobody_more_than_one_item(net: str, n: int, m: int) -> None:
    built = build(net, n, m, seed=0, demand="unit").double()
    for parameter in built.parameters():  # so large that additive networks sell nearly everything
        parameter.data *= 4
    profiles = bids(50, n, m)
    outcome = built(profiles)
    assert outcome.allocation.sum(1).max() <= 1 + 1e-12
    assert outcome.allocation.sum(2).max() <= 1 + 1e-12
    assert ((profiles * outcome.allocation).sum(-1) - outcome.payments).min() >= -1e-12


@torch.no_grad()
def test_unit_demand_is_the_smaller_of_two_lotteries() -> None:
    logits = torch.tensor([[[1.0, -2.0, 0.5]]], dtype=torch.float64)  # one bidder, three items; "nothing" is 0.5
    per_bidder = logits[0, 0].exp() / (logits[0, 0].exp().sum() + math.exp(0.5))
    expected = torch.minimum(torch.sigmoid(2 * logits[0, 0]), per_bidder)
    assert torch.allclose(sell(logits, demand="unit")[0, 0], expected, atol=1e-12)

    built = build("regretnet", 2, 3, seed=0, demand="unit")
    assert built.allocation_layers[-1].out_features == 3 * 3 + 2 * 4
    first, second = run(built.allocation_layers, (profile := torch.rand(1, 2, 3)).flatten(1)).split([9, 8], dim=1)
    lotteries = first.view(3, 3).softmax(0)[:-1], second.view(2, 4).softmax(1)[:, :-1]
    assert torch.allclose(built(profile).allocation[0], torch.minimum(*lotteries), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("net", ANY_SIZE)
def test_unit_demand_goes_with_masks(net: str) -> None:
    built = build(net, 2, 3, seed=0, demand="unit").double()
    small, large = bids(1, 1, 2, 1), bids(1, 2, 3, 2)
    together = built(*pad([small[0], large[0]]))
    assert torch.allclose(together.allocation[:1, :1, :2], built(small).allocation, atol=1e-12)
    assert torch.allclose(together.payments[1:], built(large).payments, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("net", NETS)
def test_payments_are_the_fractions_of_the_bids_for_the_lottery(net: str) -> None:
    built, profiles = network(net, 2, 3), bids(5, 2, 3)
    allocation, fractions = built.decide(profiles)
    outcome = built(profiles)
    assert torch.equal(outcome.allocation, allocation)
    assert fractions.min() > 0
    assert fractions.max() < 1
    assert torch.equal(outcome.payments, fractions * (allocation * profiles).sum(-1))


@torch.no_grad()
@pytest.mark.parametrize("net", NETS)
def test_normalisation_shows_the_network_the_unit_box_and_charges_in_money(net: str) -> None:
    low, high = torch.tensor([4.0, 4.0]), torch.tensor([16.0, 7.0])
    plain, normalised = network(net, 2, 2), network(net, 2, 2, support=(low, high))
    unit = bids(6, 2, 2)
    money = low + (high - low) * unit
    allocation, fractions = plain.decide(unit)
    outcome = normalised(money)
    assert torch.allclose(outcome.allocation, allocation, atol=1e-12)
    assert torch.allclose(outcome.payments, fractions * (allocation * money).sum(-1), atol=1e-12)
    assert {"normalisation.low", "normalisation.high"} == normalised.state_dict().keys() - plain.state_dict().keys()


SIZES = ((1, 1), (1, 4), (2, 3), (3, 1), (3, 4))


@pytest.mark.parametrize("net", ANY_SIZE)
@pytest.mark.parametrize("filler", [0.0, 7.0, math.nan])
def test_a_padded_profile_has_the_outcome_of_the_profile_alone(net: str, filler: float) -> None:
    built = network(net, 3, 4)
    profiles = [bids(1, n, m, seed)[0].requires_grad_() for seed, (n, m) in enumerate(SIZES)]
    padded, mask = pad(profiles)
    together = built(padded.masked_fill(~mask.entries, filler), mask)
    weights = torch.arange(1.0, 4.0)
    alone = [built(profile.unsqueeze(0)) for profile in profiles]
    for index, (n, m) in enumerate(SIZES):
        assert torch.allclose(together.allocation[index, :n, :m], alone[index].allocation[0], rtol=0, atol=1e-12)
        assert torch.allclose(together.payments[index, :n], alone[index].payments[0], rtol=0, atol=1e-12)
    assert together.allocation[~mask.entries].abs().max() == 0
    assert together.payments[~mask.bidders].abs().max() == 0

    ours = torch.autograd.grad((together.payments * weights).sum(), [*profiles, *built.parameters()])
    theirs = sum((one.payments[0] * weights[: one.payments.shape[1]]).sum() for one in alone)
    for gradient, expected in zip(
        ours, torch.autograd.grad(theirs, [*profiles, *built.parameters()], materialize_grads=True), strict=True
    ):
        assert torch.allclose(gradient, expected, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("net", ANY_SIZE)
def test_bidders_and_items_may_be_absent_anywhere(net: str) -> None:
    built, profiles = network(net, 3, 4), bids(2, 3, 4)
    mask = Presence(
        torch.tensor([[True, False, True], [False, True, False]]),
        torch.tensor([[False, True, True, False], [True, True, True, True]]),
    )
    together = built(profiles, mask)
    first = built(profiles[:1, [0, 2]][:, :, [1, 2]])
    second = built(profiles[1:, [1]])
    assert torch.allclose(together.allocation[:1, [0, 2]][:, :, [1, 2]], first.allocation, rtol=0, atol=1e-12)
    assert torch.allclose(together.payments[1:, [1]], second.payments, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("net", ANY_SIZE)
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 2), (2, 2), (3, 5)])
def test_a_mask_with_everybody_there_changes_nothing(net: str, n: int, m: int) -> None:
    built, profiles = network(net, n, m), bids(3, n, m)
    mask = Presence(torch.ones(3, n, dtype=torch.bool), torch.ones(3, m, dtype=torch.bool))
    with_mask, without = built(profiles, mask), built(profiles)
    assert torch.allclose(with_mask.allocation, without.allocation, rtol=0, atol=1e-12)
    assert torch.allclose(with_mask.payments, without.payments, rtol=0, atol=1e-12)


def test_pad_refuses_what_is_no_profile() -> None:
    for profiles in ([], [torch.rand(2)], [torch.rand(2, 0)]):
        with pytest.raises(InputError, match="profiles must be"):
            pad(profiles)


def test_sinusoids_are_those_of_the_definition() -> None:
    encodings = sinusoids(3, 4)
    for t in range(3):
        expected = [math.sin(t), math.cos(t), math.sin(t / 100), math.cos(t / 100)]  # 10000 ** (2 / 4) = 100
        assert encodings[t].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(InputError, match="even number of channels, got 5"):
        sinusoids(3, 5)


@torch.no_grad()
@pytest.mark.parametrize("net", ANY_SIZE)
@pytest.mark.parametrize(
    ("told_apart", "rows_matter", "columns_matter"),
    [("none", False, False), ("bidders", True, False), ("items", False, True), ("both", True, True)],
)
def test_positions_tell_apart_what_they_should(
    net: str, told_apart: str, rows_matter: bool, columns_matter: bool
) -> None:
    built, profiles = network(net, 2, 3, told_apart=told_apart), bids(4, 2, 3)
    outcome = built(profiles)
    rows, columns = built(profiles[:, [1, 0]]), built(profiles[:, :, [2, 0, 1]])
    assert torch.allclose(rows.allocation[:, [1, 0]], outcome.allocation, atol=1e-9) is not rows_matter
    assert torch.allclose(columns.allocation, outcome.allocation[:, :, [2, 0, 1]], atol=1e-9) is not columns_matter
    if told_apart != "none":
        with pytest.raises(InputError, match="apart by position, got 4"):
            built(bids(1, 4, 4))


def test_positions_of_a_single_bidder_are_not_encoded() -> None:
    names = build("regretformer", 1, 2, seed=0, told_apart="both").state_dict().keys()
    assert {name for name in names if name.startswith("positions.")} == {"positions.items"}


@torch.no_grad()
@pytest.mark.parametrize("net", ANY_SIZE)
def test_only_a_network_that_is_told_the_sizes_knows_them(net: str) -> None:
    """Means and attention do not change where every item is there twice."""
    profiles = bids(4, 2, 3)
    twice = profiles.repeat_interleave(2, dim=2)
    for told_apart in ("none", "sizes"):
        built = network(net, 2, 3, told_apart=told_apart)
        known = (built(twice).allocation[:, :, ::2] - built(profiles).allocation).abs().max()
        assert known > 1e-3 if told_apart == "sizes" else known < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("net", ANY_SIZE)
@pytest.mark.parametrize("told_apart", ["both", "sizes", "rivals"])
def test_positions_and_masks_go_together(net: str, told_apart: str) -> None:
    built = network(net, 3, 3, told_apart=told_apart)
    small, large = bids(1, 2, 2, 1), bids(1, 3, 3, 2)
    padded, mask = pad([small[0], large[0]])
    together = built(padded, mask)
    assert torch.allclose(together.payments[0, :2], built(small).payments[0], rtol=0, atol=1e-12)
    assert torch.allclose(together.payments[1], built(large).payments[0], rtol=0, atol=1e-12)


def test_highest_rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.tensor([[0.5, 0.2], [0.9, 0.2], [0.9, 0.7]])
    expected = torch.tensor([[0.9, 0.7], [0.9, 0.7], [0.9, 0.2]])
    without_last = torch.tensor([[0.9, 0.2], [0.5, 0.2]])
    mask = Presence(torch.tensor([[True, True, False]]), torch.ones(1, 2, dtype=torch.bool))
    for exporting in (False, True):
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda exporting=exporting: exporting)
        assert torch.equal(highest_rivals(values[:, :, None, None])[:, :, 0, 0], expected)
        assert torch.equal(highest_rivals(values[:, :, None, None], mask)[:2, :, 0, 0], without_last)
        assert not highest_rivals(values[:1, :, None, None]).any()


@torch.no_grad()
@pytest.mark.parametrize("net", ANY_SIZE)
def test_only_a_network_that_is_shown_rivals_sees_who_is_highest(net: str) -> None:
    """The first layer of another does not tell opponents of the same mean apart."""
    values = torch.tensor([[[0.5], [0.4], [0.4]], [[0.5], [0.1], [0.7]]], dtype=torch.float64)
    for told_apart in ("sizes", "rivals"):
        layer = network(net, 3, 1, told_apart=told_apart).input_layer
        first = layer(entries_first(values))[0, 0]
        assert torch.allclose(first[0], first[1], atol=1e-12) is (told_apart == "sizes")


def test_tanh_is_exact_in_value_and_gradient() -> None:
    x = torch.linspace(-800, 800, 16_001, dtype=torch.float64).requires_grad_()
    assert torch.allclose(tanh(x), torch.tanh(x), rtol=0, atol=1e-15)
    (ours,), (theirs,) = (torch.autograd.grad(f(x).sum(), x) for f in (tanh, torch.tanh))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-15)


def test_regretnet_is_one_of_the_networks() -> None:
    assert isinstance(build("regretnet", 1, 2, seed=0), RegretNet)
