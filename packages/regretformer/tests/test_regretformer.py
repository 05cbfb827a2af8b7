"""The network against its definition, written out with loops, and what holds for every mechanism of its kind."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from regretformer.networks.regretformer import Attention, RegretFormer, Shape, published_shape

SMALL = Shape(channels=8, head_channels=4, heads=2, blocks=2)


def network(shape: Shape = SMALL, seed: int = 0) -> RegretFormer:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        built = RegretFormer(shape).double()
        for parameter in built.parameters():  # away from the initial state, where norms and biases do nothing
            parameter.data += 0.3 * torch.randn_like(parameter)
    return built


def bids(count: int, bidders: int, items: int, seed: int = 0) -> Tensor:
    return torch.rand(count, bidders, items, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("bidders", "items", "count"),
    [(1, 2, 12_705), (2, 2, 49_985), (2, 3, 49_985), (2, 5, 362_753), (3, 10, 362_753)],
)
def test_network_has_the_published_number_of_parameters(bidders: int, items: int, count: int) -> None:
    built = RegretFormer(published_shape(bidders, items))
    assert sum(parameter.numel() for parameter in built.parameters()) == count


def attend(layer: Attention, rows: list[Tensor]) -> list[Tensor]:
    """Self-attention of one sequence, one pair of positions and one head at a time."""
    d = layer.head_channels
    normed = [nn.functional.layer_norm(x, x.shape, layer.norm.weight, layer.norm.bias, 1e-6) for x in rows]
    results = []
    for row, z in zip(rows, normed, strict=True):
        heads = []
        for h in range(layer.heads):
            part = slice(h * d, (h + 1) * d)
            query = (layer.queries.weight @ z)[part]
            scores = torch.stack([query @ (layer.keys.weight @ other)[part] / math.sqrt(d) for other in normed])
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(w * (layer.values.weight @ o)[part] for w, o in zip(weights, normed, strict=True)))
        results.append(layer.output.weight @ torch.cat(heads) + row)
    return results


def by_definition(net: RegretFormer, profile: Tensor) -> tuple[Tensor, Tensor]:
    n, m = profile.shape
    layer = net.input_layer

    def entry(i: int, j: int) -> Tensor:
        own, row, column, both = profile[i, j], profile[:, j].mean(), profile[i].mean(), profile.mean()
        mixed = layer.own.weight * own + layer.over_bidders.weight * row
        mixed = mixed + layer.over_items.weight * column + layer.over_both.weight * both
        return torch.tanh(mixed.squeeze(-1) + layer.own.bias)

    x = {(i, j): entry(i, j) for i in range(n) for j in range(m)}
    for block in net.blocks:
        over_items = {i: attend(block.item_attention, [x[i, j] for j in range(m)]) for i in range(n)}
        over_bidders = {j: attend(block.bidder_attention, [x[i, j] for i in range(n)]) for j in range(m)}
        x = {
            (i, j): torch.tanh(block.join(torch.tanh(torch.cat([over_items[i][j], over_bidders[j][i]]))) + x[i, j])
            for i in range(n)
            for j in range(m)
        }
    head = net.head
    z = {key: head.norm(value) for key, value in x.items()}
    a = [sum(head.bidder_vectors(z[i, j]) for j in range(m)) / m for i in range(n)]
    t = [sum(head.item_vectors(z[i, j]) for i in range(n)) / n for j in range(m)]
    allocation = torch.empty(n, m, dtype=profile.dtype)
    for j in range(m):
        logits = torch.stack([a[i] @ t[j] / math.sqrt(len(a[i])) for i in range(n)])
        weights = torch.cat([logits, -logits.sum().reshape(1)]).exp()
        allocation[:, j] = weights[:-1] / weights.sum()
    fractions = torch.stack([torch.sigmoid(head.fractions(a[i])).squeeze() for i in range(n)])
    return allocation, fractions * (allocation * profile).sum(-1)


@torch.no_grad()
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 2), (2, 1), (2, 3), (3, 2), (2, 4), (5, 2)])
def test_network_equals_its_definition(n: int, m: int) -> None:
    net, profile = network(), bids(1, n, m)[0]
    outcome = net(profile.unsqueeze(0))
    allocation, payments = by_definition(net, profile)
    assert torch.allclose(outcome.allocation[0], allocation, atol=1e-12)
    assert torch.allclose(outcome.payments[0], payments, atol=1e-12)


@torch.no_grad()
@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(1, 5), m=st.integers(1, 5), seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 1.0, 100.0]))
def test_network_is_feasible_and_individually_rational(n: int, m: int, seed: int, scale: float) -> None:
    profiles = scale * bids(4, n, m, seed)
    outcome = network(seed=seed)(profiles)
    assert outcome.allocation.min() >= 0
    assert outcome.allocation.sum(1).max() <= 1 + 1e-12
    assert outcome.payments.min() >= 0
    assert ((profiles * outcome.allocation).sum(-1) - outcome.payments).min() >= -1e-12 * max(scale, 1)


@torch.no_grad()
@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(1, 4), m=st.integers(1, 4), seed=st.integers(0, 10**6), data=st.data())
def test_network_commutes_with_permutations(n: int, m: int, seed: int, data: st.DataObject) -> None:
    rows, columns = data.draw(st.permutations(range(n))), data.draw(st.permutations(range(m)))
    net, profiles = network(), bids(3, n, m, seed)
    outcome, permuted = net(profiles), net(profiles[:, rows][:, :, columns])
    assert torch.allclose(permuted.allocation, outcome.allocation[:, rows][:, :, columns], atol=1e-12)
    assert torch.allclose(permuted.payments, outcome.payments[:, rows], atol=1e-12)


@torch.no_grad()
def test_network_treats_profiles_independently() -> None:
    net, profiles = network(), bids(6, 2, 3)
    together = net(profiles)
    for index in range(6):
        assert torch.allclose(net(profiles[index : index + 1]).payments, together.payments[index], atol=1e-13)
