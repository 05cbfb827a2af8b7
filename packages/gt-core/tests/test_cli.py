import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from gt_core.cli import command, parse_training
from gt_core.config import RunConfig, from_dict, read_config, to_dict
from gt_core.errors import InputError, NumericalError
from gt_core.run import Interrupted


@dataclasses.dataclass(frozen=True)
class ToyConfig(RunConfig):
    """A config with one field of each kind."""

    preset: str = "plain"
    """Name."""
    rate: float = 0.5
    """A positive rate."""
    sizes: tuple[int, ...] = (4, 4)
    """Sizes."""
    kind: Literal["a", "b"] = "a"
    """A kind."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("(0, inf)", "rate")


@dataclasses.dataclass(frozen=True)
class Unchecked(RunConfig):
    """A config that takes any rate."""

    preset: str = "plain"
    rate: float = 1.0


PRESETS = {"plain": ToyConfig(), "quick": ToyConfig(preset="quick", rate=2.0)}


def parse(*args: str) -> tuple[ToyConfig, bool]:
    return parse_training(PRESETS, "plain", "toy-train", "A toy.", args)


def test_config_survives_json(tmp_path: Path) -> None:
    config = ToyConfig(rate=0.1, sizes=(1, 2, 3), seed=4)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    assert read_config(ToyConfig(), tmp_path / "config.json") == config


def test_config_integer_where_a_float_is_meant() -> None:
    rate = from_dict(ToyConfig(), {"rate": 2}, "x").rate
    assert rate == 2.0
    assert isinstance(rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 1.0}, r"here: .*rat.*the fields are preset, seed, out_dir"),
        ({"rate": "fast"}, "rate"),
        ({"kind": "c"}, "kind"),
        ({"rate": -1.0}, "rate must be positive and finite, got -1.0"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"device": "tpu"}, "device must be cpu, cuda or cuda:N, got 'tpu'"),
    ],
)
def test_config_refuses_and_names(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_dict(ToyConfig(), values, "here")


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[1, inf)", (1.0, 1e9), {0.5: "at least 1, got 0.5", math.inf: "at least 1 and finite", math.nan: "at least"}),
        ("(0, inf)", (1e-9,), {0.0: "positive and finite", math.inf: "positive and finite", math.nan: "positive"}),
        ("(0, 1]", (0.5, 1.0), {0.0: r"in \(0, 1\], got 0.0", 1.5: "got 1.5", math.nan: "got nan"}),
        ("[0, 1)", (0.0, 0.5), {1.0: r"in \[0, 1\), got 1.0", -0.1: "got -0.1"}),
    ],
)
def test_config_interval(interval: str, inside: tuple[float, ...], outside: dict[float, str]) -> None:
    for rate in inside:
        Unchecked(rate=rate).require(interval, "rate")
    for rate, message in outside.items():
        with pytest.raises(InputError, match=f"rate must .*{message}"):
            Unchecked(rate=rate).require(interval, "rate")


@pytest.mark.parametrize("content", ["", "[1]", "{", "\x00"])
def test_config_file_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(InputError, match=r"bad\.json"):
        read_config(ToyConfig(), tmp_path / "bad.json")


def test_command_line_wins_over_file_over_preset(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"rate": 3.0, "seed": 9}')
    config, resume = parse("--preset", "quick", "--config", str(tmp_path / "c.json"), "--seed", "1", "--sizes", "7")
    assert (config.preset, config.rate, config.seed, config.sizes, resume) == ("quick", 3.0, 1, (7,), False)


def test_command_line_defaults_are_the_default_preset() -> None:
    assert parse() == (ToyConfig(), False)
    assert parse("--preset=quick", "--resume") == (PRESETS["quick"], True)


def test_command_line_resume_takes_the_config_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(to_dict(ToyConfig(rate=0.25, seed=3))))
    config, resume = parse("--resume", "--out-dir", str(tmp_path))
    assert (config.rate, config.seed, config.directory, resume) == (0.25, 3, tmp_path, True)


def test_command_line_unknown_preset_is_named() -> None:
    with pytest.raises(InputError, match="preset 'quik' does not exist; choose from plain, quick"):
        parse("--preset", "quik")


@pytest.mark.parametrize("args", [("--rat", "1"), ("--rate", "x"), ("--kind", "c"), ("stray",)])
def test_command_line_malformed_option_exits_with_2(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse(*args)
    assert exit_info.value.code == 2
    assert args[-1] in capsys.readouterr().err


def test_run_name_fills_the_directory() -> None:
    assert ToyConfig(seed=2).directory == Path("runs/plain-seed2")


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("n must be at least 1, got 0"), 2, "error: n must be at least 1, got 0\n"),
        (NumericalError("loss became nan"), 1, "error: loss became nan\n"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device\n"),
        (KeyboardInterrupt(), 130, "stopped\n"),
        (Interrupted(15, Path("runs/x")), 143, "stopped by SIGTERM; --resume continues runs/x\n"),
    ],
)
def test_command_error_is_one_line_and_a_status(
    error: BaseException, status: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == status
    assert capsys.readouterr().err == text


def test_command_modules_do_not_import_torch() -> None:
    code = "import sys, gt_core.cli, gt_core.config; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
