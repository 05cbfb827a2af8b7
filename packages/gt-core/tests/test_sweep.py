"""Sweeps on this machine: what is run, what again, and what is left when somebody stops them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gt_core.sweep.driver import Outcome, sweep
from gt_core.sweep.grid import Cell
from gt_core.sweep.processes import Processes
from gt_core.sweep.worker import Report, Task, run_cell

TESTS = Path(__file__).parent


pytestmark = pytest.mark.usefixtures("toy")


def run(cells: list[Cell], function: str = "quick", **options: Any) -> tuple[list[Outcome], str]:
    with Path("stderr").open("w") as stderr:
        console = Console(file=stderr, width=200)
        outcomes = sweep(cells, f"toy_training:{function}", Processes(jobs=2), console=console, **options)
    return outcomes, Path("stderr").read_text()


def bytes_of(cells: list[Cell], name: str = "result.json") -> list[bytes]:
    return [(cell.config.directory / name).read_bytes() for cell in cells]


def walked(cell: Cell) -> list[int]:
    """The steps that were walked, by whatever process."""
    return [int(line.split()[0]) for line in (cell.config.directory / "walked").read_text().splitlines()]


def test_processes_give_the_bytes_of_cells_run_here_in_another_order(toy: Any, capfd: Any) -> None:
    here, there = toy.cells_in("here", 2), toy.cells_in("there", 2)
    for cell in reversed(here):
        assert run_cell(Task("toy_training:train", cell.config, Path.cwd())) == Report()
    capfd.readouterr()
    outcomes, said = run(there, "train")
    assert [(outcome.status, outcome.deaths, outcome.error) for outcome in outcomes] == [("finished", 0, "")] * 2
    for name in ("result.json", "metrics.jsonl"):
        assert bytes_of(here, name) == bytes_of(there, name)
    assert outcomes[0].result == json.loads(bytes_of(here)[0])
    assert 0 < outcomes[0].seconds < 60
    assert "2/2  0:00:00 left  running 0  failed 0  deaths 0" in said
    assert "8/8" in (there[0].config.directory / "worker.log").read_text()  # the run's own progress
    assert capfd.readouterr() == ("", "")


def test_sweep_runs_only_what_is_missing(toy: Any) -> None:
    first = toy.cells_in("runs", 1)
    run(first)
    before = (first[0].config.directory / "result.json").stat()
    cells = toy.cells_in("runs", 2)
    outcomes, _ = run(cells)
    assert [outcome.status for outcome in outcomes] == ["found", "finished"]
    assert (first[0].config.directory / "result.json").stat().st_mtime_ns == before.st_mtime_ns
    assert walked(cells[0]) == walked(cells[1]) == list(range(1, 9))


def test_killed_worker_goes_on_from_its_checkpoint(toy: Any) -> None:
    killed, straight = toy.cells_in("runs", fault="killed-once"), toy.cells_in("runs")
    outcomes, said = run([*killed, *straight], "train")
    assert [(outcome.status, outcome.deaths) for outcome in outcomes] == [("finished", 1), ("finished", 0)]
    assert f"{killed[0].config.directory} died: its process was killed by SIGKILL; it goes on from its" in said
    assert walked(killed[0]) == [1, 2, 3, 4, 4, 5, 6, 7, 8]
    for name in ("result.json", "metrics.jsonl"):
        assert bytes_of(killed, name) == bytes_of(straight, name)


def test_cell_that_dies_at_the_same_step_again_and_again_has_failed(toy: Any) -> None:
    cells = [*toy.cells_in("runs", fault="killed"), *toy.cells_in("runs")]
    outcomes, said = run(cells, retries=2)
    assert [(outcome.status, outcome.deaths) for outcome in outcomes] == [("failed", 4), ("finished", 0)]
    assert outcomes[0].error == "its process was killed by SIGKILL"
    assert walked(cells[0]) == [1, 2, 3, 4, 4, 4, 4]  # the first death was after progress; then three without
    assert "failed: its process was killed by SIGKILL; see worker.log there" in said
    assert (outcomes[0].seconds, outcomes[0].result) == (None, {})
    assert "2/2  0:00:00 left  running 0  failed 1  deaths 4" in said


def test_cell_that_gets_further_at_each_attempt_is_never_given_up(toy: Any) -> None:
    (outcome,), _ = run(toy.cells_in("runs", fault="killed-often"), retries=0)
    assert (outcome.status, outcome.deaths) == ("finished", 3)


@pytest.mark.parametrize(
    ("fault", "deaths", "error"),
    [("input", 1, "scale is not to our taste"), ("error", 2, "RuntimeError: out of luck")],
)
def test_bad_input_is_not_tried_again_and_other_errors_are(toy: Any, fault: str, deaths: int, error: str) -> None:
    (outcome,), _ = run(toy.cells_in("runs", fault=fault), retries=1)
    assert (outcome.status, outcome.deaths, outcome.error) == ("failed", deaths, error)
    log = (outcome.cell.config.directory / "worker.log").read_text()
    assert log.count("Traceback") == (deaths if fault == "error" else 0)


def test_cell_that_leaves_no_result_here_has_failed(toy: Any) -> None:
    (outcome,), _ = run(toy.cells_in("runs"), "log_nothing")
    assert outcome.status == "failed"
    assert "do all nodes see this folder?" in outcome.error


def test_two_workers_at_one_cell_take_turns(toy: Any) -> None:
    (cell,) = toy.cells_in("runs", pause=0.05)
    processes = Processes(jobs=2)
    task = Task("toy_training:quick", cell.config, Path.cwd())
    for _ in range(2):
        processes.submit(task)
    reports: list[Any] = []
    while len(reports) < 2:
        reports += [report for _, report in processes.reports(1.0)]
    assert reports == [Report()] * 2
    assert walked(cell) == list(range(1, 9))


def start(*args: str) -> "subprocess.Popen[str]":
    """The toy's command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "COLUMNS": "200"}
    code = "import toy_training; toy_training.main()"
    command = [sys.executable, "-W", "error", "-c", code, *args]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def at_work() -> set[int]:
    """The processes that walked and are alive."""
    lines = [line for file in Path("runs").glob("*/walked") for line in file.read_text().splitlines()]
    return {pid for pid in (int(line.split()[1]) for line in lines) if is_alive(pid)}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


