"""Lagrange multipliers and the rules by which they ascend.

The problem is to minimise f(x) subject to g(x) <= 0, through the Lagrangian

    L(x, lambda) = f(x) + sum_k lambda_k g_k(x),    lambda >= 0,

which x descends and lambda ascends. **Sign convention**, here and in every module that calls this one: f is a loss, a
positive g is a violation and a negative g is slack, so a multiplier rises while its constraint is violated and falls
while it is slack. A lower bound h(x) >= c enters as g = c - h.

The violation appears twice. The *differentiable* one enters L and moves x. The *measured* one moves lambda; it needs no
gradient and may be another quantity altogether: a fresh estimate, an average, or a ratio to a budget where the
differentiable one is the raw amount. The two are separate arguments throughout.

A rule is a frozen dataclass that maps (value, measured) to the next value, entry by entry, and keeps it non-negative:

| rule | next value | stands still at | source |
|---|---|---|---|
| `ProjectedAscent` | max(0, lambda + eta g) | g = 0 | Arrow, Hurwicz and Uzawa (1958) |
| `LogRatioAscent` | max(0, lambda + eta ln(amount / budget)) | amount = budget | Ivanov et al., arXiv:2202.13110 |
| `ExponentialAscent` | exp(clip(ln lambda + eta g)) | g = 0 | Ivanov et al., arXiv:2306.08419 |

`Multiplier` holds the state that a rule moves. `AugmentedLagrangian` adds a growing quadratic penalty, the original
rule of RegretNet (Duetting et al., ICML 2019, Algorithm 1).

Multipliers are float64 on the CPU until moved by `to`: they are few, they sum small steps over a whole run, and they
are logged. `lagrangian` casts them to the dtype and device of the violation. A value once handed out is never written
to again, so it may be kept, logged, or saved for a backward pass.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

__all__ = [
    "AscentRule",
    "AugmentedLagrangian",
    "ExponentialAscent",
    "LogRatioAscent",
    "Multiplier",
    "ProjectedAscent",
    "augmented_term",
    "dual_first_lagrangian",
    "lagrangian",
    "weigh_slack",
]

AscentRule = Callable[[Tensor, Tensor], Tensor]
"""(value, measured) to the next value, all of one shape; elementwise, pure, and never negative."""


@dataclass(frozen=True)
class ProjectedAscent:
    """Gradient ascent on lambda, projected onto lambda >= 0: lambda <- max(0, lambda + eta g).

    Attributes:
        step_size: eta > 0, in units of lambda per unit of g.

    Raises:
        ValueError: if the step size is not positive and finite.
    """

    step_size: float

    def __post_init__(self) -> None:
        _require_positive("step_size", self.step_size)

    def __call__(self, value: Tensor, measured: Tensor) -> Tensor:
        """Next value; `measured` is the violation g."""
        return torch.add(value, measured, alpha=self.step_size).clamp_(min=0)


@dataclass(frozen=True)
class LogRatioAscent:
    """Ascent on the logarithm of a ratio to a budget: lambda <- max(0, lambda + eta ln r), r = amount / budget.

    The logarithm makes the step blind to units: twice the budget raises lambda as far as half the budget lowers it,
    whatever the budget is (Ivanov et al., arXiv:2202.13110, with eta = 0.5 at every iteration).

    **An exact zero.** ln 0 = -inf, so in the published rule, `minimum_ratio=0`, one batch that measures exactly zero
    sets the multiplier to 0, however large it had grown. The default raises smaller ratios to 0.01 before taking the
    logarithm, so that one ascent lowers a multiplier by at most eta ln 100, 2.3 for eta = 0.5.

    Attributes:
        step_size: eta > 0, in units of lambda.
        minimum_ratio: the floor under r, in [0, 1). At 1 or above no multiplier could ever fall.

    Raises:
        ValueError: if the step size is not positive and finite, or the floor lies outside [0, 1).
    """

    step_size: float
    minimum_ratio: float = 1e-2

    def __post_init__(self) -> None:
        _require_positive("step_size", self.step_size)
        if not 0 <= self.minimum_ratio < 1:
            raise ValueError(f"minimum_ratio must lie in [0, 1), got {self.minimum_ratio}: 0 is the published rule")

    def __call__(self, value: Tensor, measured: Tensor) -> Tensor:
        """Next value; `measured` is the ratio r >= 0.

        Raises:
            ValueError: if a ratio is negative.
        """
        if bool((measured < 0).any()):
            raise ValueError(
                f"a measured ratio is {measured.min().item()}, but its logarithm needs a ratio >= 0: "
                "pass amount / budget, not amount - budget"
            )
        log_ratio = measured.clamp(min=self.minimum_ratio).log_()
        return torch.add(value, log_ratio, alpha=self.step_size).clamp_(min=0)


@dataclass(frozen=True)
class ExponentialAscent:
    """Ascent in log space: ln lambda <- clip(ln lambda + eta g), so that lambda > 0 needs no projection.

    The step is multiplicative: a multiplier far too small or far too large recovers in few steps, but it never reaches
    zero, and a slack constraint keeps the weight exp(log_minimum). The first ascent brings a value from outside the
    clip, zero included, to its nearest end.

    Published runs (Ivanov et al., arXiv:2306.08419) start at lambda = 1, take eta from 1e-3 to 1e-2 and clip to
    [-4, 4], so lambda stays in [0.018, 54.6]. Their code weighs slack differently from violation, by 0.99, 2 or 0.1,
    sample by sample before it averages; for that order apply `weigh_slack` to the samples and leave the weight here
    at 1.

    Attributes:
        step_size: eta > 0, per unit of g.
        log_minimum: the lower end of the clip on ln lambda.
        log_maximum: the upper end of the clip on ln lambda.
        slack_weight: the factor on a negative g; 0 lets a multiplier rise only.

    Raises:
        ValueError: if the step size is not positive and finite, the clip is empty or infinite, or the weight negative.
    """

    step_size: float
    log_minimum: float = -4.0
    log_maximum: float = 4.0
    slack_weight: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("step_size", self.step_size)
        if not 0 <= self.slack_weight < math.inf:
            raise ValueError(f"slack_weight must be >= 0 and finite, got {self.slack_weight}")
        if not -math.inf < self.log_minimum < self.log_maximum < math.inf:
            raise ValueError(f"the clip [{self.log_minimum}, {self.log_maximum}] must be finite and rise")

    def __call__(self, value: Tensor, measured: Tensor) -> Tensor:
        """Next value; `measured` is the violation g."""
        if self.slack_weight != 1.0:
            measured = weigh_slack(measured, self.slack_weight)
        log_value = value.log().add_(measured, alpha=self.step_size)
        return log_value.clamp_(self.log_minimum, self.log_maximum).exp_()


class Multiplier:
    """Lagrange multipliers, one per constraint, and the rule by which they ascend.

    Attributes:
        rule: the ascent rule. Replace it to change the step size on the way; it is configuration, not state.

    Args:
        initial: the first value, >= 0: a number, or a tensor that broadcasts to `shape`.
        rule: one of this module's rules, or a function like them.
        shape: one entry per constraint; () is a single multiplier.

    Raises:
        ValueError: if `initial` is negative or not finite, or does not broadcast to `shape`.
    """

    def __init__(self, initial: float | Tensor, rule: AscentRule, shape: Sequence[int] = ()) -> None:
        self.rule = rule
        self._value = _starting_value(initial, shape)

    def __repr__(self) -> str:
        return f"Multiplier(value={self._value.tolist()}, rule={self.rule})"

    @property
    def value(self) -> Tensor:
        """The multipliers, >= 0, without gradient, of the shape given. Read only; `ascend` replaces the tensor."""
        return self._value

    def ascend(self, measured: float | Tensor, index: Tensor | None = None) -> None:
        """Move the multipliers by what was measured of their constraints.

        Args:
            measured: what the rule expects, of the shape of `value`, or of `value[index]`. Gradients are ignored.
            index: which constraints were observed; the others keep their values bit for bit. Either int64 positions
                along the first axis, shape [observed], each at most once, or a bool mask over the leading axes. An
                empty index moves nothing.

        Raises:
            ValueError: if an entry measured is NaN or infinite, a shape does not fit, or a position is out of range or
                repeated (average what was measured of one constraint first). The multipliers are then unchanged.
        """
        measured = _measurement(measured, self._value)
        if index is None:
            _require_shape("measured", measured, self._value)
            self._value = self.rule(self._value, measured)
            return
        index = _checked_index(index, self._value)
        observed = self._value[index]
        _require_shape("measured", measured, observed)
        moved = self._value.clone()
        moved[index] = self.rule(observed, measured)
        self._value = moved

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the multipliers to a device or dtype, in place as `torch.nn.Module.to` does, and return self.

        On an accelerator every ascent waits for it, to check what was measured.
        """
        self._value = self._value.to(device=device, dtype=dtype)
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that resuming needs, as tensors: `value`."""
        return {"value": self._value.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: if keys, shape or dtype differ from this object's, or a value is negative or not finite.
        """
        _require_keys(state, self.state_dict())
        saved = state["value"]
        if saved.shape != self._value.shape or saved.dtype != self._value.dtype:
            raise ValueError(
                f"the saved multipliers are {tuple(saved.shape)} {saved.dtype}, these {tuple(self._value.shape)} "
                f"{self._value.dtype}: build the object as the saved one was built"
            )
        _require_multipliers("the saved value", saved)
        self._value = saved.detach().to(self._value.device, copy=True)


