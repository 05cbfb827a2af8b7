"""Training on several processes is the training on one, step by step."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import torch
from gt_core.parallel import ALONE

from regretformer.networks.build import build
from regretformer.networks.shared import SharedNetwork

STEPS = """
import dataclasses
import weakref
import torch
from gt_core.parallel import ALONE, join
from regretformer.config import PRESETS
from regretformer.train import Trainer

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
team = join("cpu")
for options in (
    {"setting": "1x2", "ascent_steps": 2},
    {"setting": "2x2", "batch": 96, "values_per_group": 32, "ascent_steps": 2},
    {"setting": "2x2", "net": "regretnet", "search": "published", "ascent_steps": 3},
    {"setting": "2x2..2x3", "net": "equivariantnet", "constraint": "augmented", "batch": 33, "values_per_group": 11},
):
    config = dataclasses.replace(PRESETS["smoke"], **options)
    together, alone = Trainer(config, team), Trainer(config, ALONE)
    for _ in range(6):
        torch.testing.assert_close(together.iterate(), alone.iterate(), rtol=0, atol=1e-12)
    for part in ("network", "constraint", "searches", "step"):
        torch.testing.assert_close(together.state_dict()[part], alone.state_dict()[part], rtol=0, atol=1e-12)
group = weakref.ref(torch.distributed.group.WORLD)
team.leave()
assert group() is None  # and with it its threads
"""


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def start(processes: int, *arguments: str) -> list[subprocess.Popen[str]]:
    """Python with these arguments in several processes, as torchrun starts them."""
    team = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": str(processes)}
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**team, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


def ends(started: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Exit status and standard error of each."""
    return [(process.wait(), text) for process in started for _, text in [process.communicate(timeout=120)]]


def test_two_processes_make_the_steps_of_one() -> None:
    for status, errors in ends(start(2, "-c", STEPS)):
        assert status == 0, errors


def test_a_team_of_one_evaluates_as_the_network_does() -> None:
    network, bids = build("equivariantnet", 2, 3, seed=1), torch.rand(5, 2, 3)
    shared = SharedNetwork(network, ALONE)
    torch.testing.assert_close(shared(bids), network(bids), rtol=0, atol=0)


def test_a_signal_to_one_process_stops_all_and_saves(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    options = ("--preset", "smoke", "--evaluation-valuations", "20", "--out-dir", str(directory))
    train = "from regretformer.cli import train; train()"
    long = start(2, "-c", train, *options, "--iterations", "30000")
    metrics = directory / "metrics.jsonl"
    while not metrics.is_file() or not metrics.read_text():
        assert all(process.poll() is None for process in long)
    long[1].send_signal(signal.SIGINT)
    for status, errors in ends(long):
        assert status == 130
        assert "stopped by SIGINT; --resume continues" in errors
    (checkpoint,) = (directory / "checkpoints").iterdir()
    assert int(checkpoint.name.removeprefix("step-")) == len(metrics.read_text().splitlines())


def test_the_command_under_torchrun(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python")
    train = (str(Path(sys.executable).with_name("regretformer-train")), "--preset", "smoke", "--iterations", "3")
    done = subprocess.run(
        [sys.executable, *torchrun, *train, "--evaluation-valuations", "20", "--out-dir", str(directory)],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((directory / "result.json").read_text())["revenue"] > 0
    assert done.stdout.count("regretformer · 1x2") == 1
