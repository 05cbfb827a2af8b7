"""The Python interface: from a description of the auction to a mechanism that answers bids.

    from regretformer.api import learn

    auction = learn(setting="2x2")
    allocation, payments = auction(bids)

What is learnt here is what `regretformer-train` learns with the same settings, without a run directory. Mechanisms,
learnt or known, are opened by `regretformer.mechanisms`, measured by `regretformer.compare` and
`regretformer.cross_misreports`, imitated by `regretformer.distillation` and drawn by `regretformer.maps`.
"""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from gt_core.errors import InputError
from gt_core.progress import ProgressDisplay

from regretformer.config import DEFAULT_PRESET, PRESETS
from regretformer.networks.network import AuctionNetwork
from regretformer.report import load_network
from regretformer.train import Trainer

__all__ = ["learn", "load_pretrained"]


def load_pretrained(name: str) -> AuctionNetwork:
    """A trained auction that ships with the package, such as "2x2"; its card says what it is worth.

    Raises:
        InputError: if there is none of that name; the message lists all.
    """
    return load_network(Path("pretrained") / name)


def learn(preset: str = DEFAULT_PRESET, *, progress: bool = False, **settings: Any) -> AuctionNetwork:  # noqa: ANN401 (the config's own types)
    """Learn an auction that earns as much as its regret budget allows.

    Args:
        preset: the named set of defaults.
        progress: whether to show it on stderr.
        settings: any other field of `regretformer.config.TrainConfig`, such as `setting`, `net`, `regret_budget`,
            `iterations` or `seed`.

    Raises:
        InputError: if there is no such preset, or a setting cannot work.
        TypeError: if a setting does not exist.
    """
    if preset not in PRESETS:
        raise InputError(f"preset {preset!r} does not exist; choose from {', '.join(PRESETS)}")
    trainer = Trainer(dataclasses.replace(PRESETS[preset], **settings))
    iterations = trainer.config.iterations
    with ProgressDisplay(iterations) if progress else contextlib.nullcontext() as display:
        for step in range(iterations):
            figures = trainer.iterate()
            if display is not None:
                display.update(step + 1, {"revenue": figures["train/revenue"]})
    return trainer.network
