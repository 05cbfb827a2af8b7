"""One run on several processes, as torchrun starts them: each knows its rank, all hold the same state.

    torchrun --nproc-per-node 2 --no-python regretformer-train --setting 2x2

The processes make the same random draws and the same decisions; they share out the costly part of each step and
exchange what came out. Rank 0 alone writes the run directory.
"""

import os
from importlib import import_module
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gt_core.errors import InputError

__all__ = ["ALONE", "Team", "join"]


class Team:
    """The processes of a run.

    Args:
        rank: which of them this is, from 0.
        size: how many there are; with one, every method returns what it was given.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def leads(self) -> bool:
        """Whether this process writes the run directory."""
        return self.rank == 0

    def device(self, asked: str) -> str:
        """The device of this process: of several GPUs on a machine, its own."""
        return f"cuda:{os.environ['LOCAL_RANK']}" if self.size > 1 and asked == "cuda" else asked

    def own(self, rows: int) -> slice:
        """Which of so many rows are this process's share: consecutive ones, as many for each, fewer for the last."""
        share = -(-rows // self.size)
        return slice(min(rows, self.rank * share), min(rows, (self.rank + 1) * share))

    def gather(self, own: Tensor, rows: int) -> Tensor:
        """All rows [rows, ...] from every process's share; the gradient returns to each row's owner."""
        if self.size == 1:
            return own
        gathered: Tensor = _Gather.apply(own, self, rows)
        return gathered

    def fan_out(self, whole: Tensor) -> Tensor:
        """`whole`, of which every process will use its share; the gradient is summed over all of them."""
        if self.size == 1:
            return whole
        same: Tensor = _FanOut.apply(whole)
        return same

    def sum_gradients(self, parameters: list[Tensor]) -> None:
        """Replace the gradient of each parameter by the sum over processes, in one exchange."""
        if self.size == 1:
            return
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])
        dist.all_reduce(flat)
        for parameter, summed in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = summed.view_as(parameter)

    def tell(self, what: Any) -> Any:  # noqa: ANN401 (anything that can be pickled)
        """What rank 0 says, in every process."""
        if self.size == 1:
            return what
        said = [what]
        dist.broadcast_object_list(said, src=0)
        return said[0]

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size == 1:
            return number
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        largest = torch.tensor(number, device=device)
        dist.all_reduce(largest, op=dist.ReduceOp.MAX)
        return int(largest)

    def leave(self) -> None:
        """End the exchange; every process calls it last."""
        if self.size > 1:
            dist.destroy_process_group()


ALONE = Team()
"""The team of a run on one process."""


def join(device: str) -> Team:
    """The team that torchrun's environment variables describe, by gloo on CPUs and nccl on GPUs; else `ALONE`.

    Raises:
        InputError: if torchrun started more processes than this machine has GPUs to run on.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ALONE
    team = Team(int(os.environ["RANK"]), size)
    on_gpu = device.startswith("cuda")
    if on_gpu:
        local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= there or device != "cuda":
            raise InputError(
                f"torchrun started a process with local rank {local} for device {device}, and torch sees {there} GPUs: "
                "start one process per GPU, with --device cuda"
            )
        torch.cuda.set_device(local)
    # Imported once there is a group, this module would hold it in its functions' defaults: then `leave` could not end
    # the group's threads, and one that still holds a tensor while Python shuts down aborts the process.
    import_module("torch.distributed.nn.functional")
    dist.init_process_group("nccl" if on_gpu else "gloo")
    return team


class _Gather(torch.autograd.Function):
    """Shares to the whole; back to the own share."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, team: Team, rows: int) -> Tensor:  # noqa: ANN401 (torch's own type)
        ctx.own = team.own(rows)
        padded = own.new_zeros((-(-rows // team.size), *own.shape[1:]))
        padded[: len(own)] = own
        whole = own.new_empty((team.size * len(padded), *own.shape[1:]))
        dist.all_gather_into_tensor(whole, padded)
        return whole[:rows]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return gradient[ctx.own], None, None


class _FanOut(torch.autograd.Function):
    """The whole to everybody; back to the sum of what each knows of the gradient."""

    @staticmethod
    def forward(ctx: Any, whole: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        return whole.view_as(whole)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ANN401, ARG004
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient
