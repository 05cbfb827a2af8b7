"""Grids, and how they are typed."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gt_core.errors import InputError
from gt_core.sweep.grid import Cell, config_hash, make_cells
from gt_core.sweep.options import SweepOptions, parse_sweep, split_values

TESTS = Path(__file__).parent


pytestmark = pytest.mark.usefixtures("toy")


def parse(toy: Any, *args: str) -> tuple[list[Cell], SweepOptions]:
    return parse_sweep(toy.PRESETS, lambda settings: "long" if settings.get("kind") == "b" else "toy", "toy", "", args)


def settings(toy: Any, *args: str) -> list[dict[str, Any]]:
    return [dict(cell.settings) for cell in parse(toy, *args)[0]]


def test_grid_is_every_combination_once(toy: Any) -> None:
    cells = make_cells(lambda _: toy.ToyConfig(), {"scale": [1.0, 2.0, 1.0], "seed": range(2)}, Path("runs"))
    assert [tuple(cell.settings.values()) for cell in cells] == [(1.0, 0), (1.0, 1), (2.0, 0), (2.0, 1)]
    assert [(cell.config.scale, cell.config.seed) for cell in cells] == [(1.0, 0), (1.0, 1), (2.0, 0), (2.0, 1)]
    assert len({cell.config.directory for cell in cells}) == 4
    name, _, digits = cells[1].config.directory.name.rpartition("-")
    assert (name, digits) == ("toy-seed1", config_hash(toy.ToyConfig(seed=1)))


def test_hash_names_what_a_result_may_depend_on(toy: Any) -> None:
    config = toy.ToyConfig()
    same = [dataclasses.replace(config, out_dir="elsewhere"), dataclasses.replace(config, tensorboard=True)]
    assert {config_hash(one) for one in same} == {config_hash(config)}
    others = [{"seed": 1}, {"threads": 2}, {"device": "cuda"}, {"sizes": (4,)}, {"preset": "x"}]
    hashes = {config_hash(dataclasses.replace(config, **other)) for other in others}
    assert len(hashes) == len(others)
    assert config_hash(config) not in hashes


def test_grid_refuses_a_config_and_names_its_cell(toy: Any) -> None:
    with pytest.raises(InputError, match=r"scale must be positive, got -1 \(in the cell seed = 0, scale = -1\)"):
        make_cells(lambda _: toy.ToyConfig(), {"seed": [0], "scale": [1, -1]}, Path("runs"))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1", ["1"]),
        ("1,2 , 3", ["1", "2", "3"]),
        ("uniform,beta(2,2),[a,b]", ["uniform", "beta(2,2)", "[a,b]"]),
        ("", [""]),
        ("64 64,32", ["64 64", "32"]),
    ],
)
def test_values_are_split_at_commas_outside_brackets(text: str, values: list[str]) -> None:
    assert split_values(text) == values


def test_values_that_are_missing_are_refused() -> None:
    with pytest.raises(ValueError, match="missing between the commas of '1,,2'"):
        split_values("1,,2")


def test_command_line_gives_every_field_a_list(toy: Any) -> None:
    typed = ("--scale", "1,0.5", "--sizes", "8 8,4", "--kind=a", "--tensorboard", "True", "--seeds", "2")
    assert settings(toy, *typed)[:3] == [
        {"tensorboard": True, "scale": 1.0, "sizes": (8, 8), "kind": "a", "seed": 0},
        {"tensorboard": True, "scale": 1.0, "sizes": (8, 8), "kind": "a", "seed": 1},
        {"tensorboard": True, "scale": 1.0, "sizes": (4,), "kind": "a", "seed": 0},
    ]
    assert len(settings(toy, *typed)) == 8
    assert settings(toy) == [{}]


def test_command_line_options_of_the_sweep(toy: Any) -> None:
    typed = ("--out-dir", "here", "--backend", "slurm", "--slurm", "slurm_partition=cpu", "mem_gb=4", "--jobs", "3")
    (cell,), options = parse(toy, *typed)
    assert cell.config.directory.parent == Path("here")
    assert (options.backend, options.jobs, options.retries) == ("slurm", 3, 3)
    assert options.slurm_parameters == {"slurm_partition": "cpu", "mem_gb": 4}


def test_cell_starts_from_its_preset(toy: Any, tmp_path: Path) -> None:
    def steps(*typed: str) -> list[int]:
        return [cell.config.steps for cell in parse(toy, *typed)[0]]

    assert steps("--preset", "toy,long") == [8, 12]
    assert steps("--kind", "a,b") == [8, 12]  # as the package chooses where none is named
    assert steps("--kind", "a,b", "--preset", "toy") == [8, 8]
    (tmp_path / "config.json").write_text(json.dumps({"steps": 5, "seed": 7}))
    typed = ("--preset", "toy,long", "--config", str(tmp_path / "config.json"))
    assert [(cell.config.steps, cell.config.seed) for cell in parse(toy, *typed)[0]] == [(5, 7), (5, 7)]
    assert steps(*typed, "--steps", "6") == [6, 6]


def test_seeds_are_cells_unless_the_config_trains_several_at_once(toy: Any) -> None:
    assert settings(toy, "--seeds", "3") == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    assert settings(toy, "--seed", "3,5") == [{"seed": 3}, {"seed": 5}]
    assert settings(toy, "--preset", "other", "--seeds", "3") == [{"preset": "other", "seeds": 3}]


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (("--preset", "toy,quick"), "preset 'quick' does not exist; choose from toy, long, other"),
        (("--preset", "toy,other"), "presets toy and other have different options; sweep each by itself"),
        (("--scale", "1,-1"), "scale must be positive, got -1.0"),
        (("--threads", "0"), "threads must be at least 1, got 0"),
        (("--seeds", "2", "--seed", "1"), "give --seed as a list, or --seeds"),
        (("--seeds", "0"), "at least 1, for the seeds from 0 on; got 0"),
        (("--jobs", "-1"), "jobs must be at least 0, got -1"),
        (("--slurm", "mem"), "slurm takes NAME=VALUE, got 'mem'"),
        (("--config", "missing.json"), "missing.json cannot be read"),
    ],
)
def test_command_line_refuses_and_names(toy: Any, typed: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(toy, *typed)


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        (("--scal", "1"), "--scal"),
        (("--scale", "1,x"), "'x'"),
        (("--kind", "a,c"), "'c' is none of a, b"),
        (("--scale", "1,,2"), "missing"),
    ],
)
def test_command_line_malformed_option_exits_with_2(
    toy: Any, typed: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(toy, *typed)
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err


def test_help_has_every_field_once_and_imports_nothing_heavy() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(TESTS)!r}); import toy_training; sys.argv = ['toy', '--help']\n"
        "try:\n    toy_training.main()\n"
        "finally:\n    assert not {'torch', 'scipy', 'numpy', 'ray', 'submitit'} & sys.modules.keys()\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    for option in ("--scale FLOAT,...", "--sizes [INT [INT ...]],...", "--kind {a,b},...", "--seeds INT", "--out-dir"):
        assert shown.count(option) == 1
    for text in ("Of each step. (default: 1.0)", "Sizes. (default: '4 4')", "with the seeds 0, 1, ...;"):
        assert text in shown
