"""The utility of a report and its gradient, recorded once as a CUDA graph and replayed.

An ascent evaluates the same network on batches of the same shape again and again. On a GPU each evaluation is some
hundreds of small kernels, and launching them one by one takes longer than they do; a graph is launched at once. It
reads the weights where they lie, so a network that learns between two searches needs no new one.
"""

import warnings
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from regretformer.auction import Mechanism, replace_report, utilities
from regretformer.networks.network import AuctionNetwork

__all__ = ["CapturedUtility", "captured_utility", "utility_and_slope"]

_AT_MOST = 8  # graphs of a network, each with memory of its own
_WARM_UP = 3  # evaluations in which libraries choose their algorithms and allocate

_Key = tuple[torch.Size, torch.dtype, torch.device, int, bool]
_GRAPHS: "WeakKeyDictionary[AuctionNetwork, dict[_Key, CapturedUtility | None]]" = WeakKeyDictionary()


def utility_and_slope(
    mechanism: Mechanism, profiles: Tensor, bidder: int, reports: Tensor, *, differentiate: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Utility [B] of a bidder in profiles [B, n, m] by its reports [B, m], and its gradient [B, m].

    There is no gradient if none is asked for, or if the mechanism has none.
    """
    with torch.set_grad_enabled(differentiate):
        reports = reports.detach().requires_grad_(differentiate)
        utility = utilities(profiles, mechanism(replace_report(profiles, bidder, reports)))[:, bidder]
    slope = torch.autograd.grad(utility.sum(), reports)[0] if utility.requires_grad else None
    return utility.detach(), slope


class CapturedUtility:
    """`utility_and_slope` of one network, bidder and shape.

    Args:
        network: its weights may change, but not move.
        profiles: of the shape [B, n, m] to come.
        bidder: who reports.
    """

    def __init__(self, network: AuctionNetwork, profiles: Tensor, bidder: int) -> None:
        self.profiles = profiles.clone()
        """What the next evaluations are for, to be written in place."""
        self._reports = profiles[:, bidder].clone()

        def evaluate() -> None:  # the network is not kept, so that it can go, and its graphs with it
            self._found = utility_and_slope(network, self.profiles, bidder, self._reports)

        self._replay = _record(evaluate)

    def __call__(self, reports: Tensor, *, differentiate: bool) -> tuple[Tensor, Tensor | None]:
        """Utility [B] of reports [B, m], and its gradient [B, m] if it is asked for."""
        self._reports.copy_(reports)
        self._replay()
        utility, slope = self._found
        return utility.clone(), slope.clone() if differentiate and slope is not None else None


def captured_utility(network: AuctionNetwork, profiles: Tensor, bidder: int) -> CapturedUtility | None:
    """The graph for these profiles, recorded when it is first needed; None, with a warning, if CUDA refuses it."""
    graphs = _GRAPHS.setdefault(network, {})
    learns = any(weight.requires_grad for weight in network.parameters())
    key = profiles.shape, profiles.dtype, profiles.device, bidder, learns
    if key not in graphs:
        if len(graphs) == _AT_MOST:
            del graphs[next(iter(graphs))]
        try:
            graphs[key] = CapturedUtility(network, profiles, bidder)
        except RuntimeError as error:
            warnings.warn(f"searches for misreports launch kernels one by one, since CUDA says: {error}", stacklevel=2)
            graphs[key] = None
    graph = graphs[key]
    if graph is not None:
        graph.profiles.copy_(profiles)
    return graph


def _record(work: Callable[[], None]) -> Callable[[], None]:
    """Do the work, and return what does it again to the tensors that it has left."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay
