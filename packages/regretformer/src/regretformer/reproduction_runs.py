"""The runs behind the paper's tables: trainings, distillations, and cross-misreports in directories of their own.

Imports no torch until something is run.
"""

import dataclasses
from typing import Any

from gt_core.config import RunConfig

from regretformer.config import Attack, TrainConfig
from regretformer.distillation_config import DistillConfig

__all__ = ["CrossConfig", "complete", "measure_cross"]


@dataclasses.dataclass(frozen=True)
class CrossConfig(RunConfig):
    """Score mechanisms on the misreports found against each other."""

    preset: str = "cross-misreport"
    """The named set of defaults that everything else starts from."""
    mechanisms: tuple[str, ...] = ()
    """Directories of finished runs for one setting, with different networks."""
    setting: str = ""
    """What all of them must be for."""
    attack: Attack = "auto"
    """Search for misreports; auto is the strongest that is feasible."""
    evaluation_valuations: int = 1_000
    """Fresh profiles on which regret is measured."""

    @property
    def name(self) -> str:
        """A name for the run."""
        return f"{self.preset}-{self.setting}-seed{self.seed}"


def complete(config: TrainConfig | DistillConfig | CrossConfig) -> dict[str, Any] | None:
    """Run a config of any of the three kinds, or go on with it, and return the result."""
    if isinstance(config, CrossConfig):
        return measure_cross(config)
    if isinstance(config, DistillConfig):
        from regretformer.distillation import complete_distillation

        return complete_distillation(config)
    from regretformer.runs import complete as complete_training

    return complete_training(config)


def measure_cross(config: CrossConfig) -> dict[str, Any]:
    """The table as one flat object in the config's directory, by names such as `regretnet/regretformer`.

    The first is the network that misreports were found against, the second the one that is scored on them: its sum of
    regret over its revenue.

    Raises:
        InputError: if a mechanism is not there, or two have the same network.
    """
    from gt_core.environment import prepare
    from gt_core.run import Run

    from regretformer.compare import equal_evaluation
    from regretformer.cross_misreports import cross_misreports
    from regretformer.mechanisms import open_mechanisms

    prepare(config.device, config.threads)
    mechanisms, valuations = open_mechanisms(config.mechanisms, config.setting)
    run = Run(config, resume=True, packages=("regretformer",))
    if run.result is not None:
        return run.result
    evaluation = equal_evaluation(valuations.setting, config.attack, config.evaluation_valuations, config.seed)
    table = cross_misreports(mechanisms, valuations, evaluation)
    nets = [one.config.net if one.config else one.name for one in mechanisms]
    figures = {
        f"{source}/{target}": table["regret_sum_over_revenue"][row][column]
        for row, source in enumerate(nets)
        for column, target in enumerate(nets)
    }
    about = {"setting": table["setting"], "attack": table["attack"], "n_valuations": table["n_valuations"]}
    return run.finish({**about, **figures})
