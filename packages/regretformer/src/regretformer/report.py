"""What a run ends with: its evaluation, its pictures and its table."""

import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from gt_core.checkpoint import load_checkpoint
from gt_core.config import read_config
from gt_core.errors import CheckpointError, InputError, RunError
from gt_core.pretrained import located
from gt_core.seeding import Streams
from rich.table import Table
from torch import Tensor

from regretformer.auction import Mechanism
from regretformer.config import DEFAULT_PRESET, PRESETS, Attack, TrainConfig
from regretformer.distillation_config import DistillConfig
from regretformer.evaluate import EvaluationConfig, evaluate, measure_revenue, resolve_attack
from regretformer.export import takes_any_size
from regretformer.maps import plot_allocation, plot_regret, survey
from regretformer.networks.build import ToldApart, build
from regretformer.networks.network import AuctionNetwork
from regretformer.official import convert_official
from regretformer.oracles import Optimum, baselines, known_optimum
from regretformer.plots import plot_divergence, plot_learning_curve, plot_multiplier, read_metrics
from regretformer.setting import Setting, parse_setting, parse_settings
from regretformer.side_by_side import measured
from regretformer.sources import load_valuations
from regretformer.valuations import Valuations

__all__ = [
    "default_evaluation",
    "draw_mechanism",
    "draw_run",
    "evaluate_run",
    "load_config",
    "load_network",
    "require_fits",
    "result_table",
]

_END_OF_TRAINING = 0.05


def load_config(directory: Path) -> TrainConfig:
    """The config of the run in `directory`, or of one that ships; of a distillation, the student's.

    Raises:
        RunError: if it holds no run.
    """
    file = located("regretformer", directory) / "config.json"
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
    model = located("regretformer", directory) / "model"
    if not model.is_dir():
        raise RunError(f"{directory} holds no trained model yet; finish it with regretformer-train --resume")
    state = load_checkpoint(model)
    if "official" in state:
        size = config.auction.bidders, config.auction.items
        return convert_official(state["official"], size, heads=state["heads"]).float()
    network = build(
        config.net,
        config.auction.bidders,
        config.auction.items,
        seed=0,
        support=(state["normalisation.low"], state["normalisation.high"]) if "normalisation.low" in state else None,
        told_apart=_told_apart(state),
        demand=config.auction.demand,
    )
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(f"{model} is no {config.net} for {config.setting}: {error}") from error
    return network


def _told_apart(state: dict[str, Tensor]) -> ToldApart:
    """Whom a saved network encodes by position, or what it is told of their numbers."""
    if "positions.sizes.weight" in state:
        return "rivals" if state["input_layer.own.weight"].shape[1] == 2 else "sizes"
    bidders, items = "positions.bidders" in state, "positions.items" in state
    return "both" if bidders and items else "bidders" if bidders else "items" if items else "none"


def require_fits(network: AuctionNetwork, config: TrainConfig, setting: Setting) -> None:
    """Refuse a setting that a learnt network is not for.

    Raises:
        InputError: if the network takes other sizes only, or was learnt for another demand: what it gives to bidders
            who want one item each is not worth to them what `regretformer.auction.utilities` says.
    """
    if setting.demand != network.demand:
        raise InputError(
            f"this {config.net} was learnt for {network.demand} demand ({config.setting}), but bidders of "
            f"{setting.name} have {setting.demand} demand; train one for it"
        )
    trained = {(auction.bidders, auction.items) for auction in config.auctions}
    if (setting.bidders, setting.items) not in trained and not takes_any_size(network):
        raise InputError(f"this {config.net} takes its setting {config.setting} only, not {setting.name}")


