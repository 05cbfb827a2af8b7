"""Multipliers against exact solutions, single steps by hand, Cooper, and themselves resumed."""

import math
from collections.abc import Callable
from itertools import chain, combinations
from pathlib import Path
from typing import NamedTuple

import cooper
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from gt_core.dual import (
    AscentRule,
    AugmentedLagrangian,
    ExponentialAscent,
    LogRatioAscent,
    Multiplier,
    ProjectedAscent,
    augmented_term,
    dual_first_lagrangian,
    lagrangian,
    weigh_slack,
)

Measure = Callable[[Tensor, Tensor], Tensor]
"""What a rule is told: a function of the amounts Ax and their bounds b."""

quick = settings(derandomize=True, deadline=None, max_examples=50)
RULES = [ProjectedAscent(0.3), LogRatioAscent(0.3), LogRatioAscent(0.3, minimum_ratio=0.0), ExponentialAscent(0.3)]


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# A quadratic programme: minimise x'Qx/2 - c'x subject to Ax <= b. Two constraints bind at its solution, one is slack.


class Programme(NamedTuple):
    hessian: Tensor
    linear: Tensor
    rows: Tensor
    bounds: Tensor

    def loss(self, x: Tensor) -> Tensor:
        return 0.5 * x @ self.hessian @ x - self.linear @ x


PROGRAMME = Programme(
    hessian=doubles(2.0, 0.5, 0.0, 0.5, 1.5, 0.2, 0.0, 0.2, 1.0).reshape(3, 3),
    linear=doubles(3.0, 2.0, 1.5),
    rows=doubles(1.0, 1.0, 1.0, 2.0, 0.0, 1.0, 0.0, 1.0, 0.0).reshape(3, 3),
    bounds=doubles(1.5, 1.8, 2.0),
)


def exact_solution(programme: Programme) -> tuple[np.ndarray, np.ndarray]:
    """Primal and dual solution, by trying every set of binding constraints in the Karush-Kuhn-Tucker conditions."""
    hessian, linear, rows, bounds = (part.numpy() for part in programme)
    size, count = rows.shape[1], len(bounds)
    for binding in chain.from_iterable(combinations(range(count), r) for r in range(count + 1)):
        active = rows[list(binding)]
        matrix = np.block([[hessian, active.T], [active, np.zeros((len(binding), len(binding)))]])
        solution = np.linalg.solve(matrix, np.concatenate([linear, bounds[list(binding)]]))
        x, multipliers = solution[:size], np.zeros(count)
        multipliers[list(binding)] = solution[size:]
        if (multipliers >= 0).all() and (rows @ x <= bounds + 1e-12).all():
            return x, multipliers
    raise AssertionError("the programme is infeasible")


def difference(amount: Tensor, bounds: Tensor) -> Tensor:
    return amount - bounds


def ratio(amount: Tensor, bounds: Tensor) -> Tensor:
    return amount / bounds


def test_exact_solution_has_binding_and_slack_constraints() -> None:
    x, multipliers = exact_solution(PROGRAMME)
    assert (multipliers[:2] > 0.1).all()
    assert multipliers[2] == 0
    assert PROGRAMME.rows.numpy() @ x == pytest.approx([1.5, 1.8, x[1]])


