import dataclasses
import re
from pathlib import Path

import pytest
import torch
from gt_core.checkpoint import save_checkpoint
from gt_core.config import to_dict
from gt_core.errors import CheckpointError, InputError, RunError
from gt_core.files import write_json

from regretformer.compare import compare, comparison_table, equal_evaluation
from regretformer.config import PRESETS
from regretformer.frontier import plot_frontier
from regretformer.mechanisms import draw_named, import_official, open_learnt, open_mechanisms
from regretformer.networks.build import build
from regretformer.networks.network import AuctionNetwork


def learnt(folder: Path, setting: str, net: str = "regretnet", **changes: object) -> str:
    """A directory as a finished run leaves it, of an untrained network."""
    config = dataclasses.replace(PRESETS["smoke"], setting=setting, net=net, **changes)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", to_dict(config))
    n, m = config.auction.bidders, config.auction.items
    save_checkpoint(folder / "model", build(config.net, n, m, seed=0, demand=config.auction.demand).state_dict())
    return str(folder)


def published(file: Path, bidders: int, items: int) -> AuctionNetwork:
    """A RegretNet, and its state dict under the official names in a file."""
    network = build("regretnet", bidders, items, seed=1)
    names = {"allocation_layers": "alloc_layers", "payment_layers": "pay_layers"}
    entries = {re.sub(r"^\w+", lambda m: names[m[0]], name): entry for name, entry in network.state_dict().items()}
    torch.save(entries, file)
    return network


def test_open_mechanisms_gives_all_the_setting_of_the_directories(tmp_path: Path) -> None:
    run = learnt(tmp_path / "run", "2x3")
    mechanisms, valuations = open_mechanisms([run, "vcg", "bundle-myerson"])
    assert valuations.setting.name == "2x3"
    assert [one.name for one in mechanisms] == ["run", "vcg", "bundle-myerson"]
    assert [one.config is None for one in mechanisms] == [False, True, True]
    bids = valuations.profiles(5, torch.Generator().manual_seed(0))
    assert all(one.mechanism(bids).allocation.shape == (5, 2, 3) for one in mechanisms)


def test_known_auctions_take_the_valuations_of_the_directories(tmp_path: Path) -> None:
    """Myerson's price for an exponential value is 1, where the virtual value v - 1 is 0."""
    run = learnt(tmp_path / "run", "1x1", valuations="exponential(1)", high=(20.0,))
    (_, myerson), valuations = open_mechanisms([run, "itemwise-myerson"])
    assert valuations.high.item() == 20
    bids = torch.tensor([[[0.98]], [[1.02]]])
    assert myerson.mechanism(bids).payments.flatten().tolist() == pytest.approx([0, 1], abs=1e-3)
    with pytest.raises(InputError, match="nobody knows the optimal auction for 1x1"):
        open_mechanisms([run, "optimum"])
    with pytest.raises(InputError, match=r"learnt on others: .*run for exponential.1. and .*other for uniform"):
        open_mechanisms([run, learnt(tmp_path / "other", "1x1")])


def test_a_mixture_takes_the_setting_that_is_named(tmp_path: Path) -> None:
    run = learnt(tmp_path / "run", "1x2..2x3", "equivariantnet")
    mechanisms, valuations = open_mechanisms([run, "vcg"], "2x2")
    assert (valuations.setting.name, len(mechanisms)) == ("2x2", 2)
    with pytest.raises(InputError, match="a mixture has no setting of its own: give --setting"):
        open_mechanisms([run])
    assert open_mechanisms([run], "4x5")[1].setting.name == "4x5"  # it takes any size, but not any bidders
    with pytest.raises(InputError, match=r"learnt for additive demand \(1x2..2x3\), but bidders of 2x2-unit have unit"):
        open_mechanisms([run], "2x2-unit")


def test_mechanisms_for_unit_demand_stand_beside_the_known_optimum(tmp_path: Path) -> None:
    """Pavlov's optimum earns 2 / (3 sqrt 3) from one bidder who wants one of two items; VCG is for additive bidders."""
    runs = [learnt(tmp_path / "one", "1x2-unit"), learnt(tmp_path / "mixed", "1x1-unit..2x2-unit", "equivariantnet")]
    mechanisms, valuations = open_mechanisms([*runs, "optimum"], "1x2-unit")
    evaluation = dataclasses.replace(
        equal_evaluation(valuations.setting, valuations=30), revenue_valuations=40_000, grid_resolution=41,
        protocol_valuations=2,
    )  # fmt: skip
    rows = {row["mechanism"]: row for row in compare(mechanisms, valuations, evaluation)}
    assert rows["optimum"]["revenue"] == pytest.approx(2 / 27**0.5, abs=0.008)
    assert rows["optimum"]["regret_max"] <= 1e-6
    bids = valuations.profiles(50, torch.Generator().manual_seed(0))
    for one in mechanisms:
        assert (one.mechanism(bids).allocation.sum(-1) <= 1 + 1e-6).all()
    with pytest.raises(InputError, match="vcg needs additive bidders"):
        open_mechanisms([runs[0], "vcg"])


def test_directories_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [learnt(tmp_path / part / "seed0", "1x2") for part in ("a", "b")]
    assert [one.name for one in open_mechanisms(runs)[0]] == runs
    assert open_mechanisms(runs[:1])[0][0].name == "seed0"


