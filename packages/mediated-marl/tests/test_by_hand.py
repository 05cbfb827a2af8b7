"""Passes by hand against automatic differentiation, and Adam against torch's."""

import dataclasses

import numpy as np
import pytest
import torch

from mediated_marl.by_hand import (
    FlatAdam,
    NetworkArrays,
    NetworkElsewhere,
    flatten_parameters,
    log_policy_gradient,
    log_softmax,
    with_ones,
)
from mediated_marl.config import PRESETS, TrainConfig
from mediated_marl.markov_config import MarkovConfig
from mediated_marl.networks import MASKED, StackedMLP, entropy
from mediated_marl.train import build_trainer

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_network_by_hand_equals_automatic_differentiation():
    network = StackedMLP((2, 3), (4, 5, 6, 2), torch.Generator().manual_seed(0))
    flatten_parameters([network])
    inputs = torch.rand(7, 4, generator=torch.Generator().manual_seed(1))
    slope = torch.rand(6, 7, 2, generator=torch.Generator().manual_seed(2))
    output = network(inputs.expand(2, 3, 7, 4)).flatten(0, 1)
    weights = torch.autograd.grad((output * slope).sum(), list(network.weights), retain_graph=True)
    biases = torch.autograd.grad((output * slope).sum(), list(network.biases))
    arrays = NetworkArrays(network)
    layers = arrays.layers(with_ones(inputs.numpy()))
    assert layers[-1][:, 0].swapaxes(1, 2) == pytest.approx(output.detach().numpy(), abs=1e-6)
    found = arrays.gradients(layers, slope.numpy().swapaxes(1, 2)[:, None])
    for ours, theirs in zip(found, zip(weights, biases, strict=True), strict=True):
        assert ours == pytest.approx(torch.cat(theirs, 1).numpy(), abs=1e-5)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize("shape", [(5, 7), (6, 4, 5, 7)], ids=["inputs of all", "groups"])
def test_passes_elsewhere_equal_those_in_numpy(shape, device):
    network = StackedMLP((2, 3), (4, 5, 6, 2), torch.Generator().manual_seed(0))
    flatten_parameters([network])
    random = np.random.default_rng(1)
    inputs = random.random(shape, np.float32)
    inputs[..., -1, :] = 1
    here, elsewhere = NetworkArrays(network), NetworkElsewhere(network, device)
    layers, others = here.layers(inputs), elsewhere.layers(inputs)
    assert isinstance(others[-1], np.ndarray)
    assert others[-1] == pytest.approx(layers[-1], abs=1e-5)
    if len(shape) > 2:
        layers, others = ([layer[:, :1] for layer in part] for part in (layers, others))  # of some groups
    slope = random.standard_normal(layers[-1].shape, np.float32)
    for ours, theirs in zip(elsewhere.gradients(others, slope.copy()), here.gradients(layers, slope), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)


CONFIGS = {
    "exact": TrainConfig("exact", mediator="e", seeds=2, iterations=3),
    "sampled": dataclasses.replace(PRESETS["sampled"], mediator="e", seeds=2, iterations=3, games=16),
    "several steps": MarkovConfig("custom", mediator="e", multipliers="network", seeds=2, iterations=3, games=8),
}


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_training_elsewhere_is_training_here(config, device, monkeypatch):
    here = build_trainer(config)
    for module in ("sampled", "markov", "markov_by_hand"):
        monkeypatch.setattr(f"mediated_marl.{module}.network_arrays", lambda net, _: NetworkElsewhere(net, device))
    elsewhere = build_trainer(dataclasses.replace(config, device=device))
    for _ in range(3):
        assert elsewhere.iterate() == pytest.approx(here.iterate(), rel=1e-3, abs=1e-3)
    here.load_state_dict(elsewhere.state_dict())


def test_network_by_hand_needs_weights_and_biases_together():
    with pytest.raises(ValueError, match="call flatten_parameters first"):
        NetworkArrays(StackedMLP((2,), (3, 4), torch.Generator().manual_seed(0)))


def test_policy_gradient_by_hand_equals_automatic_differentiation():
    source = torch.Generator().manual_seed(0)
    logits, gains = (torch.randn(5, 4, generator=source) for _ in range(2))
    logits[:2, -1], gains[:2, -1] = MASKED, 0.0
    log_policy = logits.requires_grad_().log_softmax(-1)
    (expected,) = torch.autograd.grad((gains * log_policy).sum() + 0.3 * entropy(log_policy).sum(), logits)
    ours = log_softmax(logits.detach().numpy())
    assert ours == pytest.approx(log_policy.detach().numpy(), abs=1e-6)
    assert log_policy_gradient(ours, gains.numpy(), 0.3) == pytest.approx(expected.numpy(), abs=1e-6)
    across = log_softmax(logits.detach().numpy().T, 0)
    turned = log_policy_gradient(across, gains.numpy().T, 0.3, 0).T
    assert turned == pytest.approx(expected.numpy(), abs=1e-6)


def test_flat_adam_equals_torch_adam_and_moves_the_parameters_themselves():
    source = torch.Generator().manual_seed(0)
    starts = [torch.randn(shape, generator=source) for shape in ((3, 2), (4,))]
    theirs = [torch.nn.Parameter(start.clone()) for start in starts]
    ours = [torch.nn.Parameter(start.clone()) for start in starts]
    groups = [{"params": [theirs[0]], "lr": 0.1}, {"params": [theirs[1]], "lr": 0.01}]
    reference = torch.optim.Adam(groups, betas=(0.9, 0.99), weight_decay=1e-2)
    adam = FlatAdam(flatten_parameters(ours), (0.9, 0.99), 1e-2)
    rates = np.array([0.1] * 6 + [0.01] * 4, np.float32)
    for _ in range(20):
        gradients = [torch.randn(start.shape, generator=source) for start in starts]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        reference.step()
        adam.descend(np.concatenate([gradient.numpy().ravel() for gradient in gradients]), rates)
    for one, other in zip(ours, theirs, strict=True):
        assert one.detach().numpy() == pytest.approx(other.detach().numpy(), abs=1e-6)


def test_flat_adam_first_step_is_its_rate_against_the_sign():
    vector = np.zeros(3, np.float32)
    FlatAdam(vector, (0.9, 0.999)).descend(np.array([2.0, -3.0, 0.0], np.float32), np.full(3, 0.1, np.float32))
    assert vector == pytest.approx([-0.1, 0.1, 0], abs=1e-6)