@pytest.mark.parametrize(
    ("rule", "measure"),
    [
        (ProjectedAscent(0.2), difference),
        (LogRatioAscent(0.2), ratio),
        (LogRatioAscent(0.2, minimum_ratio=0.0), ratio),
        (ExponentialAscent(0.3, log_minimum=-14.0), difference),
        (ExponentialAscent(0.3, log_minimum=-14.0, slack_weight=0.5), difference),
    ],
    ids=["projected", "log-ratio", "log-ratio-as-published", "exponential", "exponential-light-slack"],
)
def test_multiplier_reaches_primal_and_dual_solution(rule: AscentRule, measure: Measure) -> None:
    multiplier = Multiplier(1.0, rule, shape=(3,))
    x = torch.full((3,), 0.1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([x], lr=0.1)
    for _ in range(1500):
        amount = PROGRAMME.rows @ x
        optimiser.zero_grad()
        dual_first_lagrangian(
            PROGRAMME.loss(x),
            multiplier,
            violation=amount - PROGRAMME.bounds,
            measured=measure(amount, PROGRAMME.bounds),
        ).backward()
        optimiser.step()
    primal, dual = exact_solution(PROGRAMME)
    assert x.detach().numpy() == pytest.approx(primal, abs=1e-4)
    assert multiplier.value.numpy() == pytest.approx(dual, abs=1e-4)


def test_augmented_lagrangian_reaches_primal_and_dual_solution() -> None:
    augmented = AugmentedLagrangian(0.0, 1.0, 0.1, multiplier_every=10, penalty_every=200, shape=(3,))
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([x], lr=0.07)
    for _ in range(1500):
        violation = PROGRAMME.rows @ x - PROGRAMME.bounds
        optimiser.zero_grad()
        augmented.lagrangian(PROGRAMME.loss(x), violation).backward()
        optimiser.step()
        augmented.ascend(violation)
    primal, dual = exact_solution(PROGRAMME)
    assert x.detach().numpy() == pytest.approx(primal, abs=1e-4)
    assert augmented.value.numpy() == pytest.approx(dual, abs=1e-4)


# One step by hand.


@pytest.mark.parametrize(
    ("rule", "value", "measured", "expected"),
    [
        (ProjectedAscent(0.5), 1.0, 0.4, 1.2),
        (ProjectedAscent(0.5), 1.0, -0.4, 0.8),
        (ProjectedAscent(0.5), 1.0, -3.0, 0.0),
        (LogRatioAscent(0.5), 1.0, math.e, 1.5),
        (LogRatioAscent(0.5), 1.0, 1.0, 1.0),
        (LogRatioAscent(0.5), 1.0, 1 / math.e, 0.5),
        (LogRatioAscent(0.5), 1.0, math.exp(-3), 0.0),
        (ExponentialAscent(0.1), 2.0, 3.0, 2 * math.exp(0.3)),
        (ExponentialAscent(0.1), 2.0, -3.0, 2 * math.exp(-0.3)),
        (ExponentialAscent(0.1, slack_weight=0.5), 2.0, -3.0, 2 * math.exp(-0.15)),
        (ExponentialAscent(0.1, slack_weight=0.5), 2.0, 3.0, 2 * math.exp(0.3)),
        (ExponentialAscent(0.1), 2.0, 100.0, math.exp(4)),
        (ExponentialAscent(0.1), 2.0, -100.0, math.exp(-4)),
        (ExponentialAscent(0.1), 0.0, 1.0, math.exp(-4)),
    ],
)
def test_multiplier_takes_the_step_by_hand(rule: AscentRule, value: float, measured: float, expected: float) -> None:
    multiplier = Multiplier(value, rule)
    multiplier.ascend(measured)
    assert multiplier.value.item() == pytest.approx(expected, abs=1e-15)


def test_log_ratio_ascent_as_published_drops_to_zero_at_an_exact_zero() -> None:
    multiplier = Multiplier(1e4, LogRatioAscent(0.5, minimum_ratio=0.0))
    multiplier.ascend(0.0)
    assert multiplier.value.item() == 0.0
    multiplier.ascend(math.e)  # and recovers from there
    assert multiplier.value.item() == pytest.approx(0.5)


def test_log_ratio_ascent_by_default_bounds_the_fall_at_an_exact_zero() -> None:
    multiplier = Multiplier(10.0, LogRatioAscent(0.5))
    multiplier.ascend(0.0)
    assert multiplier.value.item() == pytest.approx(10 - 0.5 * math.log(100))


def test_weigh_slack_leaves_violations_alone() -> None:
    assert weigh_slack(doubles(-2.0, 0.0, 2.0), 0.1).tolist() == [-0.2, 0.0, 2.0]


def test_dual_first_step_by_hand() -> None:
    """f = x^2/2, g = 1 - x at x = 0.5; the measured violation is another number than g on purpose."""
    multiplier = Multiplier(1.0, ProjectedAscent(0.5))
    x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    value = dual_first_lagrangian(0.5 * x**2, multiplier, violation=1 - x, measured=2.0)
    assert multiplier.value.item() == 2.0  # 1 + 0.5 * 2
    assert value.item() == 0.125 + 2.0 * 0.5
    (gradient,) = torch.autograd.grad(value, x)
    assert gradient.item() == 0.5 - 2.0  # x - lambda, lambda already moved


def test_augmented_lagrangian_takes_the_steps_by_hand() -> None:
    augmented = AugmentedLagrangian(5.0, 1.0, 0.5, multiplier_every=2, penalty_every=3)
    path = []
    for _ in range(6):
        augmented.ascend(0.1)
        path.append((augmented.value.item(), augmented.penalty))
    # lambda moves at calls 2, 4 and 6, rho at 3 and 6; at call 6 lambda still moves by the old rho = 1.5.
    expected = [(5.0, 1.0), (5.1, 1.0), (5.1, 1.5), (5.25, 1.5), (5.25, 1.5), (5.4, 2.0)]
    assert np.array(path) == pytest.approx(np.array(expected))


def test_augmented_lagrangian_is_the_quadratic_penalty_when_violated() -> None:
    augmented = AugmentedLagrangian(doubles(5.0, 2.0), 3.0, 0.0, shape=(2,))
    regret = doubles(0.2, 0.0).requires_grad_()
    value = augmented.lagrangian(doubles(-1.0).sum(), regret)
    assert value.item() == pytest.approx(-1.0 + 5.0 * 0.2 + 3.0 / 2 * 0.2**2)
    (gradient,) = torch.autograd.grad(value, regret)
    assert gradient.tolist() == pytest.approx([5.0 + 3.0 * 0.2, 2.0])


def test_augmented_term_is_flat_under_great_slack() -> None:
    violation = doubles(-1.0, -0.5, -0.25).requires_grad_()
    term = augmented_term(violation, doubles(1.0, 1.0, 1.0), penalty=2.0)
    assert term.tolist() == pytest.approx([-0.25, -0.25, -0.25 + 2.0 / 2 * 0.25**2])
    (gradient,) = torch.autograd.grad(term.sum(), violation)
    assert gradient.tolist() == pytest.approx([0.0, 0.0, 0.5])


# Cooper, an independent implementation, over many steps.


class CooperProgramme(cooper.ConstrainedMinimizationProblem):
    def __init__(self, multiplier: cooper.multipliers.DenseMultiplier, strict: Measure) -> None:
        super().__init__()
        self.strict = strict
        self.constraint = cooper.Constraint(constraint_type=cooper.ConstraintType.INEQUALITY, multiplier=multiplier)

    def compute_cmp_state(self, x: Tensor) -> cooper.CMPState:
        amount = PROGRAMME.rows @ x
        state = cooper.ConstraintState(
            violation=amount - PROGRAMME.bounds,
            strict_violation=self.strict(amount.detach(), PROGRAMME.bounds),
        )
        return cooper.CMPState(loss=PROGRAMME.loss(x), observed_constraints={self.constraint: state})


@pytest.mark.parametrize(
    ("rule", "measure", "strict"),
    [
        (ProjectedAscent(0.2), difference, difference),
        (LogRatioAscent(0.2, minimum_ratio=0.0), ratio, lambda amount, bounds: ratio(amount, bounds).log()),
    ],
    ids=["projected", "log-ratio"],
)
def test_multiplier_agrees_with_cooper(
    rule: ProjectedAscent | LogRatioAscent,
    measure: Measure,
    strict: Measure,
) -> None:
    start = doubles(0.1, 0.2, 0.3)
    theirs, ours = start.clone().requires_grad_(), start.clone().requires_grad_()
    their_multiplier = cooper.multipliers.DenseMultiplier(init=doubles(1.0, 0.5, 0.1), dtype=torch.float64)
    problem = CooperProgramme(their_multiplier, strict)
    cooper_optimiser = cooper.optim.AlternatingDualPrimalOptimizer(
        cmp=problem,
        primal_optimizers=torch.optim.SGD([theirs], lr=0.05),
        dual_optimizers=torch.optim.SGD(problem.dual_parameters(), lr=rule.step_size, maximize=True),
    )
    multiplier = Multiplier(doubles(1.0, 0.5, 0.1), rule, shape=(3,))
    optimiser = torch.optim.SGD([ours], lr=0.05)
    for _ in range(300):
        cooper_optimiser.roll(compute_cmp_state_kwargs={"x": theirs})
        amount = PROGRAMME.rows @ ours
        optimiser.zero_grad()
        dual_first_lagrangian(
            PROGRAMME.loss(ours),
            multiplier,
            violation=amount - PROGRAMME.bounds,
            measured=measure(amount, PROGRAMME.bounds),
        ).backward()
        optimiser.step()
        assert ours.tolist() == pytest.approx(theirs.tolist(), rel=1e-12, abs=1e-14)
        assert multiplier.value.tolist() == pytest.approx(their_multiplier().tolist(), rel=1e-12, abs=1e-14)


# State: the same seed gives the same bits, straight or through disk.


def ascend_on_noise(subject: Multiplier | AugmentedLagrangian, noise: Tensor) -> None:
    for measured in noise:
        subject.ascend(measured)


def new_subject(name: str) -> Multiplier | AugmentedLagrangian:
    if name == "augmented":
        return AugmentedLagrangian(1.0, 0.3, 0.1, multiplier_every=3, penalty_every=7, shape=(4,))
    rules = {"projected": ProjectedAscent(0.1), "log-ratio": LogRatioAscent(0.1), "exponential": ExponentialAscent(0.1)}
    return Multiplier(1.0, rules[name], shape=(4,))


subjects = pytest.mark.parametrize("name", ["projected", "log-ratio", "exponential", "augmented"])


def noise_for(name: str) -> Tensor:
    noise = torch.randn(200, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return noise.exp() if name == "log-ratio" else noise


@subjects
def test_ascent_is_deterministic(name: str) -> None:
    first, second = new_subject(name), new_subject(name)
    ascend_on_noise(first, noise_for(name))
    ascend_on_noise(second, noise_for(name))
    assert torch.equal(first.value, second.value)


@subjects
def test_ascent_resumed_from_disk_equals_ascent_uninterrupted(name: str, tmp_path: Path) -> None:
    noise = noise_for(name)
    straight, first, second = new_subject(name), new_subject(name), new_subject(name)
    ascend_on_noise(straight, noise)
    ascend_on_noise(first, noise[:100])
    save_file(first.state_dict(), tmp_path / "state.safetensors")
    second.load_state_dict(load_file(tmp_path / "state.safetensors"))
    ascend_on_noise(second, noise[100:])
    ours, theirs = second.state_dict(), straight.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_state_dict_is_a_snapshot() -> None:
    multiplier = Multiplier(1.0, ProjectedAscent(1.0))
    multiplier.state_dict()["value"].fill_(7.0)
    state = multiplier.state_dict()
    multiplier.ascend(1.0)
    assert state["value"].item() == 1.0
    multiplier.load_state_dict(state)
    state["value"].fill_(7.0)
    assert multiplier.value.item() == 1.0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"holds \[\] where \['value'\] belong"),
        ({"value": torch.ones(2, dtype=torch.float64), "rate": torch.ones(1)}, "was it saved by another class"),
        ({"value": torch.ones(3, dtype=torch.float64)}, r"saved multipliers are \(3,\)"),
        ({"value": torch.ones(2, dtype=torch.float32)}, "float32"),
        ({"value": doubles(1.0, -1.0)}, r"saved value is \[1.0, -1.0\]"),
        ({"value": doubles(1.0, math.nan)}, "must be finite"),
    ],
)
def test_multiplier_refuses_a_state_that_is_not_its_own(state: dict[str, Tensor], message: str) -> None:
    multiplier = Multiplier(0.5, ProjectedAscent(1.0), shape=(2,))
    with pytest.raises(ValueError, match=message):
        multiplier.load_state_dict(state)
    assert multiplier.value.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"penalty": torch.tensor(-1.0)}, "saved penalty must be positive"),
        ({"penalty": torch.ones(2)}, "saved penalty has shape"),
        ({"calls": torch.tensor(-1)}, "counts -1 calls"),
        ({"value": doubles(1.0, 1.0)}, "saved multipliers are"),
        ({"more": doubles(1.0)}, "was it saved by another class"),
    ],
)
def test_augmented_lagrangian_refuses_a_state_that_is_not_its_own(change: dict[str, Tensor], message: str) -> None:
    augmented = AugmentedLagrangian(5.0, 1.0, 1.0)
    before = augmented.state_dict()
    with pytest.raises(ValueError, match=message):
        augmented.load_state_dict({**before, **change})
    assert augmented.state_dict() == before


