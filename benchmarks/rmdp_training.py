"""Environment steps per second of r-MDP training, collecting and learning, beside what else the same machine does.

For each robot and budget k, in this order and within one run:

- physics: MuJoCo's native thread pool by itself, on the very states and actions of a rollout, ten steps a call;
- rollout: the k policies act in these copies, users are not asked and nothing is learnt; and its rate over physics;
- paper: whole iterations with the paper's samples, epochs and minibatches (2048, 10, 32);
- fast: whole iterations with the default plan (2048, 6, 8);
- official: what the published code was measured at on two cores, and how many times that `paper` is.

Below each robot: a loop over one Gymnasium environment with random actions, and Stable-Baselines3's PPO on one
environment with the same samples, epochs and minibatches, for one policy.

    python benchmarks/rmdp_training.py [--threads 0] [--iterations 5] [--quick]
"""

import argparse
import dataclasses
import os
import warnings
from statistics import median
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from rmdp.algorithms.em import EM
from rmdp.config import PRESETS, TrainConfig
from rmdp.envs.batch import Step
from rmdp.envs.mujoco import MujocoBatch
from rmdp.representatives import Representatives
from rmdp.rollout import Collector
from rmdp.setup import build_population
from rmdp_rollout import STEPS, plain_loop, raw_pool, seconds
from stable_baselines3 import PPO

OFFICIAL = {
    ("HalfCheetah-v4", 1): (1150, 1150),
    ("HalfCheetah-v4", 5): (3900, 4300),
    ("HalfCheetah-v4", 50): (5000, 5400),
    ("Hopper-v4", 5): (2800, 3150),
    ("Walker2d-v4", 5): (2600, 2600),
    ("Ant-v4", 5): (2200, 2200),
}
"""Lowest and highest rate of the published code, in environment steps per second."""


STEPS_AT_LEAST = 100_000
"""What is timed of each kind: an iteration of one policy has 2,000 and takes a tenth of a second."""


def config_of(plan: str, env: str, k: int, threads: int, samples: int) -> TrainConfig:
    """A preset's plan with about a hundred copies."""
    return dataclasses.replace(PRESETS[plan], env=env, k=k, copies=0, threads=threads, samples=samples)


class Rates(NamedTuple):
    """Environment steps per second, medians."""

    physics: float
    """By itself."""
    rollout: float
    """Of the policies at work."""
    share: float
    """Of the rollout's rate in that of physics, in pairs of one after the other."""
    whole: float
    """Of whole iterations."""


def learning_rates(config: TrainConfig, iterations: int, steps: int = 0) -> Rates:
    """The rates over a number of iterations, or as many as `steps` environment steps take if they are more."""
    rounds = max(iterations, steps // config.steps_per_iteration)
    learner = EM(config, build_population(config))
    learner.iterate()  # memory is allocated, observations are normalised from here on
    pairs = [physics_and_rollout(learner.representatives) for _ in range(rounds)]
    physics, rollout = (median(column) for column in zip(*pairs, strict=True))
    share = median(ours / alone for alone, ours in pairs)
    learner.iterate()  # from here on segments are collected ahead
    whole = median(seconds(learner.iterate) for _ in range(rounds))
    learner.representatives.env.close()
    return Rates(physics, rollout, share, config.steps_per_iteration / whole)


def physics_and_rollout(representatives: Representatives) -> tuple[float, float]:
    """Steps per second of MuJoCo's pool alone, and of a rollout, for the same motion."""
    batch, states = representatives.env, []
    assert isinstance(batch, MujocoBatch)
    before, step = representatives.state_dict(), batch.step
    representatives.load_state_dict(before)  # and nothing is collected ahead

    def remember(actions: np.ndarray) -> Step:
        states.append(batch.state()["physics"])
        return step(actions)

    batch.step = remember  # type: ignore[method-assign]
    ours = representatives.collector
    parts = representatives.policies, representatives.moments, representatives.config.k
    representatives.collector = Collector(batch, *parts)  # one lane, which calls `step`
    actions = representatives.collect().transition.action
    representatives.collector = ours
    batch.step = step  # type: ignore[method-assign]
    representatives.load_state_dict(before)
    rollout = seconds(representatives.collect)
    run, starts = raw_pool(batch, batch.threads), range(0, len(states) - STEPS + 1, STEPS)
    alone = sum(seconds(lambda at=at: run(states[at], actions[at : at + STEPS])) for at in starts)
    return len(starts) * STEPS * batch.copies / alone, len(states) * batch.copies / rollout


def stable_baselines3_rate(env: str, samples: int, iterations: int) -> float:
    """Steps per second of Stable-Baselines3's PPO, whole iterations on one environment."""
    with warnings.catch_warnings(action="ignore"):
        model = PPO("MlpPolicy", gymnasium.make(env), n_steps=samples, batch_size=samples // 32, device="cpu", seed=0)
    model.learn(samples)
    return samples / median(seconds(lambda: model.learn(samples)) for _ in range(iterations))


def main() -> None:
    """Print a block for each robot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=0, help="0 takes every core")
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one iteration of an eighth of the samples")
    options = parser.parse_args()
    threads = options.threads or len(os.sched_getaffinity(0))
    samples, iterations, steps = (256, 1, 0) if options.quick else (2048, options.iterations, STEPS_AT_LEAST)
    torch.set_num_threads(1)  # as a run does, so that its bits do not depend on the number of threads
    print(f"{threads} threads, {samples} samples, environment steps per second")
    print(
        f"{'environment':15} {'k':>3} {'physics':>8} {'rollout':>15} {'paper':>8} {'fast':>8} {'official':>12} {'x':>5}"
    )
    for env in dict.fromkeys(env for env, _ in OFFICIAL):
        for k, (low, high) in ((k, rates) for (name, k), rates in OFFICIAL.items() if name == env):
            paper = config_of("paper", env, k, threads, samples)
            rates = learning_rates(paper, iterations, steps)
            fast = learning_rates(config_of("fast", env, k, threads, samples), iterations, steps).whole
            official = f"{low}" if low == high else f"{low}-{high}"
            shown = f"{rates.physics:8.0f} {rates.rollout:8.0f} {rates.share:6.1%} {rates.whole:8.0f} {fast:8.0f}"
            print(f"{env:15} {k:3} {shown} {official:>12} {rates.whole / high:5.1f}", flush=True)
        loop, theirs = plain_loop(env), stable_baselines3_rate(env, samples, iterations)
        print(f"{env:15}     one Gymnasium environment {loop:.0f}, Stable-Baselines3's PPO {theirs:.0f}", flush=True)


if __name__ == "__main__":
    main()
