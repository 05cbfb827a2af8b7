"""What a run ends with: its evaluation, its pictures and its table."""

from pathlib import Path
from typing import Any

from gt_core.checkpoint import load_checkpoint
from gt_core.config import read_config
from gt_core.errors import CheckpointError, RunError
from gt_core.seeding import Streams
from rich.table import Table

from regretformer.auction import Mechanism
from regretformer.config import DEFAULT_PRESET, PRESETS, Attack, TrainConfig
from regretformer.distillation_config import DistillConfig
from regretformer.evaluate import EvaluationConfig, evaluate, resolve_attack
from regretformer.maps import plot_allocation, plot_regret, survey
from regretformer.networks.network import AuctionNetwork
from regretformer.official import convert_official
from regretformer.oracles import known_optimum
from regretformer.plots import plot_divergence, plot_learning_curve, plot_multiplier, read_metrics
from regretformer.train import build_network
from regretformer.valuations import UniformValuations, Valuations

__all__ = [
    "default_evaluation",
    "draw_mechanism",
    "draw_run",
    "evaluate_run",
    "load_config",
    "load_network",
    "result_table",
]


def load_config(directory: Path) -> TrainConfig:
    """The config of the run in `directory`; of a distillation, the student's.

    Raises:
        RunError: if it holds no run.
    """
    file = directory / "config.json"
    if not file.is_file():
        raise RunError(f"{directory} holds no run: there is no {file}")
    if '"teacher":' in file.read_text():
        return read_config(DistillConfig(), file).student
    return read_config(PRESETS[DEFAULT_PRESET], file)


def load_network(directory: Path) -> AuctionNetwork:
    """The trained network of the finished run in `directory`, or the published one that was imported there.

    Raises:
        RunError: if the run is not finished.
        CheckpointError: if the model is damaged, or of another network than the config says.
    """
    config = load_config(directory)
    model = directory / "model"
    if not model.is_dir():
        raise RunError(f"{directory} holds no trained model yet; finish it with regretformer-train --resume")
    state = load_checkpoint(model)
    if "official" in state:
        size = config.auction.bidders, config.auction.items
        return convert_official(state["official"], size, heads=state["heads"]).float()
    network = build_network(config)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{model} is no {config.net} for {config.setting}: {error}") from error
    return network


def default_evaluation(config: TrainConfig, attack: Attack = "auto", seed: int = 0) -> EvaluationConfig:
    """How a run is evaluated unless told otherwise."""
    count, attack = config.evaluation_valuations, resolve_attack(attack, config.auction)
    return EvaluationConfig(
        attack=attack,
        valuations=count if attack == "grid" else max(2, count // 10),
        revenue_valuations=100 * count,
        seed=seed,
    )


def evaluate_run(directory: Path, evaluation: EvaluationConfig) -> dict[str, Any]:
    """The evaluation of the run in `directory` as one flat object.

    The published protocol's figures stand beside the honest ones, and the exact optimum where one is known.
    """
    config = load_config(directory)
    network, valuations = load_network(directory), UniformValuations(config.auction)
    optimum = known_optimum(config.setting)
    figures = evaluate(network, valuations, evaluation)
    return {
        "setting": config.setting,
        "net": config.net,
        "preset": config.preset,
        **figures,
        "regret_budget": config.regret_budget,
        "regret_over_budget": figures["regret_sum_over_revenue"] / config.regret_budget,
        "optimal_revenue": None if optimum is None else optimum.revenue,
    }


def draw_run(directory: Path, plots: Path | None = None) -> list[Path]:
    """Write the pictures of the run in `directory` to a folder, by default its `plots/`; the files written."""
    config, plots = load_config(directory), plots or directory / "plots"
    title = f"{config.net}, {config.setting}"
    learning = _draw_learning(directory, plots, config) if (directory / "metrics.jsonl").is_file() else []
    return learning + draw_mechanism(load_network(directory), UniformValuations(config.auction), plots, title)


def _draw_learning(directory: Path, plots: Path, config: TrainConfig) -> list[Path]:
    metrics = read_metrics(directory)
    if "train/divergence" in metrics:
        plot_divergence(plots / "learning_curve.png", metrics)
        return [plots / "learning_curve.png"]
    plot_learning_curve(plots / "learning_curve.png", metrics, known_optimum(config.setting))
    plot_multiplier(plots / "multiplier.png", metrics)
    return [plots / "learning_curve.png", plots / "multiplier.png"]


def draw_mechanism(mechanism: Mechanism, valuations: Valuations, folder: Path, title: str) -> list[Path]:
    """Write the maps of a mechanism to a folder; the files written, none where there is only one item."""
    setting = valuations.setting
    if setting.items < 2:
        return []
    maps = survey(mechanism, valuations, Streams(0).torch("maps"))
    optimum = known_optimum(setting.name) if (setting.bidders, setting.items) == (1, 2) else None
    plot_allocation(folder / "allocation.png", maps, optimum, title)
    plot_regret(folder / "regret.png", maps, optimum, title)
    return [folder / "allocation.png", folder / "regret.png"]


def result_table(result: dict[str, Any]) -> Table:
    """The figures a person looks at first."""
    table = Table("", "", "95 % interval", "measured on", title=f"{result['net']} · {result['setting']}")
    low, high = result["revenue_ci"]
    table.add_row(
        "revenue",
        f"{result['revenue']:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{result['n_revenue_valuations']:,} profiles",
    )
    if result["optimal_revenue"] is not None:
        table.add_row("optimal revenue", f"{result['optimal_revenue']:.4f}", "", "exact, at no regret")
    low, high = result["regret_sum_over_revenue_ci"]
    table.add_row(
        "regret / revenue",
        f"{result['regret_sum_over_revenue']:.6f}",
        f"{low:.6f} to {high:.6f}",
        f"{result['n_valuations']:,} profiles, {result['attack']}",
    )
    table.add_row("… / budget", f"{result['regret_over_budget']:.3f}", "", f"budget {result['regret_budget']:g}")
    table.add_row("largest regret", f"{result['regret_max']:.6f}", "", "one bidder, one profile")
    if result["attack"] != "protocol":
        low, high = result["protocol_regret_sum_over_revenue_ci"]
        table.add_row(
            "regret / revenue",
            f"{result['protocol_regret_sum_over_revenue']:.6f}",
            f"{low:.6f} to {high:.6f}",
            f"{result['protocol_n_valuations']:,} profiles, protocol",
        )
    low, high = result["score_ci"]
    table.add_row("score", f"{result['score']:.4f}", f"{low:.4f} to {high:.4f}", "(√revenue - √regret)²")
    return table
