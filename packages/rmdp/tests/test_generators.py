"""Generators of copies and their saved states."""

import numpy as np
import pytest

from rmdp.envs.generators import generator_words, restore_generators, spawn


def test_restored_generators_draw_the_same():
    generators = spawn(np.random.default_rng(0), 3)
    for generator in generators:
        generator.integers(10, dtype=np.uint32)  # leaves half a word in the buffer
    words = generator_words(generators)
    expected = [generator.standard_normal(5) for generator in generators]
    others = spawn(np.random.default_rng(1), 3)
    restore_generators(others, words)
    np.testing.assert_array_equal([generator.standard_normal(5) for generator in others], expected)


def test_spawned_generators_differ_and_depend_on_the_state():
    parent = np.random.default_rng(0)
    draws = [generator.random() for generator in spawn(parent, 3) + spawn(parent, 3)]
    assert len(set(draws)) == 6


def test_foreign_generators_and_shapes_are_refused():
    with pytest.raises(TypeError, match=r"PCG64 .* got MT19937"):
        generator_words([np.random.Generator(np.random.MT19937(0))])
    with pytest.raises(ValueError, match=r"expected generator states of shape \(2, 6\), got \(1, 6\)"):
        restore_generators(spawn(np.random.default_rng(0), 2), np.zeros((1, 6), dtype=np.int64))
