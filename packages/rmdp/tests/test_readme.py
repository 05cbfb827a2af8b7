"""What the README says works as written: its Python, its file of users, its commands; with a preset of seconds."""

import dataclasses
import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from rmdp import cli
from rmdp.config import PRESETS

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.partition("#")[0] for line in README.splitlines() if line.startswith("rmdp-")]


@pytest.fixture(autouse=True)
def _small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    small = dataclasses.replace(PRESETS["smoke"], preset="fast", samples=60, copies=3, hidden=(8, 8), iterations=2)
    monkeypatch.setitem(PRESETS, "fast", small)


def run(monkeypatch, line):
    name, *arguments = shlex.split(line)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    getattr(cli, {"rmdp-eval": "evaluate"}.get(name, name.removeprefix("rmdp-")))()


def example(word):
    (found,) = [code for code in PYTHON if word in code]
    return found


def command(*words):
    (found,) = [line for line in COMMANDS if all(word in line for word in words)]
    return found


def test_environment_and_users_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "tastes.py").write_text(example("def likes"))
    run(monkeypatch, command("rmdp-train", "tastes:likes") + " --out-dir run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["env"], result["n"], result["k"]) == ("CartPole-v1", 20, 3)
    assert "20 users, 3 policies" in capsys.readouterr().out


def test_python_interface(tmp_path, capsys):
    exec(compile(example("model.predict"), "README.md", "exec"), {"observation": np.zeros(17)})
    assert 0 <= float(capsys.readouterr().out) < 100
    assert (tmp_path / "cheetahs" / "manifest.json").is_file()


def test_commands_after_training(tmp_path, monkeypatch, capsys):
    (tmp_path / "tastes.py").write_text(example("def likes"))
    run(monkeypatch, command("rmdp-train", "HalfCheetah-v4") + " --out-dir RUN --k 2")
    for name in ("rmdp-plot", "rmdp-assign", "rmdp-export"):
        run(monkeypatch, command(name))
    assert (tmp_path / "RUN" / "plots" / "returns.png").is_file()
    names = {"observation": np.zeros((3, 17), dtype=np.float32)}
    exec(compile(example("TD3.load"), "README.md", "exec"), names)
    assert names["action"].shape == (3, 6)
