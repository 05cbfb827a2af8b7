"""How fast the networks train, beside the published loop: ratios within one run.

One iteration is the published one: 512 valuations, 50 Adam steps of 0.1 on one misreport per valuation and bidder, then
one gradient step on the weights. Both ways do the same mathematics from the same starts; what differs is how:

- published, as the specification of the official code describes it: one tensor of misreports for all bidders, every
  profile repeated for each of them, utilities of all n x n pairs of bidder and deviation masked to the deviating one,
  gradients computed for the weights too, and networks that project queries, keys and values apart;
- ours: `regretformer.misreports.ascend`, bidder by bidder, with the derivatives of the package's networks written out.

Published and ours take turns, the published in a process of its own, where memory is managed as torch finds it, after
it is seen that both answer equally. Figures are medians of the rounds, on one thread of CPU time, which other work on
the machine disturbs less. A large setting is timed on fewer inner steps; an iteration is 50 of them and, once, what
begins and ends our searches and the step on the weights. Floating-point operations are those of the published network's
matrix products, taken twice for the derivative; the share is of this machine's rate for a product of the size of
RegretFormer's projections, measured in the same run.

    python benchmarks/regretformer_training.py [--quick] [--threads 1] [--settings 2x2 2x5] [--nets regretformer]
"""

import argparse
import functools
import math
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor

import torch
from gt_core.environment import prepare
from regretformer.auction import replace_report, utilities
from regretformer.misreports import ascend, frozen
from regretformer.networks.build import NetName, build
from regretformer.networks.network import AuctionNetwork
from regretformer.setting import Setting, parse_setting
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

SETTINGS = ("1x2", "2x2", "2x3", "2x5", "3x10")
NETS: tuple[NetName, ...] = ("regretformer", "equivariantnet", "regretnet")
BATCH, STEPS, RATE = 512, 50, 0.1
COSTLY = 2e9  # operations of a forward pass from which on an inner step is timed alone


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    work()
    return clock() - start


def matrix_rate() -> float:
    """Floating-point operations per second of a matrix product."""
    tokens, weights = torch.rand(1024, 128), torch.rand(128, 768)
    return 2 * tokens.numel() * 768 / min(seconds(lambda: tokens @ weights) for _ in range(50))


def published_network(net: NetName, bidders: int, items: int) -> nn.Module:
    """An untrained network with the published shape."""
    plain = {"regretformer": PlainRegretFormer, "equivariantnet": PlainEquivariantNet, "regretnet": PlainRegretNet}[net]
    return plain(build(net, bidders, items, seed=0))


class Plain(nn.Module):
    """The modules of a network of the package, which are layers of torch, applied one after the other.

    Args:
        layers: the network whose modules to take.
    """

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        for name, module in layers.named_children():
            self.add_module(name, module)

    def forward(self, bids: Tensor) -> tuple[Tensor, Tensor]:
        """Allocation [B, n, m] and payments [B, n]."""
        allocation, fractions = self.decide(bids)
        return allocation, fractions * (allocation * bids).sum(-1)


def exchangeable(layer: nn.Module, x: Tensor) -> Tensor:
    """Own, row, column and matrix layers, each applied to its mean, [B, n, m, c]."""
    rows, columns, matrix = x.mean(1, keepdim=True), x.mean(2, keepdim=True), x.mean((1, 2), keepdim=True)
    return layer.own(x) + layer.over_bidders(rows) + layer.over_items(columns) + layer.over_both(matrix)


def sell(logits: Tensor) -> Tensor:
    """Softmax over bidders and a dummy whose logit is minus the sum of theirs."""
    return torch.softmax(torch.cat([logits, -logits.sum(1, keepdim=True)], dim=1), dim=1)[:, :-1]


class PlainRegretNet(Plain):
    """Two perceptrons with tanh."""

    def decide(self, bids: Tensor) -> tuple[Tensor, Tensor]:
        """Allocation and payment fractions."""
        logits = self._perceptron(self.allocation_layers, bids.flatten(1)).view(len(bids), -1, bids.shape[2])
        fractions = torch.sigmoid(self._perceptron(self.payment_layers, bids.flatten(1)))
        return torch.softmax(logits, dim=1)[:, :-1], fractions

    @staticmethod
    def _perceptron(layers: nn.ModuleList, x: Tensor) -> Tensor:
        for layer in layers[:-1]:
            x = torch.tanh(layer(x))
        return layers[-1](x)