LONG = ("--seeds", "3", "--jobs", "2", "--steps", "8", "--pause", "0.2")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks up processes")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_sweep_is_continued_by_the_same_command(toy: Any, signum: signal.Signals) -> None:
    driver = start(*LONG)
    wait_until(lambda: len(list(Path("runs").glob("*/checkpoints/step-000000002"))) == 2)
    workers = at_work()
    assert len(workers) == 2
    driver.send_signal(signum)
    out, err = driver.communicate(timeout=60)
    if signum == signal.SIGKILL:
        wait_until(lambda: not at_work())  # nobody told them; they noticed
    else:
        assert driver.returncode == 128 + signum
        assert "stopping: 2 cells save themselves" in err
        assert err.endswith(f"stopped by {signum.name}; the same command goes on\n")
        assert "3 stopped" in out
        assert not at_work()
    assert not list(Path("runs").glob("*/result.json"))

    again = start(*LONG, "--json")
    rows = json.loads(again.communicate(timeout=60)[0])
    assert again.returncode == 0
    assert [(row["status"], row["deaths"]) for row in rows] == [("finished", 0)] * 3
    for row, cell in zip(rows, toy.cells_in("here", 3), strict=True):
        run_cell(Task("toy_training:quick", cell.config, Path.cwd()))
        assert (Path(row["directory"]) / "result.json").read_bytes() == bytes_of([cell])[0]
        steps = [int(line.split()[0]) for line in (Path(row["directory"]) / "walked").read_text().splitlines()]
        assert len(steps) <= 9  # at most the step in which it was stopped was walked twice


def test_command_prints_a_table_or_json_and_its_status_tells_of_failures(toy: Any) -> None:
    typed = ("--scale", "1,2", "--fault", "none,input", "--retries", "0")
    command = start(*typed)
    out, err = command.communicate(timeout=60)
    assert command.returncode == 1
    assert "2 finished, 2 failed" in out
    assert [word for word in ("scale", "fault", "seed", "seconds", "x") if f" {word} " in out] == [
        "scale",
        "fault",
        "seconds",
        "x",
    ]
    assert "scale is not to our taste" in err
    again = start(*typed[:4], "--json")
    rows = json.loads(again.communicate(timeout=60)[0])
    assert again.returncode == 1
    assert [row["status"] for row in rows] == ["found", "failed", "found", "failed"]
    assert rows[2]["settings"] == {"scale": 2.0, "fault": "none"}
    assert rows[2]["figures"]["x"] == pytest.approx(2 * rows[0]["figures"]["x"])  # the walk is linear in its scale
    assert (rows[2]["seconds"], rows[2]["error"], rows[1]["error"]) == (0.25, "", "scale is not to our taste")
