"""What the tests of sweeps run: a random walk for training, and what can go wrong with a worker."""

import dataclasses
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, Literal

from gt_core.cli import command
from gt_core.config import RunConfig, to_dict
from gt_core.errors import InputError
from gt_core.files import write_json
from gt_core.sweep.command import sweep_command
from gt_core.sweep.grid import Cell, make_cells


@dataclasses.dataclass(frozen=True)
class ToyConfig(RunConfig):
    """A walk."""

    preset: str = "toy"
    """Name."""
    scale: float = 1.0
    """Of each step."""
    sizes: tuple[int, ...] = (4, 4)
    """Sizes."""
    kind: Literal["a", "b"] = "a"
    """A kind."""
    steps: int = 8
    """Length of the walk."""
    pause: float = 0.0
    """Seconds that a step takes."""
    fault: Literal["none", "input", "error", "killed", "killed-once", "killed-often"] = "none"
    """What goes wrong: at once; or at the fourth step, always or the first time; or at every third step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale <= 0:
            raise InputError(f"scale must be positive, got {self.scale}")


@dataclasses.dataclass(frozen=True)
class OtherConfig(RunConfig):
    """A config that trains several seeds at once."""

    preset: str = "other"
    """Name."""
    seeds: int = 10
    """Seeds side by side."""


PRESETS: dict[str, RunConfig] = {"toy": ToyConfig(), "long": ToyConfig("long", steps=12), "other": OtherConfig()}


def cells_in(folder: str, seeds: int = 1, **fields: Any) -> list[Cell]:
    """Cells that train for a while, one per seed."""
    return make_cells(lambda _: ToyConfig(**fields), {"seed": range(seeds)}, Path(folder))


class Walk:
    """A learner for `gt_core.run.learn`."""

    def __init__(self, config: ToyConfig) -> None:
        self.config, self.step, self.x = config, 0, 0.0
        self.generator = random.Random(config.seed)

    def iterate(self) -> dict[str, float]:
        log_and_fail(self.config, self.step + 1)
        self.x = 0.9 * self.x + self.config.scale * self.generator.gauss()
        self.step += 1
        return {"train/x": self.x}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "x": self.x, "generator": self.generator.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.x = state["step"], state["x"]
        self.generator.setstate(state["generator"])


def train(config: ToyConfig) -> None:
    """A run with all its files, saved at every step."""
    from gt_core.run import Run, learn

    run, walk = Run(config, resume=True, checkpoint_seconds=0), Walk(config)
    if run.result is None:
        learn(run, walk, config.steps)
        run.finish({"x": walk.x})


def quick(config: ToyConfig) -> None:
    """The same walk with the least that a sweep asks for: torch takes seconds to import."""
    walk, folder = Walk(config), config.directory / "checkpoints"
    folder.mkdir(exist_ok=True)
    if config.fault == "input":
        raise InputError("scale is not to our taste")
    if config.fault == "error":
        raise RuntimeError("out of luck")
    saved = sorted(folder.iterdir())
    if saved:
        version, words, gauss = (state := json.loads(saved[-1].read_text()))["generator"]
        walk.load_state_dict({**state, "generator": (version, tuple(words), gauss)})
    while walk.step < config.steps:
        walk.iterate()
        write_json(folder / f"step-{walk.step:09d}", walk.state_dict())
    write_json(config.directory / "config.json", to_dict(config))
    write_json(config.directory / "cost.json", {"seconds": 0.25})
    write_json(config.directory / "result.json", {"seed": config.seed, "x": walk.x})


def log_nothing(config: ToyConfig) -> None:
    """Say that all is done, as a node does that sees another folder."""


def log_and_fail(config: ToyConfig, step: int) -> None:
    """Leave a line for every step that is walked, by whatever process."""
    time.sleep(config.pause)
    with (config.directory / "walked").open("a") as file:
        file.write(f"{step} {os.getpid()} {time.time()}\n")
    lines = len((config.directory / "walked").read_text().splitlines())
    once = config.fault == "killed-once" and lines == 4
    if once or (config.fault == "killed" and step == 4) or (config.fault == "killed-often" and lines % 3 == 0):
        os.kill(os.getpid(), signal.SIGKILL)


@command
def main() -> None:
    """`toy-sweep`."""
    function = os.environ.get("TOY", "quick")
    sweep_command(PRESETS, lambda _: "toy", "toy-sweep", "A toy.", f"toy_training:{function}", ("x",))
