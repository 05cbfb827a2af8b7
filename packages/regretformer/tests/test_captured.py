"""Utilities from a recorded graph against those evaluated one by one; recording itself needs a GPU."""

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from regretformer import captured
from regretformer.captured import captured_utility, utility_and_slope
from regretformer.misreports import ascend, frozen
from regretformer.networks.build import NetName, build

NETS: tuple[NetName, ...] = ("regretformer", "equivariantnet", "regretnet")


def drawn(seed: int, batch: int = 7, device: str = "cpu") -> Tensor:
    return torch.rand(batch, 2, 3, generator=torch.Generator().manual_seed(seed)).to(device)


def work_again(work: Callable[[], None]) -> Callable[[], None]:
    work()
    return work


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU nothing is recorded: a graph's memory is written by doing the work again."""
    monkeypatch.setattr(captured, "_record", work_again)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("net", NETS)
def test_a_graph_follows_profiles_reports_and_weights(net: NetName) -> None:
    network = build(net, 2, 3, seed=0)
    first = captured_utility(network, drawn(0), 1)
    for seed in (1, 2):
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(1.1)
        profiles, reports = drawn(seed), drawn(seed + 10)[:, 1]
        graph = captured_utility(network, profiles, 1)
        assert graph is not None
        assert graph is first
        expected = utility_and_slope(network, profiles, 1, reports)
        torch.testing.assert_close(graph(reports, differentiate=True), expected, rtol=0, atol=0)
        utility, slope = graph(reports, differentiate=False)
        torch.testing.assert_close(utility, expected[0], rtol=0, atol=0)
        assert slope is None


@pytest.mark.usefixtures("recorded")
def test_answers_are_not_overwritten_by_the_next() -> None:
    graph = captured_utility(build("regretnet", 2, 3, seed=0), drawn(0), 0)
    assert graph is not None
    utility, _ = graph(drawn(1)[:, 0], differentiate=True)
    kept = utility.clone()
    graph(drawn(2)[:, 0], differentiate=True)
    torch.testing.assert_close(utility, kept, rtol=0, atol=0)


def test_graphs_are_few_and_go_with_their_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "_record", lambda work: work() or (lambda: None))  # keeps no more than CUDA does
    network = build("regretnet", 2, 3, seed=0)
    for batch in range(1, 12):
        captured_utility(network, drawn(0, batch), 0)
    assert len(captured._GRAPHS[network]) == captured._AT_MOST
    before = len(captured._GRAPHS)
    del network
    gc.collect()
    assert len(captured._GRAPHS) < before


def test_a_refused_graph_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(captured, "_record", refuse)
    network = build("regretnet", 2, 3, seed=0)
    with pytest.warns(UserWarning, match=r"one by one, since CUDA says: operation not permitted") as said:
        found = [captured_utility(network, drawn(seed), 0) for seed in (0, 1)]
    assert found == [None, None]
    assert len(said) == 1


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("net", NETS)
def test_an_ascent_by_graphs_equals_one_kernel_by_kernel(net: NetName, monkeypatch: pytest.MonkeyPatch) -> None:
    network, low, high = build(net, 2, 3, seed=0).cuda(), torch.zeros(3).cuda(), torch.ones(3).cuda()
    found = []
    for graphs in (True, False):
        if not graphs:
            monkeypatch.setattr("regretformer.misreports.captured_utility", lambda *_: None)
        with frozen(network):
            parts = [
                ascend(network, profiles, 1, profiles[:, 1], low, high, steps=20, rate=0.1)
                for profiles in (drawn(seed, 64, "cuda") for seed in (0, 1))
            ]
        found.append(parts)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
