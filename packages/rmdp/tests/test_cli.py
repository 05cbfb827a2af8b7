"""The commands, as typed."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from rmdp import cli
from rmdp.algorithms.em import EM


def run(monkeypatch, command, *arguments):
    monkeypatch.setattr(sys, "argv", [command.__name__, *arguments])
    command()


def test_train_evaluate_and_resume(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    typed = ["--env", "HalfCheetah-v4", "--k", "2", "--preset", "smoke", "--threads", "1", "--out-dir", "run"]
    run(monkeypatch, cli.train, *typed)
    assert "ceiling" in capsys.readouterr().out
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["env"], result["k"], result["n"], result["seed"]) == ("HalfCheetah-v4", 2, 20, 0)
    assert 0 <= result["welfare"] <= result["ceiling"] < 100
    assert len(result["assignment"]) == 20
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3

    run(monkeypatch, cli.train, *typed, "--resume")  # finished: shows the result again
    assert "ceiling" in capsys.readouterr().out
    run(monkeypatch, cli.evaluate, "run", "--json", "--seed", "0", "--episodes", "1")
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["welfare"] == result["welfare"]
    assert evaluated["assignment"] == result["assignment"]
    assert not (tmp_path / "MUJOCO_LOG.TXT").exists()


def test_threads_leave_the_result_as_it_is(tmp_path, monkeypatch):
    """Also where sums are long enough for torch to share them out: 2048 samples of five policies."""
    monkeypatch.chdir(tmp_path)
    typed = ["--env", "HalfCheetah-v4", "--preset", "smoke", "--n", "100", "--k", "5", "--samples", "2048"]
    for threads in ("1", "2"):
        run(monkeypatch, cli.train, *typed, "--copies", "20", "--threads", threads, "--out-dir", threads)
    one, two = ((tmp_path / threads / "result.json").read_bytes() for threads in ("1", "2"))
    assert one == two


@pytest.mark.parametrize("typed", [["cluster"], ["one-for-all", "--k", "1"]])
def test_algorithms_are_selectable(typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, cli.train, "--preset", "smoke", "--algorithm", *typed, "--threads", "1", "--out-dir", "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["algorithm"] == typed[0]


@pytest.mark.parametrize("env", ["Hopper-v4", "Hopper-v5", "Walker2d-v4", "Walker2d-v5", "Ant-v4", "Ant-v5"])
def test_robots_that_fall_are_trained_and_judged(env, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = ["--env", env, "--k", "5", "--preset", "smoke", "--iterations", "1", "--threads", "1", "--out-dir", "run"]
    run(monkeypatch, cli.train, *typed)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert 0 <= result["welfare"] < result["ceiling"] < 100
    assert len(result["cluster_sizes"]) == 5


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")  # mo-gymnasium's spaces
def test_users_of_a_multi_objective_environment_weigh_its_objectives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = ["--env", "mo_gymnasium:deep-sea-treasure-v0", "--n", "6", "--k", "2", "--preset", "smoke"]
    run(monkeypatch, cli.train, *typed, "--iterations", "2", "--threads", "1", "--out-dir", "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert -100 <= result["welfare"] <= 23.7  # a hundred steps of -1; the largest treasure
    assert "ceiling" not in result


def test_ctrl_c_saves_and_evaluates_and_resumes_to_the_same_bits(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Console, "width", 200)
    typed = ["--preset", "smoke", "--threads", "1", "--out-dir"]
    run(monkeypatch, cli.train, *typed, "straight")

    iterate = EM.iterate

    def interrupted(self):
        if self.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return iterate(self)

    capsys.readouterr()
    monkeypatch.setattr(EM, "iterate", interrupted)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, cli.train, *typed, "stopped")
    monkeypatch.setattr(EM, "iterate", iterate)
    assert stopped.value.code == 130
    captured = capsys.readouterr()
    assert "so far" in captured.out
    assert "social welfare" in captured.out
    assert "--resume continues" in captured.err
    assert not (tmp_path / "stopped" / "result.json").exists()
    run(monkeypatch, cli.evaluate, "stopped", "--json")
    assert json.loads(capsys.readouterr().out)["k"] == 2

    run(monkeypatch, cli.train, *typed, "stopped", "--resume")
    for file in ("result.json", "model/tensors.safetensors"):
        assert (tmp_path / "stopped" / file).read_bytes() == (tmp_path / "straight" / file).read_bytes()


def test_progress_shows_the_welfare_and_the_ceiling(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, cli.train, "--preset", "smoke", "--threads", "1", "--out-dir", "run")
    assert re.search(r"3/3 .* left +welfare \S+ +flips \S+ +ceiling \S+", capsys.readouterr().err)


def test_users_from_a_file_in_the_working_directory(tmp_path, monkeypatch, capsys):
    (tmp_path / "pole_users.py").write_text(
        "def likes(n, generator):\n"
        "    place = generator.uniform(-1, 1, n)\n"
        "    return lambda transition: 1 - abs(transition.next_observation[..., :1] - place)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    typed = ["--env", "CartPole-v1", "--users", "pole_users:likes", "--n", "8", "--k", "2", "--preset", "smoke"]
    run(monkeypatch, cli.train, *typed, "--threads", "1", "--out-dir", "run")
    assert "8 users, 2 policies" in capsys.readouterr().out


POLE = ("--env", "CartPole-v1", "--n", "4", "--k", "1", "--users")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "200"], "k = 200, n = 100"),
        (["--env", "HalfCheeta-v4", "--users", "a:b"], "a:b cannot be imported"),
        (["--env", "HalfCheeta-v4"], "did you mean"),
        (["--env", "Nope-v0", "--users", "odd_users:too_many"], "unknown environment 'Nope-v0'"),
        (
            [*POLE, "odd_users:too_many"],
            r"odd_users:too_many returned rewards of shape (32, 1, 5), expected (32, 1, 4)",
        ),
        ([*POLE, "odd_users:undefined"], "odd_users:undefined returned a reward that is not finite for user 0"),
        (["--preset", "quick"], "preset 'quick' does not exist"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_leaves_no_directory(arguments, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "odd_users.py").write_text(
        "import numpy as np\n"
        "def too_many(n, generator):\n"
        "    return lambda transition: np.zeros((*transition.terminated.shape, n + 1))\n"
        "def undefined(n, generator):\n"
        "    return lambda transition: np.full((*transition.terminated.shape, n), np.nan)\n"
    )
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, cli.train, *arguments)
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_evaluating_nothing_is_named(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, cli.evaluate, str(tmp_path))
    assert stopped.value.code == 2
    assert "holds no model" in capsys.readouterr().err


def test_help_imports_no_torch():
    script = (
        "import sys\nfrom rmdp import cli\nsys.argv = ['rmdp-train', '--help']\n"
        "try:\n    cli.train()\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'torch', 'mujoco', 'gymnasium'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "--k" in done.stdout
