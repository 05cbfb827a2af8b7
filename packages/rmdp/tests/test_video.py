"""Films of runs, by the command in a process of its own: MuJoCo chooses its renderer when it is imported."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import gymnasium
import imageio.v3
import numpy as np
import pytest
from gt_core.errors import InputError
from gymnasium import spaces

from rmdp import RMDP, rendering
from rmdp.plots import walks_of
from rmdp.train import load_model, snapshot
from rmdp.video import film, film_run, tile, write_video

RESULTS = Path(__file__).parents[1] / "results"
CHEETAH, WALKS = (RESULTS / name / "seed0" for name in ("HalfCheetah-v4-k5-em", "resource-gathering-k3-em"))
COMMAND = [sys.executable, "-c", "from rmdp.cli import video; video()"]


def can_render():
    try:
        rendering.choose_renderer()
    except InputError:
        return False
    finally:
        os.environ.pop("MUJOCO_GL", None)
    return True


def test_robots_run_side_by_side(tmp_path):
    if not can_render():
        pytest.skip("no renderer without a window on this machine")
    typed = [*COMMAND, str(CHEETAH), "--out", str(tmp_path / "film.gif"), "--steps", "12", "--json"]
    done = subprocess.run(typed, capture_output=True, text=True, check=True)
    frames = imageio.v3.imread(json.loads(done.stdout)["file"])
    assert frames.shape[0] == 12  # 20 steps a second
    first = frames[0, 28:268, :1600].reshape(240, 5, 320, 3).swapaxes(0, 1).astype(float)
    last = frames[-1, 28:268, :1600].reshape(240, 5, 320, 3).swapaxes(0, 1).astype(float)
    assert min(picture.std() for picture in first) > 10  # a robot on its floor, not a blank
    assert min(np.abs(first - last).mean(axis=(1, 2, 3))) > 1  # each of them moves


def test_walks_are_drawn_step_by_step(tmp_path):
    model = load_model(WALKS)
    drawn, rate = film(model, 1, 0)
    frames = list(drawn)
    longest = max(map(len, walks_of(model.policies, model.moments, 3)))
    assert (len(frames), rate) == (longest + 4, 4)  # the end stays a second
    assert all((one != two).any() for one, two in pairwise(frames[:6]))
    assert (frames[-1] == frames[-2]).all()
    write_video(tmp_path / "walks.gif", frames[:6], rate)
    assert len(imageio.v3.imread(tmp_path / "walks.gif")) == 6


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio forgets to close its pipes
def test_mp4_is_written_and_half_a_film_removed(tmp_path):
    frames = [np.full((30, 50, 3), 40 * j, dtype=np.uint8) for j in range(6)]
    write_video(tmp_path / "film.mp4", frames, 5.0)
    assert (tmp_path / "film.mp4").read_bytes()[4:8] == b"ftyp"

    def breaks_off():
        yield frames[0]
        raise InputError("the renderer broke")

    with pytest.raises(InputError, match="the renderer broke"):
        write_video(tmp_path / "half.mp4", breaks_off(), 5.0)
    assert not (tmp_path / "half.mp4").exists()


def test_tiles_stand_below_their_labels():
    pictures = [np.full((10, 60, 3), 10 * j, dtype=np.uint8) for j in range(7)]
    whole = tile(pictures, [str(j) for j in range(7)])
    assert whole.shape == (2 * 38, 5 * 60, 3)
    assert [int(whole[30, 60 * j + 5, 0]) for j in range(5)] == [0, 10, 20, 30, 40]
    assert [int(whole[38 + 30, 60 * j + 5, 0]) for j in range(5)] == [50, 60, 255, 255, 255]
    assert whole[:28].min() < 100  # ink


class Painted(gymnasium.Env):
    """Paints its clock; takes any action."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's own form)
    observation_space, action_space = spaces.Box(-1, 1, (2,), np.float32), spaces.Discrete(2)

    def __init__(self, render_mode=None):
        self.render_mode, self.clock = render_mode, 0

    def reset(self, *, seed=None, options=None):
        self.clock = 0
        return np.zeros(2, dtype=np.float32), {}

    def step(self, action):
        self.clock += 1
        return np.zeros(2, dtype=np.float32), 0.0, False, False, {}

    def render(self):
        return np.full((32, 64, 3), 20 * self.clock, dtype=np.uint8)


def test_environment_that_paints_itself_is_filmed():
    gymnasium.register("rmdp-tests/Painted-v0", Painted, max_episode_steps=8)
    try:
        users = lambda transition: np.zeros((*transition.terminated.shape, 2))  # noqa: E731
        model = RMDP("rmdp-tests/Painted-v0", k=2, users=users, n=2, preset="smoke", threads=1)
        frames, rate = film(snapshot(model.algorithm, model.config), 10, 0)
        assert rate == 10
        assert [int(frame[40, 10, 0]) for frame in frames] == [0, 20, 40, 60, 80, 100, 120, 140, 0, 20]
    finally:
        del gymnasium.registry["rmdp-tests/Painted-v0"]


def test_painting_without_a_desktop_is_silent():
    pytest.importorskip("pygame")
    script = (
        "import dataclasses, numpy as np\n"
        "from rmdp.config import PRESETS\nfrom rmdp.rendering import GymStage\n"
        "config = dataclasses.replace(PRESETS['smoke'], env='CartPole-v1', k=2)\n"
        "stage = GymStage(config, np.random.default_rng(0))\nstage.env.reset()\n"
        "assert [picture.shape for picture in stage.pictures()] == 2 * [(400, 600, 3)]\n"
    )
    without = {name: value for name, value in os.environ.items() if name not in ("XDG_RUNTIME_DIR", "SDL_VIDEODRIVER")}
    typed = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(typed, capture_output=True, text=True, check=True, env=without)
    assert done.stderr == ""


def test_where_nothing_renders_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(rendering, "_PROBE", "raise SystemExit('no display here')")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(InputError, match=r"egl: no display here; osmesa: no display here\): install Mesa's EGL"):
        rendering.choose_renderer()
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    rendering.choose_renderer()  # whoever chose is left alone


@pytest.mark.parametrize(
    ("out", "steps", "message"), [("film.avi", 1, ".mp4 or .gif"), ("film.mp4", 0, "steps must be at least 1, got 0")]
)
def test_unusable_requests_are_named(out, steps, message, tmp_path):
    with pytest.raises(InputError, match=message):
        film_run(WALKS, tmp_path / out, steps)


def test_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'rmdp\[video\]'"):
        film_run(WALKS, tmp_path / "film.mp4")
