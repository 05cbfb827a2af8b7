"""RegretNet against its definition, one profile and one unit at a time."""

import pytest
import torch
from torch import Tensor, nn

from regretformer.networks.regretnet import RegretNet, published_layers


def network(bidders: int, items: int, layers: int = 3) -> RegretNet:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        built = RegretNet(bidders, items, layers, width=5).double()
        for parameter in built.parameters():
            parameter.data += 0.3 * torch.randn_like(parameter)
    return built


def perceptron(layers: nn.ModuleList, x: list[float]) -> list[float]:
    for index, layer in enumerate(layers):
        x = [
            float(sum(w * value for w, value in zip(row.tolist(), x, strict=True)) + shift)
            for row, shift in zip(layer.weight, layer.bias.tolist(), strict=True)
        ]
        if index < len(layers) - 1:
            x = torch.tensor(x, dtype=torch.float64).tanh().tolist()
    return x


def by_definition(net: RegretNet, profile: Tensor) -> tuple[Tensor, Tensor]:
    n, m = profile.shape
    flat = [float(profile[i, j]) for i in range(n) for j in range(m)]
    logits = torch.tensor(perceptron(net.allocation_layers, flat), dtype=torch.float64)
    allocation = torch.empty_like(profile)
    for j in range(m):
        weights = torch.stack([logits[i * m + j] for i in range(n + 1)]).exp()  # the last row is "unsold"
        allocation[:, j] = weights[:-1] / weights.sum()
    fractions = torch.tensor(perceptron(net.payment_layers, flat), dtype=torch.float64).sigmoid()
    return allocation, fractions * (allocation * profile).sum(-1)


@torch.no_grad()
@pytest.mark.parametrize(("n", "m", "layers"), [(1, 1, 3), (1, 2, 3), (2, 2, 3), (2, 3, 6), (3, 2, 2)])
def test_regretnet_equals_its_definition(n: int, m: int, layers: int) -> None:
    net = network(n, m, layers)
    profiles = torch.rand(4, n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outcome = net(profiles)
    for index, profile in enumerate(profiles):
        allocation, payments = by_definition(net, profile)
        assert torch.allclose(outcome.allocation[index], allocation, atol=1e-12)
        assert torch.allclose(outcome.payments[index], payments, atol=1e-12)


def test_regretnet_has_the_published_number_of_layers() -> None:
    assert [published_layers(n, m) for n, m in ((1, 2), (2, 2), (2, 3), (2, 5), (3, 10))] == [3, 3, 3, 3, 6]
    assert [len(network(1, 2, layers).allocation_layers) for layers in (2, 6)] == [2, 6]