# Indexed by constraint.


def test_indexed_ascent_leaves_unobserved_multipliers_untouched() -> None:
    multiplier = Multiplier(doubles(0.1, 0.2, 0.3), ExponentialAscent(0.1), shape=(3,))
    multiplier.ascend(doubles(1.0, -1.0), index=torch.tensor([2, 0]))
    assert multiplier.value[1].item() == 0.2
    assert multiplier.value[2].item() == pytest.approx(0.3 * math.exp(0.1))
    assert multiplier.value[0].item() == pytest.approx(0.1 * math.exp(-0.1))


def test_indexed_ascent_by_mask_equals_ascent_by_position() -> None:
    by_mask, by_position = (Multiplier(1.0, ProjectedAscent(0.1), shape=(4, 2)) for _ in range(2))
    measured = torch.arange(4, dtype=torch.float64).reshape(2, 2)
    by_mask.ascend(measured, index=torch.tensor([False, True, False, True]))
    by_position.ascend(measured, index=torch.tensor([1, 3]))
    assert torch.equal(by_mask.value, by_position.value)


def test_indexed_ascent_accepts_a_mask_over_every_axis() -> None:
    multiplier = Multiplier(1.0, ProjectedAscent(1.0), shape=(2, 2))
    multiplier.ascend(doubles(1.0, 2.0), index=torch.tensor([[True, False], [False, True]]))
    assert multiplier.value.tolist() == [[2.0, 1.0], [1.0, 3.0]]


