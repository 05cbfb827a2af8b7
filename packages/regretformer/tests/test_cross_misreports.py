import dataclasses
import itertools

import pytest
import torch
from torch import Tensor

from regretformer.auction import Mechanism, Outcome
from regretformer.cross_misreports import cross_misreports, cross_regret, cross_table, optimal_misreports
from regretformer.evaluate import EvaluationConfig
from regretformer.mechanisms import NamedMechanism, open_mechanisms
from regretformer.networks.build import build
from regretformer.setting import parse_setting
from regretformer.valuations import UniformValuations


def pay(share: float) -> Mechanism:
    """Gives an item with the probability that is bid and takes a share c of the square: 1 / (2 c) times v is best."""

    def mechanism(bids: Tensor) -> Outcome:
        return Outcome(bids / bids.shape[1], share * bids.square().sum(-1) / bids.shape[1])

    return mechanism


SHARES = {"half": 0.5, "three quarters": 0.75, "all": 1.0}
PAID = [NamedMechanism(name, pay(share)) for name, share in SHARES.items()]


@pytest.mark.parametrize(("setting", "attack"), [("1x2", "grid"), ("1x1", "strong"), ("2x1", "strong")])
def test_cross_misreports_is_exact(setting: str, attack: str) -> None:
    """At share t, reporting a v instead of v gains (a - t a^2 - (1 - t)) v^2, and v^2 is 1/3 on average.

    The best a is 1 / (2 s) at share s; at one half it is the truth.
    """
    parsed = parse_setting(setting)
    config = EvaluationConfig(attack, 1200, 1200, starts=3, steps=50)
    table = cross_misreports(PAID, UniformValuations(parsed), config)
    for (row, s), (column, t) in itertools.product(enumerate(SHARES.values()), repeat=2):
        a = 1 / (2 * s)
        exact = parsed.items * max(0.0, a - t * a * a - (1 - t)) / 3
        assert table["regret_sum"][row][column] == pytest.approx(exact, rel=0.1, abs=1e-6)
        low, high = table["regret_sum_ci"][row][column]
        assert low - 4e-3 <= exact <= high + 4e-3
        share = table["regret_sum"][row][column] / table["revenue"][column]
        assert table["regret_sum_over_revenue"][row][column] == pytest.approx(share)
    assert table["revenue"][2] == pytest.approx(parsed.items / 3, rel=0.08)


@pytest.mark.parametrize("attack", ["strong", "protocol"])
def test_cross_misreports_do_not_depend_on_the_order(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows and columns of any permutation are those of the table, to the last bit."""
    if attack == "protocol":  # a thousand steps that change nothing here
        monkeypatch.setattr("regretformer.attacks.ascend", lambda *args, steps, **rest: _few(*args, **rest))
    named = [NamedMechanism(net, build(net, 2, 2, seed=3)) for net in ("regretnet", "equivariantnet")]  # type: ignore[arg-type]
    named.append(open_mechanisms(["vcg"], "2x2")[0][0])
    config = EvaluationConfig(attack, 16, 16, starts=4, steps=6)  # type: ignore[arg-type]
    valuations = UniformValuations(parse_setting("2x2"))
    table = cross_misreports(named, valuations, config)
    assert table["regret_sum"][0][0] > 0
    for order in itertools.permutations(range(3)):
        permuted = cross_misreports([named[index] for index in order], valuations, config)
        expected = [[table["regret_sum"][row][column] for column in order] for row in order]
        assert permuted["regret_sum"] == expected


def _few(*args: object, **rest: object) -> object:
    from regretformer.misreports import ascend

    return ascend(*args, steps=5, **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        ("1x2", ["vcg", "itemwise-myerson", "bundle-myerson", "straight-jacket", "optimum"]),
        ("416x47", ["vcg", "itemwise-myerson", "bundle-myerson", "optimum"]),
        ("2x2", ["vcg", "itemwise-myerson", "bundle-myerson"]),
    ],
)
def test_known_auctions_have_no_regret_on_any_misreports(setting: str, names: list[str]) -> None:
    """Neither on their own nor on those that gain at an auction where lies pay; and nothing found at them is a lie."""
    known, valuations = open_mechanisms(names, setting)
    bounds = EvaluationConfig("grid" if setting != "2x2" else "strong", 40, 40, grid_resolution=41, starts=3, steps=8)
    table = cross_misreports([*known, NamedMechanism("liars", pay(1.0))], valuations, bounds)
    scale = max(valuations.setting.high)
    for row in table["regret_sum"]:
        assert row[:-1] == pytest.approx([0.0] * len(known), abs=1e-6 * scale)
    for row in table["regret_sum"][:-1]:
        assert row[-1] == 0
    assert table["regret_sum"][-1][-1] > 0


def test_optimal_misreports_are_those_of_the_formula() -> None:
    valuations = UniformValuations(parse_setting("1x2"))
    profiles = valuations.profiles(50, torch.Generator().manual_seed(0))
    config = EvaluationConfig("grid", 50, 50)
    found = optimal_misreports(pay(1.0), valuations, profiles, config)
    assert torch.allclose(found, profiles / 2, atol=0.5 / 200 + 1e-6)
    assert torch.equal(optimal_misreports(pay(0.5), valuations, profiles, config), profiles)
    gain = cross_regret(pay(1.0), profiles, profiles / 2)
    assert torch.allclose(gain, profiles.square().sum(-1) / 4, atol=1e-6)


def test_cross_table_shows_shares_of_revenue() -> None:
    config = dataclasses.replace(EvaluationConfig("grid", 100, 100), grid_resolution=21)
    table = cross_misreports(PAID[2:], UniformValuations(parse_setting("1x1")), config)
    header, _, row = cross_table(table).splitlines()
    assert header == "| misreports against | regret of all |"
    assert row.startswith(f"| all | {table['regret_sum_over_revenue'][0][0]:.6f} ± ")