class PlainEquivariantNet(Plain):
    """Exchangeable layers with ReLU."""

    def decide(self, bids: Tensor) -> tuple[Tensor, Tensor]:
        """Allocation and payment fractions."""
        x = F.relu(exchangeable(self.input_layer, bids.unsqueeze(-1)))
        for layer in self.body_layers:
            x = F.relu(exchangeable(layer, x))
        logits = exchangeable(self.allocation_layer, x).squeeze(-1)
        return sell(logits), torch.sigmoid(exchangeable(self.payment_layer, x).squeeze(-1).mean(-1))


class PlainRegretFormer(Plain):
    """Attention over items and over bidders."""

    def decide(self, bids: Tensor) -> tuple[Tensor, Tensor]:
        """Allocation and payment fractions."""
        x = torch.tanh(exchangeable(self.input_layer, bids.unsqueeze(-1)))
        for block in self.blocks:
            over_items = self._attend(block.item_attention, x)
            over_bidders = self._attend(block.bidder_attention, x.transpose(1, 2)).transpose(1, 2)
            x = torch.tanh(block.join(torch.tanh(torch.cat([over_items, over_bidders], dim=-1))) + x)
        z = self.head.norm(x)
        bidders, items = self.head.bidder_vectors(z).mean(2), self.head.item_vectors(z).mean(1)
        logits = bidders @ items.transpose(1, 2) / math.sqrt(z.shape[-1])
        return sell(logits), torch.sigmoid(self.head.fractions(bidders)).squeeze(-1)

    @staticmethod
    def _attend(layer: nn.Module, x: Tensor) -> Tensor:
        """Multi-head attention along the third axis with the norm in front and a residual."""
        z = layer.norm(x)
        q, k, v = (
            part(z).unflatten(-1, (layer.heads, layer.head_channels)).transpose(2, 3)
            for part in (layer.queries, layer.keys, layer.values)
        )
        weights = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(layer.head_channels), dim=-1)
        return layer.output((weights @ v).transpose(2, 3).flatten(3)) + x


def published_search(network: nn.Module, profiles: Tensor, steps: int) -> Tensor:
    """Misreports [n, B, n, m], of which row i of the i-th is bidder i's, by the published loop."""
    bidders = profiles.shape[1]
    misreports = nn.Parameter(torch.rand(bidders, *profiles.shape))
    optimiser = torch.optim.Adam([misreports], lr=RATE)
    for _ in range(steps):
        optimiser.zero_grad()
        network.zero_grad()
        (-_masked_utilities(network, profiles, misreports).sum()).backward()
        optimiser.step()
        with torch.no_grad():
            misreports.clamp_(0, 1)
    return misreports.detach()


def _masked_utilities(network: nn.Module, profiles: Tensor, misreports: Tensor) -> Tensor:
    """Utility of bidder i where bidder i deviates, zero for all other pairs, [n, B, n]."""
    bidders = profiles.shape[1]
    deviates = torch.eye(bidders).view(bidders, 1, bidders, 1)
    repeated = profiles.repeat(bidders, 1, 1, 1)
    bids = repeated * (1 - deviates) + misreports * deviates
    allocation, payments = network(bids.flatten(0, 1))
    values = (allocation.view_as(bids) * repeated).sum(-1)
    return (values - payments.view(values.shape)) * deviates.squeeze(-1)


def published_step(network: nn.Module, profiles: Tensor, misreports: Tensor, optimiser: torch.optim.Optimizer) -> None:
    """One gradient step on the weights, with a multiplier of 1."""
    optimiser.zero_grad()
    allocation, payments = network(profiles)
    truthful = (allocation * profiles).sum(-1) - payments
    deviating = _masked_utilities(network, profiles, misreports).sum(0)
    loss = -payments.sum(-1).mean() + (deviating - truthful).clamp_min(0).mean(0).sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()


def our_search(network: AuctionNetwork, profiles: Tensor, steps: int) -> list[Tensor]:
    """The misreport of each bidder, n times [B, m]."""
    low, high = torch.zeros(profiles.shape[2]), torch.ones(profiles.shape[2])
    with frozen(network):
        return [
            ascend(
                network, profiles, bidder, torch.rand_like(profiles[:, bidder]), low, high,
                steps=steps, rate=RATE, decay=False, best_iterate=False,
            )[0]
            for bidder in range(profiles.shape[1])
        ]  # fmt: skip


def our_step(
    network: AuctionNetwork, profiles: Tensor, misreports: list[Tensor], optimiser: torch.optim.Optimizer
) -> None:
    """One gradient step on the weights, with a multiplier of 1."""
    optimiser.zero_grad()
    bidders = len(misreports)
    reported = [replace_report(profiles, bidder, report) for bidder, report in enumerate(misreports)]
    outcome = network(torch.cat([profiles, *reported]))
    gained = utilities(profiles.repeat(bidders + 1, 1, 1), outcome).unflatten(0, (bidders + 1, -1))
    regret = (gained[1:].diagonal(dim1=0, dim2=2) - gained[0]).clamp_min(0).mean(0).sum()
    loss = -outcome.payments[: len(profiles)].sum(-1).mean() + regret
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()


