"""What keeps a run with target velocities from its ceiling: its clusters, its speeds, their ripple, and the start.

    RUN=packages/rmdp/results/HalfCheetah-v4-k5-em-2000/seed0
    python packages/rmdp/results/losses.py $RUN > $RUN/losses.json  # table.py puts it into the README

The ceiling knows only speeds that are held from the first step on. Of one deterministic episode of each representative
this tells apart what the users lose because

- clusters: they are not matched as the ceiling matches them, though each cluster had its best speed;
- offset: a representative runs a little too slowly or too fast for its users;
- ripple: its speed moves around within a stride, or from stride to stride, even if it had no offset;
- start: it must get going first, in the first hundred steps.

The four add up to the ceiling less the welfare of those episodes.
"""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
from gt_core.welfare import utilitarian

from rmdp.ceilings import velocity_ceiling
from rmdp.envs.batch import Floats, Transition
from rmdp.evaluate import deterministic_returns
from rmdp.population import TargetVelocity
from rmdp.setup import build_env
from rmdp.train import Model, load_model

_START = 100
"""Steps until a robot that learnt to run does so."""
_OFFSETS = np.linspace(-1, 1, 401)
"""In m/s, 0 among them."""


@dataclasses.dataclass
class Watched:
    """Users that note the speeds they are asked about."""

    users: TargetVelocity
    speeds: list[Floats] = dataclasses.field(default_factory=list)

    @property
    def n(self) -> int:
        """How many users there are."""
        return self.users.n

    def rewards(self, transition: Transition) -> Floats:
        """See `Population`."""
        self.speeds.append(np.array(transition.info["x_velocity"]))
        return self.users.rewards(transition)

    def eased(self, factor: float) -> "Watched":
        """See `Population`."""
        return Watched(self.users.eased(factor))


def losses(model: Model) -> dict[str, float]:
    """The four parts, in units of welfare."""
    users = model.population
    assert isinstance(users, TargetVelocity)  # noqa: S101 (for the type checker)
    env = build_env(model.config, 1, np.random.default_rng(0))
    watched = Watched(users)
    values = deterministic_returns(env, model.policies, model.moments, watched, model.config.k)
    env.close()
    own = model.assignment
    welfare = float(utilitarian(values[own, np.arange(users.n)]))
    ceiling = velocity_ceiling(users.targets, users.width, model.config.k)
    steps, running = len(watched.speeds), np.array(watched.speeds[_START:])
    held = moved = steady = 0.0
    for one in range(model.config.k):
        cluster = TargetVelocity(users.targets[own == one], users.width, users.scale)
        speed, share = running[:, one], steps * cluster.n / users.n
        held += share * max(_worth(cluster, np.array([target])) for target in cluster.targets)
        moved += share * max(_worth(cluster, speed + offset) for offset in _OFFSETS)
        steady += share * _worth(cluster, speed)
    return {
        "welfare": welfare,
        "ceiling": ceiling,
        "clusters": ceiling - held,
        "offset": moved - steady,
        "ripple": held - moved,
        "start": steady - welfare,
    }


def _worth(cluster: TargetVelocity, speed: Floats) -> float:
    """Mean reward per step of the users for these speeds, (steps,)."""
    closeness = 1 - np.abs(speed[:, None] - cluster.targets) / cluster.width
    return float(cluster.scale * closeness.clip(0, 1).mean())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(losses(load_model(Path(sys.argv[1]))), indent=2) + "\n")