@pytest.mark.parametrize("index", [torch.tensor([], dtype=torch.int64), torch.tensor([False, False])])
def test_indexed_ascent_without_observation_moves_nothing(index: Tensor) -> None:
    multiplier = Multiplier(1.0, ExponentialAscent(0.1), shape=(2,))
    multiplier.ascend(doubles(), index=index)
    assert multiplier.value.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (torch.tensor([1, 1]), "names a constraint twice: average"),
        (torch.tensor([0, 2]), "leaves the range 0 to 1"),
        (torch.tensor([0, -1]), "leaves the range"),
        (torch.tensor([0.0, 1.0]), "pass int64 positions"),
        (torch.tensor([[0], [1]]), "pass int64 positions"),
        (torch.tensor([True, True, False]), "does not cover leading axes"),
        (torch.tensor(True), "does not cover leading axes"),
        (torch.tensor([1]), r"measured has shape \(2,\), expected \(1,\)"),
    ],
)
def test_indexed_ascent_refuses_an_index_that_does_not_fit(index: Tensor, message: str) -> None:
    multiplier = Multiplier(1.0, ProjectedAscent(1.0), shape=(2,))
    with pytest.raises(ValueError, match=message):
        multiplier.ascend(doubles(1.0, 1.0), index=index)
    assert multiplier.value.tolist() == [1.0, 1.0]


