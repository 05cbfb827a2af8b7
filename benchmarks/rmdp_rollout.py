"""How much of MuJoCo's raw speed the batched robots keep: ratios within one run.

Each round plays the same actions from the same states twice on the same threads: as one open-loop call of MuJoCo's
native thread pool without any Python in between (raw), and step by step with feedback, observations, velocities,
terminations and resets (batch). The figure is the median over the rounds of raw time over batch time. A plain loop over
one Gymnasium environment stands beside it.

    python benchmarks/rmdp_rollout.py [--copies 100] [--threads 0] [--rounds 30] [--quick]
"""

import argparse
import time
import warnings
from collections.abc import Callable

import gymnasium
import mujoco
import numpy as np
from mujoco import rollout
from rmdp.envs.mujoco import MujocoBatch
from rmdp.envs.physics import quieten

NAMES = ("HalfCheetah-v4", "Hopper-v4", "Walker2d-v4", "Ant-v4", "Ant-v5")
STEPS = 10


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def raw_pool(batch: MujocoBatch, threads: int) -> Callable[[np.ndarray, np.ndarray], object]:
    """Open-loop physics from states (B, S) under actions (T, B, A), one native call."""
    model, frames = batch.model, batch.robot.frame_skip
    pool = rollout.Rollout(nthread=threads if threads > 1 else 0)
    models, datas = [model] * batch.copies, [mujoco.MjData(model) for _ in range(threads)]
    path = np.zeros(
        (batch.copies, STEPS * frames, mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS.value))
    )
    nothing = np.zeros((batch.copies, STEPS * frames, 0))

    def run(states: np.ndarray, actions: np.ndarray) -> object:
        controls = np.repeat(actions.swapaxes(0, 1), frames, axis=1).astype(np.float64)
        return pool.rollout(
            models, datas, states, controls, skip_checks=True, nstep=STEPS * frames, state=path, sensordata=nothing
        )

    return run


def rates(name: str, copies: int, threads: int, rounds: int, *, exact: bool) -> tuple[float, float]:
    """Steps per second of the batch, and its share of raw physics; medians over the rounds."""
    random = np.random.default_rng(0)
    batch = MujocoBatch(name, copies, random, threads=threads, exact=exact)
    raw = raw_pool(batch, batch.threads)
    batch.reset()
    actions = random.uniform(-1, 1, (STEPS, copies, batch.actions.size)).astype(np.float32)
    times = []
    for _ in range(rounds + 2):
        states = batch.state()["physics"]
        pair = [lambda states=states: raw(states, actions), lambda: [batch.step(action) for action in actions]]
        times.append([seconds(work) for work in pair])
    batch.close()
    raw_times, batch_times = np.array(times[2:]).T
    return STEPS * copies / float(np.median(batch_times)), float(np.median(raw_times / batch_times))


def plain_loop(name: str, steps: int = 1000) -> float:
    """Steps per second of one Gymnasium environment."""
    quieten()
    with warnings.catch_warnings(action="ignore"):
        env = gymnasium.make(name, disable_env_checker=True)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(steps)]

    def play() -> None:
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()

    return steps / min(seconds(play) for _ in range(3))


def main() -> None:
    """Print one line per robot and way of stepping."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--copies", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0, help="0 takes every core")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="five rounds")
    options = parser.parse_args()
    rounds = 5 if options.quick else options.rounds
    print(f"{'environment':15} {'way':7} {'steps/s':>8} {'of raw':>7} {'of a plain loop':>16}")
    for name in NAMES:
        loop = plain_loop(name)
        for exact in [True] if name == "Ant-v5" else [False, True]:
            rate, share = rates(name, options.copies, options.threads, rounds, exact=exact)
            print(
                f"{name:15} {'exact' if exact else 'native':7} {rate:8.0f} {share:7.1%} {rate / loop:15.1f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
