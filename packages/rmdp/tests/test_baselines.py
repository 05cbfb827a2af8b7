"""Who is served by whom in the algorithms other than the EM-like one, and the gradient of the soft assignment."""

import dataclasses

import numpy as np
import pytest
import torch
from gt_core.errors import InputError

from rmdp.algorithms import ALGORITHMS
from rmdp.algorithms.cluster import Cluster, k_means
from rmdp.algorithms.end_to_end import soft_welfare
from rmdp.algorithms.oracle import equal_intervals
from rmdp.assignment import QTable, cluster_sizes, greedy_assignment, social_welfare
from rmdp.config import PRESETS
from rmdp.setup import build_population

WALKS = dataclasses.replace(PRESETS["gathering"], k=3, iterations=10, samples=256, threads=1)


def learner_of(config):
    return ALGORITHMS[config.algorithm](config, build_population(config))


def test_soft_gradient_is_that_of_the_formula():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    values = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    soft_welfare(logits, values).backward()
    alpha = logits.detach().softmax(0)
    torch.testing.assert_close(logits.grad, alpha * (values - (alpha * values).sum(0)) / 4)


def test_soft_assignment_finds_the_best_representative_of_every_user():
    learner = learner_of(dataclasses.replace(WALKS, algorithm="end-to-end"))
    values = np.random.default_rng(0).uniform(size=(3, 25))
    learner.eased_table = QTable(values, np.ones(3))
    for _ in range(200):
        learner._climb()
    assert learner.assignment.tolist() == values.argmax(axis=0).tolist()
    soft = soft_welfare(learner.logits.detach(), torch.from_numpy(values)).item()
    assert soft == pytest.approx(social_welfare(values, greedy_assignment(values, learner.assignment)), abs=0.01)


def test_first_step_of_the_soft_assignment_by_hand():
    learner = learner_of(dataclasses.replace(WALKS, algorithm="end-to-end", assignment_rate=0.5))
    before = learner.logits.detach().clone()
    learner.eased_table = QTable(np.tile([[1.0], [0.0], [0.0]], 25), np.ones(3))
    learner._climb()  # Adam's first step is the rate times the sign of the gradient
    expected = torch.tensor([[0.5], [-0.5], [-0.5]], dtype=torch.float64).expand(3, 25)
    torch.testing.assert_close(learner.logits.detach() - before, expected, atol=1e-4, rtol=0)


def test_k_means_finds_separated_clusters_whatever_their_order():
    truth = np.array([0, 1, 2, 1, 0, 2, 2, 1, 0, 0])
    generator = np.random.default_rng(3)
    features = np.eye(3)[truth] @ generator.normal(size=(3, 50)) * 10 + generator.normal(size=(10, 50)) * 0.01
    found = k_means(features, 3, generator)
    assert len({(a, b) for a, b in zip(truth.tolist(), found.tolist(), strict=True)}) == 3


def test_k_means_leaves_no_cluster_empty_among_equal_points():
    assert sorted(set(k_means(np.zeros((6, 4)), 3, np.random.default_rng(0)).tolist())) == [0, 1, 2]


def test_k_means_on_a_line_by_hand():
    found = k_means(np.array([[0.0], [1.0], [5.0], [6.0]]), 2, np.random.default_rng(0))
    assert found[0] == found[1] != found[2] == found[3]


def test_oracle_cuts_the_interval_into_equal_parts():
    assert equal_intervals(np.array([0.1, 0.9, 1.1, 3.9, 2.5]), 0.0, 4.0, 4).tolist() == [0, 0, 1, 3, 2]


def test_oracle_fills_an_empty_part_with_the_nearest_user_in_company():
    assert equal_intervals(np.array([0.1, 0.9, 1.2]), 0.0, 4.0, 2).tolist() == [0, 0, 1]


def test_oracle_needs_target_velocities():
    with pytest.raises(InputError, match="oracle needs users with target velocities, resource-gathering has others"):
        learner_of(dataclasses.replace(WALKS, algorithm="oracle"))


def test_random_clusters_are_equal_though_the_budget_does_not_divide_the_users():
    learner = learner_of(dataclasses.replace(WALKS, algorithm="random"))
    assert sorted(cluster_sizes(learner.assignment, 3).tolist()) == [8, 8, 9]
    assert learner.assignment.tolist() != sorted(learner.assignment.tolist())


def test_cluster_spends_the_same_steps_as_the_others():
    learner: Cluster = learner_of(dataclasses.replace(WALKS, algorithm="cluster", pretrain=0.2))
    steps = [learner.iterate()["train/env_steps"] for _ in range(4)]
    assert (learner.alone.step, learner.clusters.step) == (2, 2)
    assert np.diff(steps).tolist() == [WALKS.steps_per_iteration] * 3
    assert learner.alone.config.steps_per_iteration == WALKS.steps_per_iteration