@pytest.mark.parametrize(
    ("names", "setting", "message"),
    [
        ((), "", "no mechanism is given"),
        (("vcg",), "", "give --setting"),
        (("vcg", "optimum", "vcg"), "1x2", "vcg is given twice"),
        (("vgc",), "1x2", "vgc holds no run"),
        (("optimum",), "2x2", "nobody knows the optimal auction for 2x2"),
        (("straight-jacket",), "2x2", "for one bidder with uniform values in \\[0, 1\\], not for 2x2"),
        (("straight-jacket",), "416x47", "for one bidder with uniform values in \\[0, 1\\], not for 416x47"),
        (("straight-jacket",), "1x7", "for 1 to 6 items, got 7"),
        (("vcg",), "2y2", "got '2y2'"),
        (("run", "other"), "", "run is for 1x2 and other is for 2x2"),
        (("run", "vcg"), "2x2", "run is for 1x2 and --setting is for 2x2"),
    ],
)
def test_open_mechanisms_refuses_and_names(
    names: tuple[str, ...], setting: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    learnt(tmp_path / "run", "1x2")
    learnt(tmp_path / "other", "2x2")
    with pytest.raises(InputError, match=message):
        open_mechanisms(names, setting)


def test_a_model_of_another_network_is_refused(tmp_path: Path) -> None:
    run = learnt(tmp_path / "run", "1x2")
    config = dataclasses.replace(PRESETS["smoke"], setting="1x2", net="regretformer")
    write_json(Path(run) / "config.json", to_dict(config))
    with pytest.raises(CheckpointError, match="model is no regretformer for 1x2"):
        open_mechanisms([run])


def test_an_import_answers_as_what_was_imported(tmp_path: Path) -> None:
    network = published(tmp_path / "net.pt", 2, 3)
    import_official(tmp_path / "net.pt", tmp_path / "imported", "2x3", regret_budget=0.05)
    (one, _), valuations = open_mechanisms([str(tmp_path / "imported"), "vcg"])
    assert one.config is not None
    assert (one.config.preset, one.config.net, one.config.regret_budget) == ("imported", "regretnet", 0.05)
    bids = valuations.profiles(7, torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(one.mechanism(bids).payments, network(bids).payments)
    with pytest.raises(RunError, match="imported exists already; choose another --out"):
        import_official(tmp_path / "net.pt", tmp_path / "imported", "2x3")


@pytest.mark.parametrize(
    ("setting", "budget", "message"),
    [
        ("1x2", 1e-3, "this RegretNet is for 2x3, not for 1x2"),
        ("0x2", 1e-3, "got '0x2'"),
        ("2x3", 0.0, "regret_budget must be positive and finite, got 0.0"),
    ],
)
def test_an_import_that_cannot_work_leaves_nothing(setting: str, budget: float, message: str, tmp_path: Path) -> None:
    published(tmp_path / "net.pt", 2, 3)
    with pytest.raises(InputError, match=message):
        import_official(tmp_path / "net.pt", tmp_path / "imported", setting, regret_budget=budget)
    assert not (tmp_path / "imported").exists()


def test_open_learnt_refuses_a_known_auction() -> None:
    with pytest.raises(InputError, match="vcg is a known auction and no network"):
        open_learnt("vcg")


def test_compare_finds_known_auctions_without_regret_and_ranks_by_score(tmp_path: Path) -> None:
    run = learnt(tmp_path / "run", "1x2")
    names = [run, "vcg", "itemwise-myerson", "bundle-myerson", "straight-jacket", "optimum"]
    mechanisms, valuations = open_mechanisms(names)
    evaluation = dataclasses.replace(
        equal_evaluation(valuations.setting, valuations=30), revenue_valuations=40_000, grid_resolution=41
    )
    rows = compare(mechanisms, valuations, evaluation)
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    by_name = {row["mechanism"]: row for row in rows}
    for name, exact in {"vcg": 0, "itemwise-myerson": 0.5, "bundle-myerson": 0.5443, "optimum": 0.5492}.items():
        assert by_name[name]["revenue"] == pytest.approx(exact, abs=0.008)
        assert by_name[name]["regret_max"] <= 1e-6
        assert by_name[name]["score"] == pytest.approx(by_name[name]["revenue"], abs=2e-3)
        assert by_name[name]["net"] is None
    assert by_name["run"]["regret_sum"] > 1e-4
    assert by_name["run"]["net"] == "regretnet"
    assert comparison_table(rows).count("\n") == 8
    alike = dataclasses.replace(evaluation, attack="protocol", valuations=5)
    assert comparison_table(compare(mechanisms[:2], valuations, alike)).count("\n") == 4
    for chosen in (rows, [row for row in rows if row["net"] is None]):
        plot_frontier(tmp_path / "frontier.png", chosen)
        assert (tmp_path / "frontier.png").stat().st_size > 10_000


def test_equal_evaluation_is_as_thorough_as_the_setting_allows() -> None:
    valuations = open_mechanisms(["vcg"], "2x2")[1]
    assert equal_evaluation(valuations.setting).attack == "strong"
    assert equal_evaluation(open_mechanisms(["vcg"], "1x2")[1].setting).attack == "grid"


def test_draw_named_draws_known_auctions_and_says_what_it_cannot(tmp_path: Path) -> None:
    files = draw_named("optimum", "1x2", tmp_path)
    assert [file.name for file in files] == ["allocation.png", "regret.png"]
    with pytest.raises(InputError, match="nothing to draw of vcg: maps need two items"):
        draw_named("vcg", "2x1", tmp_path)