class AugmentedLagrangian:
    """Multipliers under a quadratic penalty that grows: the method of multipliers.

    The primal variables descend f + sum_k psi(g_k, lambda_k; rho), psi as in `augmented_term`. Counting calls of
    `ascend` from 1, lambda <- max(0, lambda + rho g) at every `multiplier_every`-th call and rho <- rho + increment at
    every `penalty_every`-th; where both fall on one call, lambda moves first, by the old penalty.

    With g >= 0 this is RegretNet's rule (Duetting et al., ICML 2019, Algorithm 1). Its defaults are the two periods
    below, an initial multiplier of 5 and a penalty of 1; its primal step comes first, and `ascend` then takes the
    violation of the same batch.

    Attributes:
        multiplier: the multipliers lambda.
        penalty: the penalty rho that the next Lagrangian uses.

    Args:
        initial: the first multiplier, >= 0: a number, or a tensor that broadcasts to `shape`.
        penalty: the first penalty rho > 0, in units of lambda per unit of g.
        penalty_increment: what rho grows by, >= 0.
        multiplier_every: calls of `ascend` per move of lambda.
        penalty_every: calls of `ascend` per growth of rho.
        shape: one entry per constraint; () is a single multiplier.

    Raises:
        ValueError: if `initial` is negative or not finite or does not broadcast to `shape`, the penalty is not
            positive, its increment is negative, or a period is less than 1.
    """

    def __init__(
        self,
        initial: float | Tensor,
        penalty: float,
        penalty_increment: float,
        multiplier_every: int = 100,
        penalty_every: int = 10_000,
        shape: Sequence[int] = (),
    ) -> None:
        if not 0 <= penalty_increment < math.inf:
            raise ValueError(f"penalty_increment must be >= 0 and finite, got {penalty_increment}")
        if multiplier_every < 1 or penalty_every < 1:
            raise ValueError(f"multiplier_every={multiplier_every} and penalty_every={penalty_every} must be >= 1")
        _require_positive("penalty", penalty)
        self.multiplier = Multiplier(initial, ProjectedAscent(penalty), shape)
        self.penalty = penalty
        self.penalty_increment = penalty_increment
        self.multiplier_every = multiplier_every
        self.penalty_every = penalty_every
        self._calls = 0

    @property
    def value(self) -> Tensor:
        """The multipliers, as `Multiplier.value`."""
        return self.multiplier.value

    def lagrangian(self, loss: Tensor, violation: Tensor) -> Tensor:
        """The augmented Lagrangian f + sum_k psi(g_k, lambda_k; rho), a scalar for the primal step.

        Args:
            loss: f, shape [].
            violation: g with its gradient, of the shape of `value`.

        Raises:
            ValueError: if a shape does not fit.
        """
        _require_scalar("loss", loss)
        _require_shape("violation", violation, self.value)
        return loss + augmented_term(violation, self.value.to(violation), self.penalty).sum()

    def ascend(self, measured: float | Tensor) -> None:
        """Count one call and move lambda and rho if they are due.

        Args:
            measured: the violation g, of the shape of `value`; checked at every call, used at every
                `multiplier_every`-th. Gradients are ignored.

        Raises:
            ValueError: if an entry is NaN or infinite or the shape does not fit. Nothing has then changed.
        """
        measured = _measurement(measured, self.value)
        _require_shape("measured", measured, self.value)
        self._calls += 1
        if self._calls % self.multiplier_every == 0:
            self.multiplier.rule = ProjectedAscent(self.penalty)
            self.multiplier.ascend(measured)
        if self._calls % self.penalty_every == 0:
            self.penalty += self.penalty_increment

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that resuming needs, as tensors: `value`, `penalty` (float64, []) and `calls` (int64, [])."""
        penalty, calls = torch.tensor(self.penalty, dtype=torch.float64), torch.tensor(self._calls)
        return {**self.multiplier.state_dict(), "penalty": penalty, "calls": calls}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a saved state.

        Raises:
            ValueError: if keys, shapes or dtypes differ from this object's, a multiplier is negative or not finite, the
                penalty is not positive, or the count of calls negative.
        """
        _require_keys(state, self.state_dict())
        _require_scalar("the saved penalty", state["penalty"])
        _require_scalar("the saved count of calls", state["calls"])
        penalty, calls = float(state["penalty"]), int(state["calls"])
        _require_positive("the saved penalty", penalty)
        if calls < 0:
            raise ValueError(f"the saved state counts {calls} calls, which cannot be negative: the file is damaged")
        self.multiplier.load_state_dict({"value": state["value"]})
        self.penalty, self._calls = penalty, calls


