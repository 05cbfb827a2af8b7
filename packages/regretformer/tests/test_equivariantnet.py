"""EquivariantNet against its definition, one entry at a time, and its symmetry."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from regretformer.networks.equivariantnet import EquivariantNet, published_layers
from regretformer.networks.exchangeable import Exchangeable


def network(layers: int = 4) -> EquivariantNet:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return EquivariantNet(layers, channels=6).double()


def bids(count: int, bidders: int, items: int, seed: int = 0) -> Tensor:
    return torch.rand(count, bidders, items, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exchange(layer: Exchangeable, x: dict[tuple[int, int], Tensor], n: int, m: int) -> dict[tuple[int, int], Tensor]:
    """An entry, the means over bidders and over items that it belongs to, and the mean of all."""
    result = {}
    for i, j in x:
        over_bidders = sum(x[k, j] for k in range(n)) / n
        over_items = sum(x[i, k] for k in range(m)) / m
        over_both = sum(x.values()) / (n * m)
        result[i, j] = (
            layer.own.weight @ x[i, j]
            + layer.own.bias
            + layer.over_bidders.weight @ over_bidders
            + layer.over_items.weight @ over_items
            + layer.over_both.weight @ over_both
        )
    return result


def by_definition(net: EquivariantNet, profile: Tensor) -> tuple[Tensor, Tensor]:
    n, m = profile.shape
    x = {(i, j): profile[i, j].reshape(1) for i in range(n) for j in range(m)}
    for layer in (net.input_layer, *net.body_layers):
        x = {entry: value.relu() for entry, value in exchange(layer, x, n, m).items()}
    logits, shares = exchange(net.allocation_layer, x, n, m), exchange(net.payment_layer, x, n, m)
    allocation = torch.empty_like(profile)
    for j in range(m):
        column = torch.cat([logits[i, j] for i in range(n)])
        weights = torch.cat([column, -column.sum().reshape(1)]).exp()
        allocation[:, j] = weights[:-1] / weights.sum()
    fractions = torch.cat([sum(shares[i, j] for j in range(m)) / m for i in range(n)]).sigmoid()
    return allocation, fractions * (allocation * profile).sum(-1)


@torch.no_grad()
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 4)])
def test_equivariantnet_equals_its_definition(n: int, m: int) -> None:
    net, profiles = network(), bids(3, n, m)
    outcome = net(profiles)
    for index, profile in enumerate(profiles):
        allocation, payments = by_definition(net, profile)
        assert torch.allclose(outcome.allocation[index], allocation, atol=1e-12)
        assert torch.allclose(outcome.payments[index], payments, atol=1e-12)


@torch.no_grad()
@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(1, 4), m=st.integers(1, 4), seed=st.integers(0, 10**6), data=st.data())
def test_equivariantnet_commutes_with_permutations(n: int, m: int, seed: int, data: st.DataObject) -> None:
    rows, columns = data.draw(st.permutations(range(n))), data.draw(st.permutations(range(m)))
    net, profiles = network(), bids(3, n, m, seed)
    outcome, permuted = net(profiles), net(profiles[:, rows][:, :, columns])
    assert torch.allclose(permuted.allocation, outcome.allocation[:, rows][:, :, columns], atol=1e-12)
    assert torch.allclose(permuted.payments, outcome.payments[:, rows], atol=1e-12)


def test_equivariantnet_has_the_published_number_of_layers() -> None:
    assert [published_layers(n, m) for n, m in ((1, 2), (2, 2), (2, 3), (2, 5), (3, 10))] == [3, 3, 5, 6, 6]
