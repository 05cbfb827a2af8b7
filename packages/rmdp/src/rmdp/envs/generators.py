"""One random generator per copy of an environment, and their exact state as an array.

Copies that own their generator give the same trajectories whatever the number of copies beside them, and whatever the
order in which their episodes end. The state of a PCG64 generator is two 128-bit integers, one flag and one buffered
32-bit word; as six 64-bit words it fits into any checkpoint of arrays. The words are kept as signed integers, which
every tensor format knows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["generator_words", "restore_generators", "spawn"]

_WORD = (1 << 64) - 1


def spawn(generator: np.random.Generator, copies: int) -> list[np.random.Generator]:
    """Derive `copies` independent PCG64 generators from one.

    The children are seeded by draws, so that they depend on the parent's state and not only on its seed.
    """
    return [
        np.random.Generator(np.random.PCG64(seeds)) for seeds in generator.integers(0, 1 << 32, (copies, 4)).tolist()
    ]


def generator_words(generators: Sequence[np.random.Generator]) -> NDArray[np.int64]:
    """Read the exact state of PCG64 generators.

    Args:
        generators: B generators.

    Returns:
        State words, (B, 6).

    Raises:
        TypeError: A generator runs on another bit generator.
    """
    words = np.array([_words(generator) for generator in generators], dtype=np.uint64)
    return words.reshape(-1, 6).view(np.int64)


def restore_generators(generators: Sequence[np.random.Generator], words: NDArray[np.int64]) -> None:
    """Put the states read by `generator_words` back.

    Raises:
        ValueError: The number of states is not the number of generators.
    """
    if words.shape != (len(generators), 6):
        raise ValueError(f"expected generator states of shape ({len(generators)}, 6), got {words.shape}")
    for generator, row in zip(generators, words.view(np.uint64).tolist(), strict=True):
        state = {"state": row[0] << 64 | row[1], "inc": row[2] << 64 | row[3]}
        generator.bit_generator.state = {
            "bit_generator": "PCG64",
            "state": state,
            "has_uint32": row[4],
            "uinteger": row[5],
        }


def _words(generator: np.random.Generator) -> list[int]:
    state = generator.bit_generator.state
    if state["bit_generator"] != "PCG64":
        raise TypeError(f"environments need PCG64 generators (numpy.random.default_rng), got {state['bit_generator']}")
    inner = state["state"]
    numbers = inner["state"], inner["inc"]
    return [word for number in numbers for word in (number >> 64, number & _WORD)] + [
        state["has_uint32"],
        state["uinteger"],
    ]