def lagrangian(loss: Tensor, violation: Tensor, multiplier_value: Tensor, index: Tensor | None = None) -> Tensor:
    """L = f + sum_k lambda_k g_k, for the primal step: the multipliers are constants in it.

    Adding a constant to the violation changes L but none of its gradients, so a raw amount may stand for amount minus
    budget.

    Args:
        loss: f, shape []. Several problems solved side by side enter as the sum of their losses.
        violation: g with its gradient, of the shape of `multiplier_value`, or of `multiplier_value[index]`.
        multiplier_value: lambda >= 0; cast to the dtype and device of the violation.
        index: which multiplier each violation meets: int64 positions along the first axis or a bool mask over the
            leading axes. A position may repeat, and then every violation there counts.

    Returns:
        A scalar with gradients through loss and violation.

    Raises:
        ValueError: if a shape does not fit.
    """
    value = multiplier_value.detach().to(violation)
    if index is not None:
        value = value[index]
    _require_scalar("loss", loss)
    _require_shape("violation", violation, value)
    return loss + (value * violation).sum()


def dual_first_lagrangian(
    loss: Tensor,
    multiplier: Multiplier,
    *,
    violation: Tensor,
    measured: float | Tensor,
    index: Tensor | None = None,
) -> Tensor:
    """Ascend, then return the Lagrangian under the new multipliers: the alternating, dual-first order.

    The primal step thereby answers the batch's own violation, at no second evaluation of the constraint (Ivanov et
    al., arXiv:2202.13110, update in this order). Both steps see the x of before.

    Args:
        loss: f, shape [].
        multiplier: moved by `measured`.
        violation: the differentiable violation, which enters L.
        measured: the measured violation, or ratio, which the multiplier's rule expects.
        index: the observed constraints, as in `Multiplier.ascend`, for both violations.

    Raises:
        ValueError: as `Multiplier.ascend` and `lagrangian` do.
    """
    multiplier.ascend(measured, index)
    return lagrangian(loss, violation, multiplier.value, index)