@functools.cache
def published_case(net: NetName, name: str) -> tuple[nn.Module, Tensor, torch.optim.Optimizer]:
    """Published network, valuations and optimiser, made once."""
    setting = parse_setting(name)
    network = published_network(net, setting.bidders, setting.items)
    return network, torch.rand(BATCH, setting.bidders, setting.items), torch.optim.Adam(network.parameters(), lr=1e-3)


def published_times(net: NetName, name: str, steps: int) -> tuple[float, float]:
    """Seconds of an inner step and of a step on the weights, published."""
    network, profiles, optimiser = published_case(net, name)
    misreports = published_search(network, profiles, 0)
    inner = seconds(lambda: published_search(network, profiles, steps)) / steps
    return inner, seconds(lambda: published_step(network, profiles, misreports, optimiser))


@functools.cache
def our_case(net: NetName, name: str) -> tuple[AuctionNetwork, Tensor, torch.optim.Optimizer]:
    """Our network, valuations and optimiser, made once."""
    setting = parse_setting(name)
    network = build(net, setting.bidders, setting.items, seed=0)
    return network, torch.rand(BATCH, setting.bidders, setting.items), torch.optim.Adam(network.parameters(), lr=1e-3)


def our_times(net: NetName, name: str, steps: int) -> tuple[float, float]:
    """Seconds of an inner step, and of what begins and ends the searches and a step on the weights, ours."""
    network, profiles, optimiser = our_case(net, name)
    misreports = our_search(network, profiles, 0)
    ends = seconds(lambda: our_search(network, profiles, 0))
    inner = (seconds(lambda: our_search(network, profiles, steps)) - ends) / steps
    return inner, ends + seconds(lambda: our_step(network, profiles, misreports, optimiser))


def operations(net: NetName, setting: Setting) -> int:
    """Floating-point operations of a forward pass on the batch, once it is seen that both networks answer equally."""
    ours = build(net, setting.bidders, setting.items, seed=0)
    theirs = published_network(net, setting.bidders, setting.items)
    profiles = torch.rand(BATCH, setting.bidders, setting.items)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        told = theirs(profiles)
    for one, other in zip(told, ours(profiles), strict=True):
        torch.testing.assert_close(one, other)
    return counter.get_total_flops()


def measure(net: NetName, name: str, steps: int, rounds: int, apart: Executor) -> list[list[float]]:
    """Milliseconds of an inner step and of a step on the weights, published and ours; the first round warms up."""
    times = [(apart.submit(published_times, net, name, steps).result(), our_times(net, name, steps))
             for _ in range(rounds + 1)]  # fmt: skip
    return [[1e3 * statistics.median(part) for part in zip(*way, strict=True)] for way in zip(*times[1:], strict=True)]


def main() -> None:
    """Print one line per network and setting."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round, without 2x5 and 3x10")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", nargs="*", default=None, choices=SETTINGS)
    parser.add_argument("--nets", nargs="*", default=NETS, choices=NETS)
    options = parser.parse_args()
    prepare("cpu", options.threads)
    rate = matrix_rate()
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s on {options.threads} thread(s)")
    print(f"{'setting':8} {'net':15} {'ms/inner step':>22} {'ms/iteration':>23} {'':>6} {'GFLOP/s':>8} {'share':>6}")
    print(f"{'':8} {'':15} {'published':>12} {'ours':>9} {'published':>13} {'ours':>9} {'faster':>6}")
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, torch.set_num_threads, (options.threads,)) as apart:
        for name in options.settings or (SETTINGS[:3] if options.quick else SETTINGS):
            for net in options.nets:
                setting = parse_setting(name)
                forward = operations(net, setting)
                steps = 1 if forward > COSTLY else 5
                ways = measure(net, name, steps, 1 if options.quick else options.rounds, apart)
                (theirs, ours), whole = ways, [STEPS * inner + outer for inner, outer in ways]
                done = 2 * setting.bidders * forward / (ours[0] / 1e3)
                print(
                    f"{name:8} {net:15} {theirs[0]:12.2f} {ours[0]:9.2f} {whole[0]:13.0f} {whole[1]:9.0f} "
                    f"{whole[0] / whole[1]:5.1f}x {done / 1e9:8.0f} {done / rate:6.0%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
