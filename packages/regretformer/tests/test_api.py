"""The Python interface."""

import dataclasses

import pytest
import torch
from gt_core.errors import InputError

from regretformer import config
from regretformer.api import learn
from regretformer.config import PRESETS, Recipe
from regretformer.train import Trainer


@pytest.mark.parametrize("progress", [False, True])
def test_learn_is_training_without_a_directory(progress: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many iterations as the setting's size needs, unless told otherwise."""
    monkeypatch.setattr(config, "_RECIPES", {2: Recipe(3, batch=64, candidates=64)})
    network = learn("smoke", iterations=0, progress=progress)
    trainer = Trainer(dataclasses.replace(PRESETS["smoke"], iterations=3))
    for _ in range(3):
        trainer.iterate()
    for mine, theirs in zip(network.parameters(), trainer.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_learn_refuses_and_names() -> None:
    with pytest.raises(InputError, match="preset 'quick' does not exist; choose from fast, gpu, paper, smoke"):
        learn("quick")