def augmented_term(violation: Tensor, multiplier_value: Tensor, penalty: float) -> Tensor:
    """What an inequality g <= 0 adds to the augmented Lagrangian, entry by entry.

        psi = (max(0, lambda + rho g)^2 - lambda^2) / (2 rho).

    It equals lambda g + rho/2 g^2 wherever g >= -lambda/rho, in particular at every g >= 0: for a violation that cannot
    be negative, this is RegretNet's loss. At greater slack it is the constant -lambda^2 / (2 rho), so that a slack
    constraint is not pushed further (Rockafellar 1973; Bertsekas 1982, section 3.1). Its slope in g is
    max(0, lambda + rho g), the next multiplier.

    Args:
        violation: g with its gradient, any shape.
        multiplier_value: lambda >= 0, of the same shape; a constant.
        penalty: rho > 0.
    """
    multiplier_value = multiplier_value.detach()
    return ((multiplier_value + penalty * violation).relu().square() - multiplier_value.square()) / (2 * penalty)


def weigh_slack(violation: Tensor, weight: float) -> Tensor:
    """The violation, any shape, with its negative entries multiplied by `weight` >= 0."""
    return torch.where(violation < 0, violation * weight, violation)


def _starting_value(initial: float | Tensor, shape: Sequence[int]) -> Tensor:
    value = torch.as_tensor(initial, dtype=torch.float64, device="cpu").detach()
    _require_multipliers("initial", value)
    try:
        value = value.broadcast_to(tuple(shape))
    except RuntimeError as error:
        raise ValueError(
            f"initial has shape {tuple(value.shape)} and does not broadcast to {tuple(shape)}: "
            "pass shape= with one entry per constraint"
        ) from error
    return value.clone(memory_format=torch.contiguous_format)  # the caller's tensor stays the caller's


