"""Reproduction of a table of toys: what is run, resumed, listed, and written."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from gt_core.config import RunConfig
from gt_core.errors import InputError
from gt_core.reproduce.command import reproduce_command
from gt_core.reproduce.costs import Work, estimate
from gt_core.reproduce.experiment import Cost, Entry, Experiment, Finished, Line, Quantity, Row, Scale, cost_of, stored
from gt_core.reproduce.report import interval, panels
from gt_core.sweep.grid import Cell, make_cells

COSTS = {"measured on": "an abacus", "seconds_per_iteration": {"4": 0.5}}


def work_of(config: RunConfig) -> Work:
    return Work(str(config.steps), config.steps)  # type: ignore[attr-defined]


def experiment(toy: Any, fault: str = "none", draw: Any = None) -> Experiment:
    def cells(folder: Path, **fields: Any) -> list[Cell]:
        return make_cells(lambda _: toy.ToyConfig(steps=4, **fields), {"seed": (0, 1)}, folder)

    def lines(scale: Scale, folder: Path) -> Sequence[Line]:
        wide = cells(folder, scale=2.0)
        needs = cells(folder, scale=3.0, fault=fault)
        return [
            Line({"width": 1, "kind": "a"}, cells(folder), needs[:1], published={"x": 0.25}),
            Line({"width": 2, "kind": "b"}, wide if scale == "full" else (), left_out=() if scale == "full" else wide),
        ]

    (costs := Path("costs.json")).write_text(json.dumps(COSTS))
    quantities = (Quantity("x", stored("x"), exact=lambda run: 0.125 * float(run.line.about["width"])),)
    return Experiment("table", "7", "Walks", "Where they end.", lines, quantities, estimate(costs, work_of), draw)


def run(monkeypatch: pytest.MonkeyPatch, one: Experiment, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["toy-reproduce", *arguments])
    reproduce_command([one], "toy_training:quick", "toy-reproduce", "A toy.")


SMOKE = ("--table", "7", "--scale", "smoke", "--backend", "here")


def test_report_has_the_papers_figure_ours_and_the_exact_one(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, experiment(toy), *SMOKE)
    folder = Path("reproduction/table-7-smoke")
    report = json.loads((folder / "report.json").read_text())
    assert (report["experiment"], report["scale"]) == ("table-7", "smoke")
    assert report["command"] == "toy-reproduce --table 7 --scale smoke"
    assert {"version_torch", "hardware_cores"} <= {*report["versions"], *report["hardware"]}
    first, second = report["rows"]
    results = [json.loads(file.read_text()) for file in sorted(Path("reproduction/cells").glob("*/result.json"))]
    assert len(results) == 3  # two seeds, and the one run that they need
    figure = first["figures"]["x"]
    assert set(figure["values"]) <= {result["x"] for result in results}
    assert figure["ours"] == pytest.approx(sum(figure["values"]) / 2)
    assert figure["low"] <= figure["ours"] <= figure["high"]
    assert (figure["published"], figure["exact"], figure["seeds"]) == (0.25, 0.125, 2)
    assert (first["runs"], first["seconds"]) == (2, 0.8)  # 0.25 s each, rounded
    assert first["missing_estimate"] == {"seconds": 0, "runs_of_unknown_cost": 0}
    assert second["figures"]["x"] == {
        "published": None, "ours": None, "low": None, "high": None, "exact": None, "seeds": 0, "values": []
    }  # fmt: skip
    assert second["missing_estimate"] == {"seconds": 2 * 4 * 0.5, "runs_of_unknown_cost": 0}
    text = (folder / "report.md").read_text()
    assert "| width | kind | x, paper | x, ours | x, exact | seeds | hours | hours missing (estimate) |" in text
    assert "| 2 | b |  |  |  | 0 |  | 0.0011 |" in text
    assert capsys.readouterr().out.startswith(text)
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")


def test_same_command_again_runs_nothing_and_a_larger_scale_what_is_missing(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, experiment(toy), *SMOKE, "--json")
    before = json.loads(capsys.readouterr().out)
    logs = {file: file.read_text() for file in Path("reproduction/cells").glob("*/worker.log")}
    run(monkeypatch, experiment(toy), *SMOKE, "--json")
    assert json.loads(capsys.readouterr().out) == before
    run(monkeypatch, experiment(toy), "--table", "7", "--scale", "full", "--backend", "here", "--json")
    full = json.loads(capsys.readouterr().out)
    assert full["rows"][0] == before["rows"][0]
    assert full["rows"][1]["runs"] == 2
    assert all(file.read_text() == text for file, text in logs.items())


def test_lines_whose_needs_failed_are_left_empty(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, experiment(toy, fault="input"), *SMOKE, "--json")
    assert stopped.value.code == 1
    assert [row["runs"] for row in json.loads(capsys.readouterr().out)["rows"]] == [0, 0]


def test_ctrl_c_in_this_process_ends_the_reproduction(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(config: RunConfig) -> None:
        raise KeyboardInterrupt("stopped and saved")

    monkeypatch.setattr(toy, "quick", interrupted)
    with pytest.raises(KeyboardInterrupt, match="stopped and saved"):
        run(monkeypatch, experiment(toy), *SMOKE)
    assert not list(Path("reproduction/cells").glob("*/result.json"))
    assert Path("reproduction/table-7-smoke/report.md").is_file()  # with empty cells


def test_finished_runs_from_elsewhere_are_copied_and_the_rest_is_left_empty(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, experiment(toy), *SMOKE, "--json")
    ours = json.loads(capsys.readouterr().out)["rows"][0]
    Path("reproduction/cells").rename("elsewhere")
    for file in Path("elsewhere").glob("*/config.json"):
        config = json.loads(file.read_text())
        del config["fault"]  # a field that is newer than the run
        file.write_text(json.dumps(config | ({"scale": 9.0} if config["seed"] == 1 else {})))
    reuse = ("--reuse", "elsewhere", "--out-dir", "again")
    run(monkeypatch, experiment(toy), *SMOKE, *reuse, "--only-report", "--json")
    first, second = json.loads(capsys.readouterr().out)["rows"]
    assert (first["runs"], second["runs"]) == (1, 0)
    assert first["figures"]["x"]["values"] == ours["figures"]["x"]["values"][:1]
    assert first["missing_estimate"]["seconds"] == 4 * 0.5  # of the other seed
    run(monkeypatch, experiment(toy), *SMOKE, *reuse, "--json")  # runs what is missing, and that alone
    assert json.loads(capsys.readouterr().out)["rows"][0] == ours | {"seconds": pytest.approx(ours["seconds"], abs=0.5)}
    assert len(list(Path("again/cells").glob("*/worker.log"))) == 3


@pytest.mark.parametrize("change_bits", [True, False])
def test_a_run_on_other_threads_is_taken_where_they_change_no_bit(
    change_bits: bool, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.ToyConfig, "threads_change_bits", change_bits)
    run(monkeypatch, experiment(toy), *SMOKE)
    Path("reproduction/cells").rename("elsewhere")
    for file in Path("elsewhere").glob("*/config.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"threads": 2}))
    run(monkeypatch, experiment(toy), *SMOKE, "--reuse", "elsewhere", "--only-report", "--out-dir", "again")
    assert len(list(Path("again/cells").glob("*/result.json"))) == (0 if change_bits else 3)


def test_folders_without_finished_runs_are_refused(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="nowhere holds no finished run"):
        run(monkeypatch, experiment(toy), *SMOKE, "--reuse", "nowhere")


def test_pictures_of_an_experiments_own_are_drawn(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def draw(lines: Sequence[Line], folder: Path) -> list[Path]:
        return [folder / f"{len(lines)}.svg"]

    run(monkeypatch, experiment(toy, draw=draw), *SMOKE)
    assert capsys.readouterr().out.endswith("reproduction/table-7-smoke/2.svg\n")


def test_list_says_what_is_left(toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run(monkeypatch, experiment(toy), *SMOKE)
    capsys.readouterr()
    run(monkeypatch, experiment(toy), "--list", "--jobs", "2", "--json")
    smoke, _, full = json.loads(capsys.readouterr().out)
    assert (smoke["option"], smoke["runs"], smoke["finished"], smoke["hours"]) == ("--table 7", 3, 3, 0)
    assert (full["runs"], full["finished"], full["unknown"]) == (5, 3, 0)
    assert full["hours"] == pytest.approx(2 * 2 / 2 / 3600)  # two runs of 2 s, two at a time
    run(monkeypatch, experiment(toy), "--list", "--jobs", "2")
    assert "training with 2 runs at a time; estimates" in capsys.readouterr().out


@pytest.mark.parametrize("typed", [[], ["--table", "8"], ["--table", "7", "--figure", "7"], ["--figure", "7"]])
def test_unknown_tables_are_answered_by_those_there_are(
    typed: list[str], toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="choose one of --table 7; got "):
        run(monkeypatch, experiment(toy), *typed)


def test_interval_of_one_value_is_the_value_and_of_none_nothing() -> None:
    assert interval(()) is None
    assert interval((2.0,)) == (2.0, 2.0, 2.0)
    centre, low, high = interval((0.0, 1.0, 2.0, 9.0)) or (0, 0, 0)
    assert centre == 1.5  # the middle half
    assert low < 1.5 < high


def test_a_quantity_is_drawn_over_another_of_its_line() -> None:
    quantities = (Quantity("share", stored("s"), drawn_over="whole"), Quantity("whole", stored("w")))
    one = Experiment("table", "1", "Shares", "", lambda *_: [], quantities, lambda _: None)
    known = {"share": Entry(3.0, (1.0, 2.0), 8.0), "whole": Entry(None, (4.0, 4.0), None)}
    unknown = {"share": Entry(3.0, (1.0,), 8.0), "whole": Entry(None, (), None)}
    shown = [Row({}, entries, 2, 0.0, Cost(0.0, 0)) for entries in (known, unknown)]
    assert panels(one, shown) == {"share /\nwhole": [Entry(0.75, (0.25, 0.5), 2.0), Entry(None, (), None)]}


def test_stored_reads_numbers_lists_and_fields_named_by_the_line(toy: Any) -> None:
    run = Finished(Line({"setting": "2x3"}), toy.ToyConfig(), {"a": 1.0, "b": [1, None, 2], "2x3/c": 3.0, "d": None})
    assert [stored(name)(run) for name in ("a", "b", "{setting}/c", "d", "e")] == [[1.0], [1, 2], [3.0], [], []]


def test_cost_of_what_was_never_timed_is_unknown(toy: Any) -> None:
    one = experiment(toy)
    cells = make_cells(lambda _: toy.ToyConfig(), {"steps": (4, 4, 5)}, Path("cells"))
    assert cost_of(one, cells) == (2.0, 1)  # the first two are one