def test_single_multiplier_refuses_an_index() -> None:
    with pytest.raises(ValueError, match="a single multiplier takes no index"):
        Multiplier(1.0, ProjectedAscent(1.0)).ascend(doubles(1.0), index=torch.tensor([0]))


# Values, dtypes and gradients.


def test_multiplier_value_once_read_never_changes() -> None:
    initial = doubles(1.0, 2.0)
    multiplier = Multiplier(initial, ProjectedAscent(1.0), shape=(2,))
    before = multiplier.value
    multiplier.ascend(doubles(1.0, 1.0))
    multiplier.ascend(doubles(1.0), index=torch.tensor([0]))
    assert initial.tolist() == before.tolist() == [1.0, 2.0]
    assert multiplier.value.tolist() == [3.0, 3.0]


def test_lagrangian_survives_an_ascent_before_its_backward_pass() -> None:
    multiplier = Multiplier(2.0, ProjectedAscent(1.0))
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    value = lagrangian(x**2, x - 3, multiplier.value)
    multiplier.ascend(5.0)
    value.backward()
    assert x.grad is not None
    assert x.grad.item() == 2.0 + 2.0


def test_multiplier_ignores_gradients_of_what_was_measured() -> None:
    multiplier = Multiplier(1.0, ProjectedAscent(1.0))
    multiplier.ascend(torch.tensor(1.0, requires_grad=True) * 2)
    assert not multiplier.value.requires_grad
    assert multiplier.value.item() == 3.0


def test_multiplier_broadcasts_its_initial_value() -> None:
    multiplier = Multiplier(doubles(1.0, 2.0), ProjectedAscent(1.0), shape=(3, 2))
    assert multiplier.value.tolist() == [[1.0, 2.0]] * 3
    assert multiplier.value.is_contiguous()