def _measurement(measured: float | Tensor, value: Tensor) -> Tensor:
    """`measured` as a finite constant of the multipliers' dtype and device."""
    if isinstance(measured, Tensor):
        measured = measured.detach()
    tensor = torch.as_tensor(measured, dtype=value.dtype, device=value.device)
    # A finite sum proves every entry finite, in a third of the time of isfinite().all(); this runs at every iteration.
    if math.isfinite(tensor.sum().item()):
        return tensor
    broken = tensor[~tensor.isfinite()]
    if broken.numel():
        raise ValueError(
            f"measured is {broken[0].item()} in {broken.numel()} of {tensor.numel()} entries; the multipliers are "
            "unchanged. Look for a diverged loss or a division by zero, or leave constraints without data out by index="
        )
    return tensor


def _checked_index(index: Tensor, value: Tensor) -> Tensor:
    """`index` on the multipliers' device, if it names entries of them at most once each."""
    if index.dtype == torch.bool:
        if not 0 < index.ndim <= value.ndim or index.shape != value.shape[: index.ndim]:
            raise ValueError(
                f"a mask of shape {tuple(index.shape)} does not cover leading axes of multipliers {tuple(value.shape)}"
            )
        return index.to(value.device)
    if index.dtype != torch.int64 or index.ndim != 1 or value.ndim == 0:
        raise ValueError(
            f"index has dtype {index.dtype} and shape {tuple(index.shape)} for multipliers {tuple(value.shape)}: "
            "pass int64 positions of shape [observed], or a bool mask; a single multiplier takes no index"
        )
    positions, count = index.tolist(), value.shape[0]
    if any(not 0 <= position < count for position in positions):
        raise ValueError(f"index {positions} leaves the range 0 to {count - 1} of the multipliers")
    if len(set(positions)) < len(positions):
        raise ValueError(f"index {positions} names a constraint twice: average what was measured of it first")
    return index.to(value.device)


def _require_multipliers(name: str, value: Tensor) -> None:
    if not bool((value.isfinite() & (value >= 0)).all()):
        raise ValueError(f"{name} is {value.tolist()}: multipliers of g <= 0 must be finite and >= 0")


def _require_keys(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    if set(state) != set(own):
        raise ValueError(f"the state holds {sorted(state)} where {sorted(own)} belong: was it saved by another class?")


def _require_shape(name: str, tensor: Tensor, value: Tensor) -> None:
    if tensor.shape != value.shape:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)}, expected {tuple(value.shape)}: one entry per multiplier"
        )


def _require_scalar(name: str, tensor: Tensor) -> None:
    if tensor.ndim != 0:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected a scalar: average or sum it first")


def _require_positive(name: str, number: float) -> None:
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {number}")
