import pytest
import torch

from gt_core.errors import InputError
from gt_core.parallel import ALONE, Team, join


@pytest.mark.parametrize(("rows", "size"), [(8, 2), (7, 3), (2, 4), (0, 2)])
def test_shares_are_disjoint_in_order_and_complete(rows: int, size: int) -> None:
    shares = [list(range(rows))[Team(rank, size).own(rows)] for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(rows))
    assert max(map(len, shares)) <= -(-rows // size)


def test_alone_nothing_is_exchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join("cpu") is ALONE
    assert ALONE.leads
    assert ALONE.largest(3) == 3
    assert ALONE.tell("a word") == "a word"
    assert ALONE.device("cuda") == "cuda"
    rows = torch.rand(3, 2)
    assert ALONE.gather(rows, 3) is rows
    assert ALONE.fan_out(rows) is rows
    ALONE.sum_gradients([rows])
    ALONE.leave()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="local rank 1 for device cuda, and torch sees 1 GPUs: start one process per"):
        join("cuda")