def test_multiplier_keeps_the_dtype_it_was_moved_to() -> None:
    multiplier = Multiplier(1.0, ProjectedAscent(1.0)).to(dtype=torch.float32)
    multiplier.ascend(torch.tensor(0.5, dtype=torch.float64))
    assert multiplier.value.dtype == torch.float32
    assert multiplier.to("cpu").value.item() == 1.5


def test_lagrangian_keeps_the_dtype_of_the_violation() -> None:
    multiplier = Multiplier(1.0, ProjectedAscent(1.0), shape=(2,))
    assert lagrangian(torch.tensor(1.0), torch.tensor([1.0, 2.0]), multiplier.value).dtype == torch.float32
    augmented = AugmentedLagrangian(1.0, 1.0, 0.0, shape=(2,))
    assert augmented.lagrangian(torch.tensor(1.0), torch.tensor([1.0, 2.0])).dtype == torch.float32


def test_lagrangian_counts_repeated_positions_each_time() -> None:
    violation = doubles(1.0, 10.0, 100.0).requires_grad_()
    value = lagrangian(doubles(0.5).sum(), violation, doubles(2.0, 3.0), index=torch.tensor([0, 1, 0]))
    assert value.item() == 0.5 + 2.0 * 1 + 3.0 * 10 + 2.0 * 100
    (gradient,) = torch.autograd.grad(value, violation)
    assert gradient.tolist() == [2.0, 3.0, 2.0]


