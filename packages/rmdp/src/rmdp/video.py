"""Videos of a run: every representative at work, side by side, doing what is most probable.

Robots and other environments are filmed as they move; walks on the grid are drawn step by step. The format follows the
name of the file, .mp4 or .gif. Writing needs the extra rmdp[video].
"""

import importlib.util
import math
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from gt_core.config import read_config
from gt_core.errors import InputError
from gt_core.pretrained import located
from gt_core.seeding import Streams
from matplotlib.figure import Figure

from rmdp.assignment import cluster_sizes
from rmdp.config import TrainConfig
from rmdp.envs.robots import ROBOTS
from rmdp.evaluate import most_probable_actions
from rmdp.plots import draw_paths, walks_of
from rmdp.population import ResourceGathering, TargetVelocity
from rmdp.rendering import Picture, choose_renderer, figure_picture, make_stage
from rmdp.train import Model, load_model

__all__ = ["film", "film_run", "tile", "write_video"]

_FORMATS = (".mp4", ".gif")
_COLUMNS = 5
_BLOCK = 16  # the sides that every player of mp4 accepts are multiples of this
_LABEL = 28
_FRAMES_PER_SECOND = 30
_WALKING_FRAMES_PER_SECOND = 4


def film_run(directory: Path, out: Path, steps: int = 300, seed: int = 1) -> Path:
    """Film the representatives of a run.

    Args:
        directory: A run, finished or stopped.
        out: File to write, .mp4 or .gif.
        steps: Environment steps to film; walks are filmed to their end.
        seed: Of the episodes.

    Raises:
        InputError: The format is another one, the extra is missing, or nothing can render here.
    """
    if out.suffix not in _FORMATS:
        raise InputError(f"a video is called .mp4 or .gif, got {out.name!r}: choose another --out")
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    if not (importlib.util.find_spec("imageio") and importlib.util.find_spec("imageio_ffmpeg")):
        raise InputError("writing videos needs imageio and its ffmpeg: pip install 'rmdp[video]'")
    directory = located("rmdp", directory)
    if (directory / "config.json").is_file() and _env_of(directory) in ROBOTS:
        choose_renderer()  # before anything imports MuJoCo
    frames, rate = film(load_model(directory), steps, seed)
    write_video(out, frames, rate)
    return out


def film(model: Model, steps: int, seed: int) -> tuple[Iterator[Picture], float]:
    """Frames of all representatives, and how many to show in a second."""
    if isinstance(model.population, ResourceGathering):
        return _walking_frames(model), _WALKING_FRAMES_PER_SECOND
    stage = make_stage(model.config, Streams(seed).numpy("video"))
    every = max(1, round(1 / (_FRAMES_PER_SECOND * stage.step_seconds)))

    def frames() -> Iterator[Picture]:
        observation, labels = stage.env.reset(), _labels(model)
        for step in range(steps):
            if step % every == 0:
                yield tile(stage.pictures(), labels)
            actions = most_probable_actions(model.policies, model.moments, observation, model.config.k)
            observation = stage.env.step(actions).observation
        stage.close()

    return frames(), 1 / (every * stage.step_seconds)


def write_video(out: Path, frames: Iterable[Picture], rate: float) -> None:
    """Write frames of one size, `rate` a second; a file that could not be finished is removed."""
    import imageio.v2

    mp4: dict[str, Any] = {"fps": rate, "macro_block_size": _BLOCK}
    options = mp4 if out.suffix == ".mp4" else {"duration": 1000 / rate}
    try:
        with closing(imageio.v2.get_writer(out, **options)) as writer:  # by itself it stays open after an error
            for frame in frames:
                writer.append_data(_padded(frame))
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def tile(pictures: list[Picture], labels: list[str]) -> Picture:
    """Pictures of one size in rows of five, each below its label."""
    height, width, _ = pictures[0].shape
    columns = min(len(pictures), _COLUMNS)
    rows = math.ceil(len(pictures) / columns)
    whole = np.full((rows * (height + _LABEL), columns * width, 3), 255, dtype=np.uint8)
    for j, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        top, left = j // columns * (height + _LABEL), j % columns * width
        whole[top : top + _LABEL, left : left + width] = _written(label, width)
        whole[top + _LABEL : top + _LABEL + height, left : left + width] = picture
    return whole


def _env_of(directory: Path) -> str:
    return read_config(TrainConfig(), directory / "config.json").env


def _walking_frames(model: Model) -> Iterator[Picture]:
    population, config = model.population, model.config
    if not isinstance(population, ResourceGathering):
        raise TypeError("only walks on the grid are drawn")
    walks = walks_of(model.policies, model.moments, config.k)
    longest = max(map(len, walks))
    for shown in [*range(1, longest + 1), *[longest] * _WALKING_FRAMES_PER_SECOND]:
        title = f"{config.algorithm}, {config.k} representatives, step {min(shown, longest) - 1}"
        yield figure_picture(draw_paths(walks, population.cells, model.assignment, title, shown))


def _labels(model: Model) -> list[str]:
    sizes = cluster_sizes(model.assignment, model.config.k)
    labels = [f"{j}: {size} user{'s' if size != 1 else ''}" for j, size in enumerate(sizes)]
    if isinstance(model.population, TargetVelocity):
        targets = model.population.targets
        means = [targets[model.assignment == j].mean() if size else np.nan for j, size in enumerate(sizes)]
        labels = [f"{label}, {mean:.1f} m/s" for label, mean in zip(labels, means, strict=True)]
    return labels


def _written(label: str, width: int) -> Picture:
    figure = Figure(figsize=(width / 100, _LABEL / 100), dpi=100)
    figure.text(0.5, 0.5, label, ha="center", va="center", fontsize=9)
    return figure_picture(figure)


def _padded(frame: Picture) -> Picture:
    """White at the lower and right edge up to sides that are multiples of a block."""
    height, width, _ = frame.shape
    return np.pad(frame, ((0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0)), constant_values=255)
