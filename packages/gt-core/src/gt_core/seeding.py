"""Randomness from one seed through named generators.

Every source of randomness in a run has a name ("initialisation", "batches", …). Its generator depends on the seed and
the name alone, so adding a source never shifts another, and a run's whole random state is a dictionary of generator
states.
"""

import hashlib
from typing import Any

import numpy as np
import torch

from gt_core.errors import InputError

__all__ = ["Streams", "derive_seed"]


def derive_seed(seed: int, *names: str) -> int:
    """A 63-bit seed for the source called `names` under `seed` (numpy's `SeedSequence`, keyed by SHA-256 of each name).

    Raises:
        InputError: if `seed` is negative.
    """
    if seed < 0:
        raise InputError(f"seed must be at least 0, got {seed}")
    keys = [int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") for name in names]
    word = np.random.SeedSequence(seed, spawn_key=keys).generate_state(1, np.uint64)[0]
    return int(word >> np.uint64(1))


class Streams:
    """The named generators of one run; each is created at its first use.

    Args:
        seed: the run's seed, at least 0.
        device: where torch generators live.
    """

    def __init__(self, seed: int, device: str | torch.device = "cpu") -> None:
        derive_seed(seed)  # refuses a bad seed now rather than at the first use
        self.seed = seed
        self.device = torch.device(device)
        self._torch: dict[str, torch.Generator] = {}
        self._numpy: dict[str, np.random.Generator] = {}

    def torch(self, name: str) -> torch.Generator:
        """The torch generator called `name`."""
        if name not in self._torch:
            generator = torch.Generator(self.device)
            self._torch[name] = generator.manual_seed(derive_seed(self.seed, name))
        return self._torch[name]

    def numpy(self, name: str) -> np.random.Generator:
        """The numpy generator called `name`, independent of the torch generator of the same name."""
        if name not in self._numpy:
            self._numpy[name] = np.random.default_rng(derive_seed(self.seed, "numpy", name))
        return self._numpy[name]

    def state_dict(self) -> dict[str, Any]:
        """The state of every generator used so far, for a checkpoint."""
        return {
            "torch": {name: generator.get_state() for name, generator in self._torch.items()},
            "numpy": {name: generator.bit_generator.state for name, generator in self._numpy.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue every generator where `state` left it."""
        for name, tensor in state["torch"].items():
            self.torch(name).set_state(tensor)
        for name, words in state["numpy"].items():
            self.numpy(name).bit_generator.state = words