@pytest.mark.parametrize(
    ("loss", "violation", "message"),
    [
        (torch.zeros(2), torch.zeros(2), r"loss has shape \(2,\), expected a scalar"),
        (torch.zeros(()), torch.zeros(()), r"violation has shape \(\), expected \(2,\)"),
        (torch.zeros(()), torch.zeros(1), r"violation has shape \(1,\)"),
    ],
)
def test_lagrangian_refuses_shapes_that_would_broadcast(loss: Tensor, violation: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lagrangian(loss, violation, doubles(1.0, 1.0))
    with pytest.raises(ValueError, match=message):
        AugmentedLagrangian(1.0, 1.0, 0.0, shape=(2,)).lagrangian(loss, violation)


# Errors leave the state as it was.


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_ascent_refuses_what_is_not_finite(rule: AscentRule, broken: float) -> None:
    multiplier = Multiplier(1.0, rule, shape=(2,))
    with pytest.raises(ValueError, match=rf"measured is {broken} in 1 of 2 entries; .* Look for"):
        multiplier.ascend(doubles(0.5, broken))
    assert multiplier.value.tolist() == [1.0, 1.0]


def test_augmented_lagrangian_refuses_what_is_not_finite_at_every_call() -> None:
    augmented = AugmentedLagrangian(5.0, 1.0, 1.0, multiplier_every=100)
    before = augmented.state_dict()
    with pytest.raises(ValueError, match="measured is nan"):
        augmented.ascend(math.nan)
    assert augmented.state_dict() == before


def test_ascent_accepts_finite_entries_whose_sum_is_infinite() -> None:
    multiplier = Multiplier(0.0, ProjectedAscent(1.0), shape=(2,))
    multiplier.ascend(doubles(1.5e308, 1.5e308))
    assert multiplier.value.tolist() == [1.5e308, 1.5e308]


@pytest.mark.parametrize("measured", [1.0, doubles(1.0), doubles(1.0, 1.0, 1.0)])
def test_ascent_refuses_shapes_that_would_broadcast(measured: float | Tensor) -> None:
    for subject in (Multiplier(1.0, ProjectedAscent(1.0), shape=(2,)), AugmentedLagrangian(1.0, 1.0, 0.0, shape=(2,))):
        with pytest.raises(ValueError, match=r"expected \(2,\): one entry per multiplier"):
            subject.ascend(measured)
        assert subject.value.tolist() == [1.0, 1.0]


def test_log_ratio_ascent_refuses_a_negative_ratio() -> None:
    multiplier = Multiplier(1.0, LogRatioAscent(1.0))
    with pytest.raises(ValueError, match=r"ratio is -0.5.*pass amount / budget, not amount - budget"):
        multiplier.ascend(-0.5)
    assert multiplier.value.item() == 1.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ProjectedAscent(0.0), "step_size must be positive and finite, got 0.0"),
        (lambda: LogRatioAscent(-1.0), "step_size must be positive"),
        (lambda: ExponentialAscent(math.nan), "step_size must be positive"),
        (lambda: LogRatioAscent(1.0, minimum_ratio=1.0), "minimum_ratio must lie in"),
        (lambda: LogRatioAscent(1.0, minimum_ratio=-0.1), "minimum_ratio must lie in"),
        (lambda: ExponentialAscent(1.0, log_minimum=4.0), "must be finite and rise"),
        (lambda: ExponentialAscent(1.0, log_maximum=math.inf), "must be finite and rise"),
        (lambda: ExponentialAscent(1.0, slack_weight=-1.0), "slack_weight must be >= 0"),
        (lambda: Multiplier(-1.0, ProjectedAscent(1.0)), "initial is -1.0"),
        (lambda: Multiplier(math.inf, ProjectedAscent(1.0)), "initial is inf"),
        (lambda: Multiplier(doubles(1.0, 2.0), ProjectedAscent(1.0)), "pass shape="),
        (lambda: Multiplier(doubles(1.0, 2.0), ProjectedAscent(1.0), shape=(3,)), "does not broadcast"),
        (lambda: AugmentedLagrangian(-1.0, 1.0, 0.0), "initial is -1.0"),
        (lambda: AugmentedLagrangian(1.0, 0.0, 0.0), "penalty must be positive"),
        (lambda: AugmentedLagrangian(1.0, 1.0, -1.0), "penalty_increment must be >= 0"),
        (lambda: AugmentedLagrangian(1.0, 1.0, 0.0, multiplier_every=0), "must be >= 1"),
        (lambda: AugmentedLagrangian(1.0, 1.0, 0.0, penalty_every=0), "must be >= 1"),
    ],
)
def test_constructor_refuses_and_names_the_value(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


# Properties.

amounts = st.lists(st.floats(0, 1e6), min_size=1, max_size=8)


@quick
@given(initial=st.floats(0, 1e6), measured=amounts, signs=st.integers(0, 255))
@pytest.mark.parametrize("rule", RULES, ids=str)
def test_multiplier_is_never_negative(rule: AscentRule, initial: float, measured: list[float], signs: int) -> None:
    multiplier = Multiplier(initial, rule)
    for bit, amount in enumerate(measured):
        negative = not isinstance(rule, LogRatioAscent) and signs >> bit & 1
        multiplier.ascend(-amount if negative else amount)
        assert 0 <= multiplier.value.item() < math.inf


@quick
@given(initial=st.floats(0.1, 10), amount=st.floats(1e-3, 3))
def test_multiplier_rises_when_violated_and_falls_when_slack(initial: float, amount: float) -> None:
    for rule, violated, slack in [
        (ProjectedAscent(0.3), amount, -amount),
        (LogRatioAscent(0.3), math.exp(amount), math.exp(-amount)),
        (ExponentialAscent(0.3), amount, -amount),
    ]:
        rising, falling = Multiplier(initial, rule), Multiplier(initial, rule)
        rising.ascend(violated)
        falling.ascend(slack)
        assert falling.value.item() < initial < rising.value.item()


@quick
@given(observed=st.sets(st.integers(0, 5)), seed=st.integers(0, 1000))
def test_indexed_ascent_equals_dense_ascent_where_observed(observed: set[int], seed: int) -> None:
    index = torch.tensor(sorted(observed), dtype=torch.int64)
    measured = torch.randn(6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    dense, indexed = (Multiplier(1.0, ProjectedAscent(0.5), shape=(6,)) for _ in range(2))
    dense.ascend(measured)
    indexed.ascend(measured[index], index=index)
    expected = torch.ones(6, dtype=torch.float64)
    expected[index] = dense.value[index]
    assert torch.equal(indexed.value, expected)


@quick
@given(multiplier=st.floats(0, 10), violation=st.floats(-5, 5), penalty=st.floats(0.1, 10))
def test_augmented_term_has_the_next_multiplier_as_its_slope(
    multiplier: float, violation: float, penalty: float
) -> None:
    g = torch.tensor(violation, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(augmented_term(g, doubles(multiplier).sum(), penalty), g)
    augmented = AugmentedLagrangian(multiplier, penalty, 0.0, multiplier_every=1)
    augmented.ascend(violation)
    assert slope.item() == pytest.approx(augmented.value.item(), rel=1e-12, abs=1e-12)
