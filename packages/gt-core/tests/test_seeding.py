import json

import pytest
import torch

from gt_core.seeding import Streams, derive_seed


def test_seed_depends_on_every_name() -> None:
    seeds = {derive_seed(0), derive_seed(1), derive_seed(0, "a"), derive_seed(0, "b"), derive_seed(0, "a", "b")}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed(7, "valuations") == 8084208091887268084


def test_seed_negative_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        Streams(-1)


def test_streams_do_not_shift_each_other() -> None:
    alone, together = Streams(3), Streams(3)
    torch.rand(5, generator=together.torch("other"))
    together.numpy("x").random(5)
    draw = [torch.rand(4, generator=streams.torch("x")) for streams in (alone, together)]
    assert torch.equal(*draw)


def test_streams_continue_from_a_saved_state() -> None:
    streams = Streams(5)
    torch.rand(3, generator=streams.torch("a"))
    streams.numpy("b").random(3)
    state = streams.state_dict()
    state["numpy"] = json.loads(json.dumps(state["numpy"]))
    expected = (torch.rand(3, generator=streams.torch("a")), streams.numpy("b").random(3).tolist())

    resumed = Streams(5)
    resumed.load_state_dict(state)
    assert torch.equal(torch.rand(3, generator=resumed.torch("a")), expected[0])
    assert resumed.numpy("b").random(3).tolist() == expected[1]
