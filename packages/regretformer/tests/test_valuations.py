"""Where profiles come from: their law, their generator, their box, and what is refused."""

import dataclasses
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
import torch
from gt_core.errors import InputError
from numpy.typing import NDArray
from pyarrow import parquet
from scipy import stats
from torch import Tensor
from torch.distributions import (
    Beta,
    Categorical,
    Distribution,
    Exponential,
    Gamma,
    LogNormal,
    MixtureSameFamily,
    Normal,
    Pareto,
    Poisson,
    StudentT,
    Uniform,
    Weibull,
)

from regretformer.config import TrainConfig
from regretformer.marginals import Marginal, convolution, from_cdf, from_pdf, from_torch, mixture, uniform
from regretformer.recorded import RecordedValuations, covering, read_profiles, split_record
from regretformer.setting import Setting, parse_setting
from regretformer.sources import load_valuations, make_valuations, parse_marginal
from regretformer.valuations import FunctionValuations, IndependentValuations, UniformValuations, Valuations

TWO_HUMPS = MixtureSameFamily(
    Categorical(torch.tensor([0.25, 0.75])), Normal(torch.tensor([1.0, 4.0]), torch.tensor([0.5, 1.0]))
)
DISTRIBUTIONS = [
    (Uniform(1.0, 3.0), {}, stats.uniform(1, 2)),
    (Exponential(2.0), {"high": 3.0}, stats.truncexpon(6, scale=0.5)),
    (Normal(0.0, 1.0), {"low": -1.0, "high": 2.0}, stats.truncnorm(-1, 2)),
    (Beta(0.5, 2.0), {}, stats.beta(0.5, 2)),
    (Gamma(2.0, 1.0), {"high": 60.0}, stats.gamma(2)),
    (LogNormal(0.0, 0.5), {"high": 60.0}, stats.lognorm(0.5)),
    (Weibull(1.0, 1.5), {"high": 40.0}, stats.weibull_min(1.5)),
    (StudentT(40.0), {"low": -40.0, "high": 40.0}, stats.t(40)),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw_correlated(count: int, source: torch.Generator) -> Tensor:
    """Both bidders value everything alike."""
    return torch.rand((count, 1, 1), generator=source).expand(count, 2, 3)


def draw_half(count: int, source: torch.Generator) -> Tensor:
    return 0.5 * torch.rand((count, 2, 3), generator=source)


def every_kind() -> list[Valuations]:
    value = from_torch(Exponential(1.0), high=5.0)
    record = torch.rand(50, 2, 3, generator=generator())
    return [
        UniformValuations(parse_setting("2x3")),
        UniformValuations(parse_setting("416x47")),
        IndependentValuations([[value] * 3, [uniform(1, 2), value, Beta(2.0, 2.0)]]),
        FunctionValuations(draw_correlated, parse_setting("2x3")),
        RecordedValuations(parse_setting("2x3"), record),
    ]


@pytest.mark.parametrize("valuations", every_kind(), ids=lambda valuations: type(valuations).__name__)
def test_valuations_keep_their_contract(valuations: Valuations) -> None:
    size = (valuations.setting.bidders, valuations.setting.items)
    first, second, third = (valuations.profiles(1000, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert valuations.low.shape == valuations.high.shape == size
    assert first.shape == (1000, *size)
    assert first.dtype == valuations.low.dtype == torch.float32
    assert (first >= valuations.low).all()
    assert (first <= valuations.high).all()
    for bidder in range(size[0]):
        own = valuations.types(bidder, (4, 500), generator(1))
        assert own.shape == (4, 500, size[1])
        assert torch.equal(own, valuations.types(bidder, (4, 500), generator(1)))
        width = valuations.high[bidder] - valuations.low[bidder]
        gap = own.flatten(0, 1).mean(0) - first[:, bidder].mean(0)
        assert (gap.abs() < 0.08 * width).all()
        corners = valuations.scale(torch.tensor([[0.0] * size[1], [1.0] * size[1]]), bidder)
        assert torch.equal(corners, torch.stack([valuations.low[bidder], valuations.high[bidder]]))


def test_valuations_leave_global_randomness_alone() -> None:
    before = torch.random.get_rng_state()
    for valuations in every_kind():
        valuations.profiles(10, generator())
        valuations.types(0, (10,), generator())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_uniform_valuations_of_the_asymmetric_setting() -> None:
    valuations = UniformValuations(parse_setting("416x47"))
    assert (valuations.setting.bidders, valuations.setting.items) == (1, 2)
    assert (valuations.low.tolist(), valuations.high.tolist()) == ([[4.0, 4.0]], [[16.0, 7.0]])
    assert torch.allclose(valuations.profiles(20_000, generator()).mean(0), torch.tensor([[10.0, 5.5]]), atol=0.1)


@pytest.mark.parametrize(("distribution", "bounds", "reference"), DISTRIBUTIONS)
def test_marginal_follows_the_torch_distribution(
    distribution: Distribution, bounds: dict[str, float], reference: stats.rv_continuous
) -> None:
    """Against scipy's distribution, itself untruncated where next to nothing lies outside the bounds."""
    marginal = from_torch(distribution, **bounds)
    values = torch.linspace(marginal.low, marginal.high, 200, dtype=torch.float64)[1:-1]
    assert marginal.cdf(values).numpy() == pytest.approx(reference.cdf(values.numpy()), abs=2e-6)
    assert marginal.pdf(values).numpy() == pytest.approx(reference.pdf(values.numpy()), rel=2e-6, abs=1e-12)
    numbers = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    assert marginal.cdf(marginal.draw(numbers)).numpy() == pytest.approx(numbers.numpy(), abs=1e-7)
    beyond = torch.tensor([marginal.low - 1, marginal.high + 1], dtype=torch.float64)
    assert (marginal.cdf(beyond).tolist(), marginal.pdf(beyond).tolist()) == ([0, 1], [0, 0])


@pytest.mark.parametrize(
    "marginal",
    [
        mixture([0.75, 0.25], [uniform(0, 3), uniform(3, 8)]),
        mixture([0.5, 0.0, 0.5], [uniform(0, 1), uniform(0, 9), from_torch(Exponential(1.0), high=6.0)]),
        from_torch(TWO_HUMPS, low=0.0, high=8.0),
        from_cdf(lambda v: v.square(), lambda v: 2 * v, 0, 1),
        from_pdf(lambda v: 3 * (v - 2).square(), 1, 3),
        convolution([uniform(0, 1), uniform(0, 2)]),
    ],
)
def test_marginal_draws_follow_its_cdf_and_density(marginal: Marginal) -> None:
    numbers = torch.rand(20_000, generator=generator(), dtype=torch.float64)
    drawn = marginal.draw(numbers)
    assert stats.kstest(drawn.numpy(), lambda v: marginal.cdf(torch.from_numpy(v)).numpy()).pvalue > 1e-3
    edges = torch.linspace(marginal.low, marginal.high, 20_001, dtype=torch.float64)
    middles = (edges[1:] + edges[:-1]) / 2
    masses = marginal.pdf(middles) * edges.diff()
    assert masses.cumsum(0).numpy() == pytest.approx(marginal.cdf(edges[1:]).numpy(), abs=3e-4)


def test_convolution_is_irwin_hall() -> None:
    """The sum of m uniform values: F(s) = sum_k (-1)^k C(m, k) max(s - k, 0)^m / m!."""
    total = convolution([uniform(0, 1)] * 4)
    for s in (0.3, 1.0, 1.7, 2.0, 3.6):
        terms = [(-1) ** k * math.comb(4, k) * max(s - k, 0) ** 4 / 24 for k in range(5)]
        assert total.cdf(torch.tensor(s, dtype=torch.float64)).item() == pytest.approx(sum(terms), abs=1e-7)


def test_independent_valuations_place_each_distribution() -> None:
    entries = [[uniform(0, 1), uniform(2, 3)], [uniform(4, 8), Exponential(1.0)]]
    entries[1][1] = from_torch(Exponential(1.0), high=30.0)
    valuations = IndependentValuations(entries)
    assert valuations.setting == Setting("2x2", 2, 2, (0.0, 0.0), (8.0, 30.0))
    assert valuations.low.tolist() == [[0, 2], [4, 0]]
    assert valuations.high.tolist() == [[1, 3], [8, 30]]
    profiles = valuations.profiles(40_000, generator())
    assert torch.allclose(profiles.mean(0), torch.tensor([[0.5, 2.5], [6.0, 1.0]]), atol=0.03)
    assert torch.corrcoef(profiles.flatten(1).T).fill_diagonal_(0).abs().max() < 0.02


def test_uniform_equals_independent_uniform_in_law() -> None:
    uniforms = UniformValuations(parse_setting("1x1")).profiles(20_000, generator(1))
    others = IndependentValuations([[Uniform(0.0, 1.0)]]).profiles(20_000, generator(2))
    assert stats.ks_2samp(uniforms.flatten().numpy(), others.flatten().numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("distribution", "bounds", "message"),
    [
        (Exponential(1.0), {}, "reaches from 0.0 to inf: state finite bounds"),
        (Normal(0.0, 1.0), {"high": 1.0}, "reaches from -inf to 1.0: state finite bounds"),
        (Poisson(1.0), {}, "is discrete; valuations need a density"),
        (Exponential(torch.ones(2)), {"high": 1.0}, r"has shape \(2,\)"),
        (Uniform(0.0, 1.0), {"low": 2.0}, r"finite low < high, got \[2.0, 1.0\]"),
        (Normal(0.0, 1.0), {"low": 50.0, "high": 60.0}, "no mass between 50.0 and 60.0"),
        (Pareto(1.0, 1.0), {}, "reaches from 1.0 to inf"),
    ],
)
def test_marginal_refuses_and_names(distribution: Distribution, bounds: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_torch(distribution, **bounds)


def test_marginal_refuses_what_is_no_distribution() -> None:
    with pytest.raises(InputError, match="rise from 0 at 0 to 1 at 2; it goes from 0 to 2"):
        from_cdf(lambda v: v, torch.ones_like, 0, 2)
    with pytest.raises(InputError, match="rise from 0"):
        from_cdf(lambda v: v + torch.sin(2 * torch.pi * v), torch.ones_like, 0, 1)
    with pytest.raises(InputError, match="pdf must be at least 0"):
        from_cdf(lambda v: v, lambda v: 1 - 2 * v, 0, 1)
    with pytest.raises(InputError, match="finite positive integral, got nan"):
        from_pdf(lambda v: v * torch.nan, 0, 1)
    with pytest.raises(InputError, match="sum to 1"):
        mixture([0.5, 0.6], [uniform(0, 1), uniform(1, 2)])
    with pytest.raises(InputError, match="one weight per part, got 1 weights and 2 parts"):
        mixture([1.0], [uniform(0, 1), uniform(1, 2)])
    with pytest.raises(InputError, match=r"one distribution per item; the bidders have \[1, 2\]"):
        IndependentValuations([[uniform(0, 1)], [uniform(0, 1)] * 2])


def test_setting_refuses_a_bad_box() -> None:
    setting = parse_setting("1x2")
    assert setting.within([2], [3, 4]) == dataclasses.replace(setting, low=(2.0, 2.0), high=(3.0, 4.0))
    with pytest.raises(InputError, match=r"item 2 must lie between finite low < high, got 1.0 and 1.0"):
        setting.within([0, 1], [1])
    with pytest.raises(InputError, match=r"finite low < high, got 0.0 and nan"):
        setting.within([0], [math.nan])
    with pytest.raises(InputError, match="one number per item, 2"):
        setting.within([0, 0, 0], [1])


@pytest.mark.parametrize(
    ("profiles", "message"),
    [
        (lambda count: torch.rand(count, 3, 2), r"must give profiles of shape \(2, 2, 3\), got \(2, 3, 2\)"),
        (lambda count: torch.full((count, 2, 3), 2.0), r"profile 0 has value 2 for bidder 0, item 0, outside \[0, 1\]"),
        (lambda count: torch.full((count, 2, 3), torch.nan), "profile 0 has value nan for bidder 0, item 0; remove it"),
        (lambda count: None, "must return a tensor of profiles"),
    ],
)
def test_function_valuations_refuse_and_name(profiles: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FunctionValuations(lambda count, _: profiles(count), parse_setting("2x3"))  # type: ignore[operator]


def test_function_valuations_keep_dependence_and_say_so() -> None:
    valuations = FunctionValuations(draw_correlated, parse_setting("2x3"))
    assert not valuations.independent
    profiles = valuations.profiles(100, generator())
    assert torch.equal(profiles[:, 0], profiles[:, 1])
    assert FunctionValuations(draw_correlated, parse_setting("2x3"), independent=True).independent


def test_recorded_valuations_draw_rows() -> None:
    record = torch.rand(7, 2, 3, generator=generator(), dtype=torch.float64)
    valuations = RecordedValuations(parse_setting("2x3"), record)
    rows = {tuple(row.flatten().tolist()) for row in valuations.profiles(500, generator())}
    assert rows == {tuple(row.flatten().tolist()) for row in record.float()}
    assert not valuations.independent


@pytest.mark.parametrize("header", ["", "a,b,c,d,e,f\n"])
def test_record_reads_the_same_from_every_kind_of_file(header: str, tmp_path: Path) -> None:
    record = np.random.default_rng(0).random((5, 2, 3))
    np.save(tmp_path / "cube.npy", record)
    np.save(tmp_path / "rows.npy", record.reshape(5, 6))
    lines = "\n".join(",".join(repr(float(value)) for value in row.flatten()) for row in record)
    (tmp_path / "rows.csv").write_text(header + lines + "\n\n")
    for name in ("cube.npy", "rows.npy", "rows.csv"):
        assert np.array_equal(read_profiles(tmp_path / name, 2, 3).numpy(), record)


def test_record_in_parquet_without_pyarrow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"pip install 'regretformer\[parquet\]'"):
        read_profiles(tmp_path / "rows.parquet", 1, 2)


def test_record_reads_parquet(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"first": [1.0, 3.0], "second": [2, 4]}), tmp_path / "rows.parquet")
    assert read_profiles(tmp_path / "rows.parquet", 1, 2).tolist() == [[[1, 2]], [[3, 4]]]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("rows.csv", "1,2\n3,oops\n", "cannot be read as a table of numbers: could not convert string"),
        ("rows.csv", "1,2\n3\n", "rows of 1 and of 2 values"),
        ("rows.csv", "1,2\n,4\n", "cannot be read as a table of numbers: could not convert string"),
        ("rows.csv", "1,2\n3,nan\n", "profile 1 has value nan for bidder 0, item 1; remove it"),
        ("rows.csv", "1,2,3\n", r"shape \(1, 3\); 1 bidders and 2 items need rows of 2 values"),
        ("rows.csv", "a,b\n", "cannot be read|holds"),
        ("rows.csv", "\n", "is empty"),
        ("rows.npy", "no array", "cannot be read as a table of numbers"),
        ("rows.json", "[]", r"must be a file in .npy, .csv, .parquet; got"),
    ],
)
def test_record_refuses_and_names(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_profiles(tmp_path / name, 1, 2)


def test_record_outside_the_declared_support_is_refused() -> None:
    record = torch.tensor([[[0.5, 0.5]], [[0.5, 1.5]]])
    with pytest.raises(InputError, match=r"profile 1 has value 1.5 for bidder 0, item 1, outside \[0, 1\]"):
        RecordedValuations(parse_setting("1x2"), record)
    box = covering(parse_setting("1x2").within([0], [9]), torch.tensor([[[0.25, 0.5]], [[0.5, 1.5]]]))
    assert (box.low, box.high) == ((0.25, 0.5), (0.5, 1.5))


@pytest.mark.parametrize(("count", "share", "held_out"), [(10, 0.2, [4, 9]), (4, 0.5, [1, 3]), (5, 0.34, [2])])
def test_record_splits_evenly(count: int, share: float, held_out: list[int]) -> None:
    record = torch.arange(float(count)).reshape(count, 1, 1)
    train, held = split_record(record, share)
    assert held.flatten().tolist() == held_out
    assert sorted([*train.flatten().tolist(), *held.flatten().tolist()]) == list(range(count))


def test_record_with_an_empty_part_is_refused() -> None:
    with pytest.raises(InputError, match=r"held-out part is empty: 3 profiles, of which a share 0.2"):
        split_record(torch.rand(3, 1, 1), 0.2)
    with pytest.raises(InputError, match="strictly between 0 and 1, got 1"):
        split_record(torch.rand(3, 1, 1), 1.0)


def test_sources_make_valuations_from_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("my_market")
    module.draw = draw_half  # type: ignore[attr-defined]
    module.ready = IndependentValuations([[uniform(0, 2)] * 3] * 2)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_market", module)
    monkeypatch.setattr(sys, "path", list(sys.path))
    setting = parse_setting("2x3")
    np.save(tmp_path / "rows.npy", np.linspace(0, 1, 60).reshape(10, 2, 3))
    train, held = (make_valuations(str(tmp_path / "rows.npy"), setting, part=part) for part in ("train", "held-out"))
    assert isinstance(train, RecordedValuations)
    assert isinstance(held, RecordedValuations)
    assert (len(train.record), len(held.record)) == (8, 2)
    assert isinstance(make_valuations("uniform", setting), UniformValuations)
    drawn = make_valuations("my_market:draw", setting, independent=True)
    assert isinstance(drawn, FunctionValuations)
    assert drawn.independent
    ready = make_valuations("my_market:ready", setting)
    assert isinstance(ready, IndependentValuations)
    assert ready.marginals is module.ready.marginals
    with pytest.raises(InputError, match="my_market:ready has 2 bidders and 3 items, but the setting is 1x2"):
        make_valuations("my_market:ready", parse_setting("1x2"))


@pytest.mark.parametrize(
    ("text", "low", "high", "reference"),
    [
        ("exponential(2)", 0.0, 3.0, stats.truncexpon(6, scale=0.5).cdf),
        ("uniform(1, 3)", -math.inf, math.inf, stats.uniform(1, 2).cdf),
        ("beta(2,0.5)", 0.0, 1.0, stats.beta(2, 0.5).cdf),
        ("normal(1,2e-1)", 0.0, 2.0, stats.norm(1, 0.2).cdf),
        (".75*uniform(0,3) + .25*uniform(3,8)", 0.0, 8.0, lambda v: np.where(v < 3, v / 4, 0.75 + (v - 3) / 20)),
    ],
)
def test_marginal_is_read_from_text(
    text: str, low: float, high: float, reference: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> None:
    marginal = parse_marginal(text, low, high)
    values = np.linspace(marginal.low, marginal.high, 50)
    assert marginal.cdf(torch.from_numpy(values)).numpy() == pytest.approx(reference(values), abs=2e-6)


def test_named_distribution_takes_its_support_from_itself_or_the_declaration() -> None:
    itself = make_valuations("beta(2,2)", parse_setting("2x3").within([0], [9]), cover=True)
    assert (itself.low.unique().item(), itself.high.unique().item()) == (0, 1)
    assert itself.bidders_alike
    assert itself.items_alike
    declared = make_valuations("exponential(1)", parse_setting("1x2").within([0], [2, 4]))
    assert declared.high.tolist() == [[2, 4]]
    assert not declared.items_alike
    with pytest.raises(InputError, match=r"reaches from 0\.0 to inf: state finite bounds with low=, high="):
        make_valuations("exponential(1)", parse_setting("1x2"), cover=True)


def test_valuations_say_who_is_alike() -> None:
    """Uniform values on one box are; those of 416x47 differ by item; of the others nothing is known."""
    assert [valuations.bidders_alike for valuations in every_kind()] == [True, True, False, False, False]
    assert [valuations.items_alike for valuations in every_kind()] == [True, False, False, False, False]


def test_valuations_move_to_a_device_and_leave_the_original() -> None:
    for valuations in every_kind():
        moved = valuations.to(torch.device("meta"))
        assert type(moved) is type(valuations)
        assert {moved.device.type, moved.low.device.type, moved.high.device.type} == {"meta"}
        assert {valuations.device.type, valuations.low.device.type} == {"cpu"}
        if isinstance(moved, RecordedValuations):
            assert moved.record.device.type == "meta"


def test_load_valuations_gives_evaluation_the_held_out_part_in_the_same_box(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    np.savetxt(file, np.arange(40.0).reshape(20, 2), delimiter=",")
    config = TrainConfig(setting="1x2", valuations=str(file), held_out=0.25)
    train, held = load_valuations(config), load_valuations(config, part="held-out")
    assert isinstance(train, RecordedValuations)
    assert isinstance(held, RecordedValuations)
    assert (len(train.record), len(held.record)) == (15, 5)
    assert torch.equal(train.low, held.low)
    assert train.high.tolist() == held.high.tolist() == [[38, 39]]
    declared = dataclasses.replace(config, low=(0.0,), high=(50.0,))
    assert load_valuations(declared).high.tolist() == [[50, 50]]
    with pytest.raises(InputError, match=r"profile 5 has value 12 for bidder 0, item 0, outside \[0, 11\]"):
        load_valuations(dataclasses.replace(config, high=(11.0,)))
    with pytest.raises(InputError, match="2 bidders and 2 items need rows of 4 values"):
        load_valuations(config, parse_setting("2x2"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("normal", "or package.module:name; got 'normal'"),
        (
            "cauchy(1,1)",
            r"'cauchy\(1,1\)' is no distribution; write NAME\(NUMBERS\) with a name of uniform, exponential",
        ),
        (".5*uniform(0,1)-.5*uniform(0,2)", "is no distribution"),
        ("exponential(-1)", r"the numbers in 'exponential\(-1\)' are refused: Expected"),
        ("beta(2)", r"the numbers in 'beta\(2\)' are refused"),
        (".5*uniform(0,1)+.6*uniform(0,2)", "weights of a mixture must be at least 0 and sum to 1"),
        ("no_such_module:draw", "no_such_module:draw cannot be imported: No module named 'no_such_module'"),
        ("math:no_such", "math:no_such cannot be imported: math has no 'no_such'"),
        ("math:pi", "math:pi is of type float: it must be a function or Valuations"),
        ("missing.npy", "missing.npy cannot be read"),
    ],
)
def test_sources_refuse_and_name(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(InputError, match=message):
        make_valuations(name, parse_setting("1x2"))
