import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gt_core import checkpoint as checkpoint_module
from gt_core.checkpoint import load_checkpoint, save_checkpoint
from gt_core.errors import CheckpointError


def a_state() -> dict[str, object]:
    network = torch.nn.Linear(3, 2)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    network(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return {
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "rng": torch.Generator().manual_seed(3).get_state(),
        "shape": (2, 3),
        "figures": [0.1, 1e-300, float("inf"), None, True, "text", 2**100],
    }


def assert_same(left: object, right: object) -> None:
    assert type(left) is type(right) or isinstance(left, dict)
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        assert left.dtype == right.dtype
        assert torch.equal(left, right)
    elif isinstance(left, dict) and isinstance(right, dict):
        assert list(left) == list(right)
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    else:
        assert left == right


def test_checkpoint_returns_what_was_saved(tmp_path: Path) -> None:
    state = a_state()
    save_checkpoint(tmp_path / "c", state)
    assert_same(load_checkpoint(tmp_path / "c"), state)


def test_checkpoint_keeps_views_and_shared_tensors_apart(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path / "c", {"a": base.T, "b": base, "c": base[0]})
    loaded = load_checkpoint(tmp_path / "c")
    assert torch.equal(loaded["a"], base.T)
    assert torch.equal(loaded["c"], base[0])


def test_checkpoint_is_never_rewritten(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"a": 1})
    with pytest.raises(FileExistsError, match="exists already"):
        save_checkpoint(tmp_path / "c", {"a": 2})
    assert load_checkpoint(tmp_path / "c") == {"a": 1}


@pytest.mark.parametrize(
    "state", [{"a": object()}, {"a": {1.5: 2}}, {"a": {True: 2}}, {"a": {1: torch.ones(1), "1": torch.ones(1)}}]
)
def test_checkpoint_refuses_what_it_cannot_hold(tmp_path: Path, state: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "c", state)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_checkpoint_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save_checkpoint(tmp_path / "c", a_state())
    (tmp_path / "c" / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_checkpoint_altered_file_is_refused(tmp_path: Path, name: str) -> None:
    """Every mutation is refused with one kind of error, and no other exception escapes."""
    save_checkpoint(tmp_path / "c", a_state())
    file = tmp_path / "c" / name
    original = file.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for trial in range(150):
        position = int(torch.randint(len(original), (), generator=generator))
        flipped = bytes([original[position] ^ (1 << trial % 8)])
        mutations = (original[:position], original[:position] + flipped + original[position + 1 :], original + b"x")
        mutated = mutations[trial % 3]
        file.write_bytes(mutated)
        try:
            loaded = load_checkpoint(tmp_path / "c")
        except CheckpointError:
            continue
        assert name == "manifest.json", "an altered content file was accepted"
        assert_same(json.loads(mutated), json.loads(original)) if trial % 3 != 1 else None
        assert loaded["shape"] == (2, 3)


def test_checkpoint_with_consistent_hashes_but_foreign_content_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "c", {"a": 1})
    foreign = b'{"$python": "os.system"}'
    (tmp_path / "c" / "state.json").write_bytes(foreign)
    manifest = json.loads((tmp_path / "c" / "manifest.json").read_text())
    manifest["files"]["state.json"] = checkpoint_module._digest(foreign)
    (tmp_path / "c" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="not a checkpoint of this format"):
        load_checkpoint(tmp_path / "c")


def test_checkpoint_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path / "old", {"a": 1})
    real, writes = checkpoint_module.write_synced, 0

    def write_synced(path: Path, data: bytes) -> None:
        nonlocal writes
        writes += 1
        if writes == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(checkpoint_module, "write_synced", write_synced)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path / "new", {"a": 2})
    assert [entry.name for entry in tmp_path.iterdir()] == ["old"]
    assert load_checkpoint(tmp_path / "old") == {"a": 1}


WRITER = """
import itertools, sys, torch
from pathlib import Path
from gt_core.checkpoint import save_checkpoint
for step in itertools.count():
    save_checkpoint(Path(sys.argv[1]) / f"step-{step:06d}", {"step": step, "x": torch.full((50_000,), float(step))})
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGKILL")
def test_checkpoint_survives_sigkill(tmp_path: Path) -> None:
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)])
        while len(list(folder.glob("step-*"))) < 2 + attempt:
            time.sleep(0.002)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        for saved in folder.glob("step-*"):
            loaded = load_checkpoint(saved)
            assert torch.equal(loaded["x"], torch.full((50_000,), float(loaded["step"])))