def default_evaluation(
    config: TrainConfig, attack: Attack = "auto", seed: int = 0, setting: str | None = None
) -> EvaluationConfig:
    """How a run is evaluated unless told otherwise, on its own setting or another."""
    largest = parse_settings(setting or config.setting)[-1]
    count, attack = config.evaluation_valuations, resolve_attack(attack, largest)
    return EvaluationConfig(
        attack=attack,
        valuations=count if attack == "grid" else max(2, count // 10),
        revenue_valuations=100 * count,
        seed=seed,
    )


def evaluate_run(
    directory: Path,
    evaluation: EvaluationConfig,
    setting: str | None = None,
    device: str = "cpu",
    *,
    threads: int = 1,
    kept: Path | None = None,
) -> dict[str, Any]:
    """The evaluation of the run in `directory` as one flat object.

    The published protocol's figures stand beside the honest ones, the exact optimum where one is known, and the ratio
    of regret to revenue that training itself saw in its last twentieth, over the budget. Recorded valuations are those
    that were held out.

    Of a mixture, each setting's figures are named `2x3/revenue` and so on; `revenue` is then their mean, and
    `regret_sum_over_revenue` the largest, since the budget is for every setting.

    Args:
        directory: of the run.
        evaluation: how to evaluate.
        setting: another setting than the run's, for a network that takes any size.
        device: where to evaluate.
        threads: how many settings of a mixture are evaluated at a time.
        kept: folder for what is known of single settings of a mixture; see `regretformer.side_by_side`.

    Raises:
        InputError: if the network does not take the setting, or the valuations do not.
    """
    config, network = load_config(directory), load_network(directory)
    auctions = config.auctions if setting is None else tuple(map(config.declared, parse_settings(setting)))
    for auction in auctions:
        require_fits(network, config, auction)
    ratios = _training_ratios(directory, config)
    found = measured(
        [auction.name for auction in auctions],
        partial(_evaluate_setting, directory, evaluation, device),
        threads=threads,
        kept=kept if len(auctions) > 1 else None,
        how=dataclasses.asdict(evaluation),
    )
    each = {name: {**figures, "training_ratio": ratios.get(name)} for name, figures in found.items()}
    about = {
        "setting": setting or config.setting,
        "net": config.net,
        "preset": config.preset,
        "valuations": config.valuations,
        "constraint": config.constraint,
    }
    return {**about, **(_of_mixture(each) if len(each) > 1 else each[auctions[0].name])}


def _evaluate_setting(directory: Path, evaluation: EvaluationConfig, device: str, name: str) -> dict[str, Any]:
    config = load_config(directory)
    setting = config.declared(parse_setting(name))
    valuations, optimum = load_valuations(config, setting, "held-out", device), _known_optimum(config, setting)
    figures = evaluate(load_network(directory).to(device), valuations, evaluation)
    return {
        **figures,
        "regret_budget": config.regret_budget,
        "regret_over_budget": figures["regret_sum_over_revenue"] / config.regret_budget,
        "optimal_revenue": None if optimum is None else optimum.revenue,
        **_best_baseline(valuations, evaluation),
    }


def _best_baseline(valuations: Valuations, evaluation: EvaluationConfig) -> dict[str, Any]:
    """The truthful auction that earns most without learning; null where none is known."""
    earned = {
        name: measure_revenue(auction, valuations, evaluation.revenue_valuations, Streams(evaluation.seed))[0]
        for name, auction in baselines(valuations).items()
    }
    best = max(earned, key=lambda name: earned[name], default=None)
    return {"baseline": best, "baseline_revenue": None if best is None else earned[best]}


def _of_mixture(each: dict[str, dict[str, Any]]) -> dict[str, Any]:
    worst = max(each.values(), key=lambda figures: float(figures["regret_sum_over_revenue"]))
    return {
        "settings": list(each),
        "revenue": sum(figures["revenue"] for figures in each.values()) / len(each),
        **{name: worst[name] for name in ("regret_sum_over_revenue", "regret_budget", "regret_over_budget")},
        **{f"{name}/{key}": value for name, figures in each.items() for key, value in figures.items()},
    }


def _training_ratios(directory: Path, config: TrainConfig) -> dict[str, float]:
    """Regret over revenue in training, over the budget, by setting; the mean over the last twentieth of iterations."""
    if not (directory / "metrics.jsonl").is_file():
        return {}
    metrics = read_metrics(directory)
    if "train/regret_over_revenue" not in metrics:  # a distillation
        return {}
    ratios = metrics["train/regret_over_revenue"] / config.regret_budget
    late = metrics["step"] > (1 - _END_OF_TRAINING) * config.iterations
    settings = metrics.get("train/setting", 0 * metrics["step"])
    seen = {auction.name: ratios[late & (settings == index)] for index, auction in enumerate(config.auctions)}
    return {name: float(values.mean()) for name, values in seen.items() if len(values)}


def _known_optimum(config: TrainConfig, setting: Setting) -> Optimum | None:
    """The exact optimum, which is known for the named settings as they are only."""
    as_named = config.valuations == "uniform" and not (config.low or config.high)
    return known_optimum(setting.name) if as_named else None


def draw_run(directory: Path, plots: Path | None = None) -> list[Path]:
    """Write the pictures of the run in `directory` to a folder, by default its `plots/`; the files written."""
    config, plots = load_config(directory), plots or directory / "plots"
    title, optimum = f"{config.net}, {config.setting}", _known_optimum(config, config.auction)
    learning = _draw_learning(directory, plots, optimum) if (directory / "metrics.jsonl").is_file() else []
    return learning + draw_mechanism(load_network(directory), load_valuations(config), plots, title, optimum)


def _draw_learning(directory: Path, plots: Path, optimum: Optimum | None) -> list[Path]:
    metrics = read_metrics(directory)
    if "train/divergence" in metrics:
        plot_divergence(plots / "learning_curve.png", metrics)
        return [plots / "learning_curve.png"]
    plot_learning_curve(plots / "learning_curve.png", metrics, optimum)
    plot_multiplier(plots / "multiplier.png", metrics)
    return [plots / "learning_curve.png", plots / "multiplier.png"]


def draw_mechanism(
    mechanism: Mechanism, valuations: Valuations, folder: Path, title: str, optimum: Optimum | None
) -> list[Path]:
    """Write the maps of a mechanism to a folder; the files written, none where there is only one item."""
    setting = valuations.setting
    if setting.items < 2:
        return []
    maps = survey(mechanism, valuations, Streams(0).torch("maps"))
    optimum = optimum if (setting.bidders, setting.items) == (1, 2) else None
    plot_allocation(folder / "allocation.png", maps, optimum, title)
    plot_regret(folder / "regret.png", maps, optimum, title)
    return [folder / "allocation.png", folder / "regret.png"]


def result_table(result: dict[str, Any]) -> Table:
    """The figures a person looks at first."""
    title = f"{result['net']} · {result['setting']}"
    return _mixture_table(result, title) if "settings" in result else _setting_table(result, title)


def _mixture_table(result: dict[str, Any], title: str) -> Table:
    """One row per setting."""
    table = Table("setting", "revenue", "truthful", "regret / revenue", "… / budget", "… in training", title=title)
    for name in result["settings"]:
        revenue, ratio, of_budget, in_training = (
            result[f"{name}/{key}"]
            for key in ("revenue", "regret_sum_over_revenue", "regret_over_budget", "training_ratio")
        )
        trained = "" if in_training is None else f"{in_training:.3f}"
        truthful = result.get(f"{name}/baseline_revenue")
        known = "" if truthful is None else f"{truthful:.4f}"
        table.add_row(name, f"{revenue:.4f}", known, f"{ratio:.6f}", f"{of_budget:.3f}", trained)
    return table


def _setting_table(result: dict[str, Any], title: str) -> Table:
    table = Table("", "", "95 % interval", "measured on", title=title)
    low, high = result["revenue_ci"]
    table.add_row(
        "revenue",
        f"{result['revenue']:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{result['n_revenue_valuations']:,} profiles",
    )
    if result["optimal_revenue"] is not None:
        table.add_row("optimal revenue", f"{result['optimal_revenue']:.4f}", "", "exact, at no regret")
    elif result.get("baseline") is not None:
        table.add_row(
            "truthful revenue", f"{result['baseline_revenue']:.4f}", "", f"{result['baseline']}, at no regret"
        )
    low, high = result["regret_sum_over_revenue_ci"]
    table.add_row(
        "regret / revenue",
        f"{result['regret_sum_over_revenue']:.6f}",
        f"{low:.6f} to {high:.6f}",
        f"{result['n_valuations']:,} profiles, {result['attack']}",
    )
    table.add_row("… / budget", f"{result['regret_over_budget']:.3f}", "", f"budget {result['regret_budget']:g}")
    if (in_training := result.get("training_ratio")) is not None:
        table.add_row("… in training", f"{in_training:.3f}", "", "last 5 % of iterations, own search")
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
