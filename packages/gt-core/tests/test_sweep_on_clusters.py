"""Sweeps on a Ray cluster of two nodes, one of which is lost, and through submitit."""

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gt_core.errors import InputError
from gt_core.sweep.driver import SweepStopped, sweep
from gt_core.sweep.grid import Cell
from gt_core.sweep.ray_cluster import RayCluster
from gt_core.sweep.slurm import Slurm
from gt_core.sweep.worker import Task, run_cell

TESTS = Path(__file__).parent


pytestmark = pytest.mark.usefixtures("toy")


def results(cells: list[Cell]) -> list[bytes]:
    return [(cell.config.directory / "result.json").read_bytes() for cell in cells]


def run_here(cells: list[Cell], function: str) -> list[bytes]:
    for cell in cells:
        assert run_cell(Task(f"toy_training:{function}", cell.config, Path.cwd())).error == ""
    return results(cells)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head and a node, of one CPU each, that notice a lost node within seconds."""
    environment = {
        "HOME": str(tmp_path_factory.mktemp("home")),  # Ray keeps a token there
        "PYTHONPATH": str(TESTS),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    system = {"health_check_period_ms": 500, "health_check_timeout_ms": 500, "health_check_failure_threshold": 4}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        made = Cluster(
            initialize_head=True, head_node_args={**node, "include_dashboard": False, "_system_config": system}
        )
        made.second = made.add_node(**node)
        yield made
        made.shutdown()


def test_sweep_on_ray_survives_the_loss_of_a_node(
    cluster: Any, toy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = run_here(toy.cells_in("here", 4), "train")
    cells = toy.cells_in("there", 4, pause=0.3)

    def lose_a_node() -> None:
        while not all(any(cell.config.directory.glob("checkpoints/step-*")) for cell in cells[:2]):
            time.sleep(0.05)
        cluster.remove_node(cluster.second, allow_graceful=False)

    backend = RayCluster(cluster.address)
    assert backend.slots == 2
    thread = threading.Thread(target=lose_a_node)
    thread.start()
    with (tmp_path / "stderr").open("w") as stderr:
        outcomes = sweep(cells, "toy_training:train", backend, console=Console(file=stderr, width=200))
    thread.join()
    said = (tmp_path / "stderr").read_text()
    assert [outcome.status for outcome in outcomes] == ["finished"] * 4, said
    assert sum(outcome.deaths for outcome in outcomes) == 1, said
    assert "died: Task failed because the node it was running on is dead or unavailable; it goes on from" in said
    assert re.search(r"4/4  0:00:00 left  running 0  failed 0  deaths 1", said)
    assert results(cells) == expected
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "stderr", "there"]


def test_sweep_on_ray_stopped_and_repeated_goes_on(cluster: Any, toy: Any) -> None:
    expected = run_here(toy.cells_in("here", 1), "train")
    cells = toy.cells_in("there", 1, pause=0.3)

    def interrupt() -> None:
        while not any(cells[0].config.directory.glob("checkpoints/step-*")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(SweepStopped) as stopped:
        sweep(cells, "toy_training:train", RayCluster(cluster.address))
    thread.join()
    assert [outcome.status for outcome in stopped.value.outcomes] == ["stopped"]
    steps = sorted(path.name for path in cells[0].config.directory.glob("checkpoints/step-*"))
    assert steps[-1] < "step-000000008"
    outcomes = sweep(cells, "toy_training:train", RayCluster(cluster.address))
    assert [(outcome.status, outcome.deaths) for outcome in outcomes] == [("finished", 0)]
    assert results(cells) == expected
    walked = [int(line.split()[0]) for line in (cells[0].config.directory / "walked").read_text().splitlines()]
    assert walked == list(range(1, 9))  # no step twice: it saved itself when it was asked to stop


def test_cell_that_no_node_of_ray_could_run_is_named(cluster: Any) -> None:
    with pytest.raises(InputError, match=r"a cell takes 2 CPUs and 0 GPUs, but the Ray cluster's nodes have 1 CPUs"):
        RayCluster(cluster.address, threads=2)
    with pytest.raises(InputError, match="a cell takes 1 CPUs and 1 GPUs"):
        RayCluster(cluster.address, gpu=True)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("head", "address must be HOST:PORT of a Ray cluster's head, or auto, got 'head'"),
        ("ray://head:10001", "address must be HOST:PORT"),
        ("127.0.0.1:1", "address 127.0.0.1:1 does not answer"),
        ("127.0.0.1:99999", "address 127.0.0.1:99999 does not answer"),
    ],
)
def test_ray_address_that_does_not_answer_is_named(address: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RayCluster(address)


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"ray is not installed: pip install 'gt-core\[ray\]'"):
        RayCluster()


def test_sweep_through_submitit_retries_and_equals_the_cells_run_here(toy: Any, tmp_path: Path) -> None:
    expected = run_here(toy.cells_in("here", 2), "quick")
    cells = [*toy.cells_in("there", 1, fault="killed-once"), toy.cells_in("there", 2)[1]]
    outcomes = sweep(cells, "toy_training:quick", Slurm(Path("there"), {"timeout_min": 2}, cluster="local"))
    assert [(outcome.status, outcome.deaths) for outcome in outcomes] == [("finished", 1), ("finished", 0)]
    assert results(cells) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "there"]


def test_sweep_through_submitit_goes_on_when_its_time_is_over(toy: Any) -> None:
    """Submitit sends SIGUSR2 before the end of a job's time, and puts back into the queue what asks for it."""
    cells = toy.cells_in("there", 1, pause=0.3)
    backend = Slurm(Path("there"), {"timeout_min": 2}, cluster="local")

    def preempt() -> None:
        while not any(cells[0].config.directory.glob("checkpoints/step-*")):
            time.sleep(0.05)
        (walked,) = {line.split()[1] for line in (cells[0].config.directory / "walked").read_text().splitlines()}
        os.kill(int(walked), signal.SIGUSR2)

    thread = threading.Thread(target=preempt)
    thread.start()
    outcomes = sweep(cells, "toy_training:quick", backend)
    thread.join()
    assert [(outcome.status, outcome.deaths) for outcome in outcomes] == [("finished", 0)]
    assert results(cells) == run_here(toy.cells_in("here", 1), "quick")
    walked = [line.split() for line in (cells[0].config.directory / "walked").read_text().splitlines()]
    assert len({process for _, process, _ in walked}) == 2
    assert len(walked) <= 9  # at most one step twice


def test_slurm_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"submitit refuses the parameters \{'memory': 4\}"):
        Slurm(tmp_path, {"memory": 4}, cluster="local")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="there is no sbatch here"):
        Slurm(tmp_path, {})
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"submitit is not installed: pip install 'gt-core\[slurm\]'"):
        Slurm(tmp_path, {})
