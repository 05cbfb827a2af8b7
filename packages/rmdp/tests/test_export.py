"""What is exported acts as the representatives do."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from gt_core.errors import InputError
from stable_baselines3 import PPO, TD3

from rmdp import cli, export
from rmdp.actor import Actor
from rmdp.train import load_model

RESULTS = Path(__file__).parents[1] / "results"
RUNS = {"HalfCheetah-v4-k5-em": TD3, "resource-gathering-k2-em": PPO}


def ours(model, j, observations):
    with torch.no_grad():
        view = model.moments.normalise(observations).expand(model.config.k, -1, -1)
        return model.policies.to_environment(model.policies.mode(view))[j].numpy()


@pytest.mark.parametrize("name", RUNS)
def test_exported_representatives_act_as_ours(name, tmp_path, monkeypatch, capsys):
    run, out = RESULTS / name / "seed0", tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["rmdp-export", str(run), "--out", str(out), "--json"])
    cli.export()
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["left_out"] == []
    assert len(manifest["largest_difference"]) == 2 * manifest["config"]["k"]
    assert max(manifest["largest_difference"].values()) < 1e-5
    for file, digest in manifest["files"].items():
        assert hashlib.sha256((out / file).read_bytes()).hexdigest() == digest["sha256"]

    model = load_model(run)
    generator = np.random.default_rng(0)
    observations = generator.normal(size=(7, len(model.moments.mean))).astype(np.float32) * 4
    for j in (0, manifest["config"]["k"] - 1):
        expected = ours(model, j, observations)
        loaded = RUNS[name].load(out / f"representative-{j}.zip", device="cpu")
        np.testing.assert_allclose(loaded.predict(observations, deterministic=True)[0], expected, atol=1e-5)
        np.testing.assert_allclose(loaded.predict(observations[0], deterministic=True)[0], expected[0], atol=1e-5)
        session = onnxruntime.InferenceSession(out / f"representative-{j}.onnx")
        np.testing.assert_allclose(session.run(None, {"observation": observations})[0], expected, atol=1e-5)
    assert json.loads((out / "assignment.json").read_text())["assignment"] == model.assignment.tolist()


def test_actor_is_the_stacked_policy_cut_out():
    model = load_model(RESULTS / "HalfCheetah-v4-k5-em" / "seed0")
    observations = torch.randn(9, 17, generator=torch.Generator().manual_seed(0)) * 10
    for j in range(5):
        with torch.no_grad():
            acted = Actor(model.policies, model.moments, j)(observations).numpy()
        np.testing.assert_allclose(acted, ours(model, j, observations.numpy()), atol=1e-5)


def test_formats_that_are_not_installed_are_left_out_and_named(tmp_path, monkeypatch, capsys):
    run = shutil.copytree(RESULTS / "resource-gathering-k2-em" / "seed0", tmp_path / "run")
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["rmdp-export", str(run)])
    cli.export()
    captured = capsys.readouterr()
    assert "left out: onnx; pip install 'rmdp[export]'" in captured.err
    assert "manifest.json" in captured.out
    assert not list((run / "export").glob("representative-*"))
    with pytest.raises(InputError, match="exists already; choose another --out"):
        export.export_run(run, run / "export")
