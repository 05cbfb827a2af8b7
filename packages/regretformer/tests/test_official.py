"""Import of official checkpoints: the published ones where they are at hand, and made-up ones of every setting.

The made-up ones have the official names and random weights; what they must give is computed by formulas written out
here, not by the networks of this package.
"""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from gt_core.errors import CheckpointError
from torch import Tensor

from regretformer.networks.equivariantnet import EquivariantNet
from regretformer.networks.regretformer import RegretFormer
from regretformer.networks.regretnet import RegretNet
from regretformer.official import convert_official, load_official

State = dict[str, Tensor]

SETTINGS = ((1, 2), (2, 2), (2, 3), (2, 5), (3, 10))
PUBLISHED = (
    ("RegretNet", "1x2"),
    ("RegretNet", "2x2"),
    ("EquivariantNet", "1x2"),
    ("EquivariantNet", "2x2"),
    ("RegretFormer", "1x2"),
    ("RegretFormer", "2x2"),
)
PARENT = Path(__file__).parents[3].parent
DATA = Path(os.environ.get("REGRETFORMER_OFFICIAL_DATA", PARENT / "shared" / "data" / "official-regretformer"))


@pytest.mark.skipif(
    not (DATA / "outputs.npz").is_file(),
    reason="the published checkpoints are not at hand; REGRETFORMER_OFFICIAL_DATA names their folder",
)
@torch.no_grad()
@pytest.mark.parametrize(("net", "setting"), PUBLISHED)
def test_a_published_checkpoint_answers_as_it_did(net: str, setting: str) -> None:
    n, m = map(int, setting.split("x"))
    network = load_official(DATA / f"{net}_{setting}_seed0.pt", (n, m))
    assert type(network).__name__ == net
    with np.load(DATA / "outputs.npz") as outputs:
        bids = torch.from_numpy(outputs[f"{setting}/x"])
        expected = {
            name: torch.from_numpy(outputs[f"{net}/{setting}/seed0/{name}"])
            for name in ("alloc", "pay", "alloc64", "pay64", "frac64")
        }
    single, double = network(bids), network.double()(bids.double())
    assert torch.allclose(single.allocation, expected["alloc"], rtol=0, atol=1e-4)
    assert torch.allclose(single.payments, expected["pay"], rtol=0, atol=1e-4)
    assert torch.allclose(double.allocation, expected["alloc64"], rtol=0, atol=1e-10)
    assert torch.allclose(double.payments, expected["pay64"], rtol=0, atol=1e-10)
    assert torch.allclose(network.decide(bids.double())[1], expected["frac64"], rtol=0, atol=1e-10)


# Made-up checkpoints. Sizes by setting are those of the paper's configurations.

REGRETFORMER = {(1, 2): (32, 16, 2, 1), (2, 2): (64, 32, 2, 1), (2, 3): (64, 32, 2, 1)}  # h, d, heads, blocks
REGRETFORMER |= {(2, 5): (128, 32, 4, 2), (3, 10): (128, 32, 4, 2)}
EQUIVARIANTNET = {(1, 2): 3, (2, 2): 3, (2, 3): 5, (2, 5): 6, (3, 10): 6}  # exchangeable layers
REGRETNET = {(1, 2): 3, (2, 2): 3, (2, 3): 3, (2, 5): 3, (3, 10): 6}  # linear layers


class Weights(State):
    """A state dict that grows by random entries."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def draw(self, name: str, *shape: int) -> None:
        scale = 1 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.3
        self[name] = scale * torch.randn(shape, dtype=torch.float64, generator=self.generator)

    def exchangeable(self, name: str, inputs: int, outputs: int) -> None:
        for part in ("channel", "row", "col", "mat"):
            self.draw(f"{name}.{part}_layer.weight", outputs, inputs)
        self.draw(f"{name}.channel_layer.bias", outputs)


def made_up_regretnet(n: int, m: int) -> State:
    state, layers = Weights(), REGRETNET[n, m]
    for part, outputs in (("alloc_layers", (n + 1) * m), ("pay_layers", n)):
        widths = [n * m, *[100] * (layers - 1), outputs]
        for k in range(layers):
            state.draw(f"{part}.{k}.weight", widths[k + 1], widths[k])
            state.draw(f"{part}.{k}.bias", widths[k + 1])
    return state


def made_up_equivariantnet(n: int, m: int) -> State:
    state = Weights()
    state.exchangeable("input_layer", 1, 32)
    for k in range(EQUIVARIANTNET[n, m] - 2):
        state.exchangeable(f"body_layers.{k}", 32, 32)
    for part in ("alloc_layer", "pay_layer"):
        state.exchangeable(f"head_layer.{part}", 32, 1)
    return state


def made_up_regretformer(n: int, m: int) -> State:
    state, (h, d, heads, blocks) = Weights(), REGRETFORMER[n, m]
    state.exchangeable("input_layer", 1, h)
    for k in range(blocks):
        for axis in ("item", "agent"):
            name = f"body_layers.{k}.attention_{axis}"
            for part in ("w_qs", "w_ks", "w_vs"):
                state.draw(f"{name}.{part}.weight", heads * d, h)
            state.draw(f"{name}.fc.weight", h, heads * d)
            state.draw(f"{name}.layer_norm.weight", h)
            state.draw(f"{name}.layer_norm.bias", h)
        state.draw(f"body_layers.{k}.fc.weight", h, 2 * h)
        state.draw(f"body_layers.{k}.fc.bias", h)
    for part in ("encoder_item", "encoder_agent"):
        state.draw(f"head_layer.{part}.weight", h, h)
    state.draw("head_layer.fc_payment.0.weight", 1, h)
    state.draw("head_layer.fc_payment.0.bias", 1)
    state.draw("head_layer.layer_norm.weight", h)
    state.draw("head_layer.layer_norm.bias", h)
    return state


MADE_UP = {
    "regretnet": made_up_regretnet,
    "equivariantnet": made_up_equivariantnet,
    "regretformer": made_up_regretformer,
}


# What they must answer, in plain formulas.


def exchange(state: State, name: str, x: Tensor) -> Tensor:
    """y = W_c x + b + W_r mean over bidders + W_k mean over items + W_m mean over both, for x [B, n, m, c]."""
    weight = {part: state[f"{name}.{part}_layer.weight"].T for part in ("channel", "row", "col", "mat")}
    y = x @ weight["channel"] + state[f"{name}.channel_layer.bias"] + x.mean(1, keepdim=True) @ weight["row"]
    return y + x.mean(2, keepdim=True) @ weight["col"] + x.mean((1, 2), keepdim=True) @ weight["mat"]


def normed(state: State, name: str, x: Tensor) -> Tensor:
    deviation = x - x.mean(-1, keepdim=True)
    z = deviation / (deviation.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    return z * state[f"{name}.weight"] + state[f"{name}.bias"]


def attend(state: State, name: str, x: Tensor, heads: int) -> Tensor:
    """Over the last but one axis of x."""
    z = normed(state, f"{name}.layer_norm", x)
    queries, keys, values = (z @ state[f"{name}.w_{part}s.weight"].T for part in "qkv")
    mixed = []
    for q, k, v in zip(queries.chunk(heads, -1), keys.chunk(heads, -1), values.chunk(heads, -1), strict=True):
        scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).exp()
        mixed.append(scores / scores.sum(-1, keepdim=True) @ v)
    return torch.cat(mixed, -1) @ state[f"{name}.fc.weight"].T + x


def tied_softmax(logits: Tensor) -> Tensor:
    weights = torch.cat([logits, -logits.sum(1, keepdim=True)], 1).exp()
    return weights[:, :-1] / weights.sum(1, keepdim=True)


def regretnet(state: State, bids: Tensor) -> tuple[Tensor, Tensor]:
    _, n, m = bids.shape
    results = []
    for part in ("alloc_layers", "pay_layers"):
        x, layers = bids.reshape(-1, n * m), sum(name.startswith(part) for name in state) // 2
        for k in range(layers):
            x = x @ state[f"{part}.{k}.weight"].T + state[f"{part}.{k}.bias"]
            x = x if k == layers - 1 else x.tanh()
        results.append(x)
    weights = results[0].reshape(-1, n + 1, m).exp()
    return weights[:, :-1] / weights.sum(1, keepdim=True), results[1].sigmoid()


def equivariantnet(state: State, bids: Tensor) -> tuple[Tensor, Tensor]:
    x = exchange(state, "input_layer", bids.unsqueeze(-1)).relu()
    for k in range(EQUIVARIANTNET[bids.shape[1], bids.shape[2]] - 2):
        x = exchange(state, f"body_layers.{k}", x).relu()
    allocation = tied_softmax(exchange(state, "head_layer.alloc_layer", x).squeeze(-1))
    return allocation, exchange(state, "head_layer.pay_layer", x).squeeze(-1).mean(2).sigmoid()


def regretformer(state: State, bids: Tensor, encodings: float | Tensor = 0.0) -> tuple[Tensor, Tensor]:
    _, _, heads, blocks = REGRETFORMER[bids.shape[1], bids.shape[2]]
    x = (exchange(state, "input_layer", bids.unsqueeze(-1)) + encodings).tanh()
    for k in range(blocks):
        name = f"body_layers.{k}"
        over_items = attend(state, f"{name}.attention_item", x, heads)
        over_bidders = attend(state, f"{name}.attention_agent", x.transpose(1, 2), heads).transpose(1, 2)
        joined = torch.cat([over_items, over_bidders], -1).tanh() @ state[f"{name}.fc.weight"].T
        x = (joined + state[f"{name}.fc.bias"] + x).tanh()
    z = normed(state, "head_layer.layer_norm", x)
    a = (z @ state["head_layer.encoder_agent.weight"].T).mean(2)
    t = (z @ state["head_layer.encoder_item.weight"].T).mean(1)
    logits = a @ t.transpose(1, 2) / math.sqrt(a.shape[-1])
    fractions = (a @ state["head_layer.fc_payment.0.weight"].T + state["head_layer.fc_payment.0.bias"]).squeeze(-1)
    return tied_softmax(logits), fractions.sigmoid()


REFERENCE = {"regretnet": regretnet, "equivariantnet": equivariantnet, "regretformer": regretformer}


def bids(n: int, m: int) -> Tensor:
    return torch.rand(5, n, m, dtype=torch.float64, generator=torch.Generator().manual_seed(n + m))


@torch.no_grad()
@pytest.mark.parametrize(("n", "m"), SETTINGS)
@pytest.mark.parametrize("net", MADE_UP)
def test_a_checkpoint_of_any_setting_answers_by_the_formulas(net: str, n: int, m: int, tmp_path: Path) -> None:
    state = MADE_UP[net](n, m)
    torch.save(dict(state), tmp_path / "model.pt")
    network, profiles = load_official(tmp_path / "model.pt", (n, m)), bids(n, m)
    allocation, fractions = REFERENCE[net](state, profiles)
    outcome = network(profiles)
    assert torch.allclose(outcome.allocation, allocation, rtol=0, atol=1e-12)
    assert torch.allclose(outcome.payments, fractions * (allocation * profiles).sum(-1), rtol=0, atol=1e-12)
    alone = convert_official(state)  # without naming the setting
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), network.parameters(), strict=True))


def encoding(length: int, channels: int) -> Tensor:
    rows = [
        [(math.cos if c % 2 else math.sin)(t / 10_000 ** (c // 2 * 2 / channels)) for c in range(channels)]
        for t in range(length)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def nested(state: State, depth: int) -> State:
    return {name.replace("input_layer.", "input_layer." + "0." * depth): entry for name, entry in state.items()}


@torch.no_grad()
def test_a_checkpoint_with_encoded_items_answers_by_the_formulas() -> None:
    state, profiles = made_up_regretformer(1, 2), 4 + 3 * bids(1, 2)
    of_items = encoding(2, 32)
    official = nested(state, 1) | {"input_layer.1.pe": of_items.reshape(2, 1, 1, 32)}
    outcome = convert_official(official, (1, 2))(profiles)
    assert torch.allclose(outcome.allocation, regretformer(state, profiles, of_items)[0], rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("setting", [(2, 3), None])
def test_a_checkpoint_with_encoded_bidders_and_items_answers_by_the_formulas(setting: tuple[int, int] | None) -> None:
    state, profiles = made_up_regretformer(2, 3), bids(2, 3)
    of_bidders, of_items = encoding(2, 64), encoding(3, 64)
    official = nested(state, 2) | {
        "input_layer.0.1.pe": of_bidders.reshape(2, 1, 1, 64),
        "input_layer.1.pe": of_items.reshape(3, 1, 1, 64),
    }
    outcome = convert_official(official, setting)(profiles)
    expected = regretformer(state, profiles, of_bidders.unsqueeze(1) + of_items)[0]
    assert torch.allclose(outcome.allocation, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("setting", "buffer"), [((2, 3), "bidders"), ((3, 2), "items"), ((1, 2), "items")])
def test_a_single_encoding_belongs_to_what_the_setting_has_as_many_of(setting: tuple[int, int], buffer: str) -> None:
    state = made_up_equivariantnet(2, 3) if setting != (1, 2) else made_up_equivariantnet(1, 2)
    official = nested(state, 1) | {"input_layer.1.pe": encoding(2, 32).reshape(2, 1, 1, 32)}
    network = convert_official(official, setting)
    assert isinstance(network, EquivariantNet)
    assert torch.equal(dict(network.positions.named_buffers())[buffer].reshape(2, 32), encoding(2, 32))


@pytest.mark.parametrize("setting", [None, (2, 2), (3, 4)])
def test_a_single_encoding_that_could_be_either_is_refused(setting: tuple[int, int] | None) -> None:
    official = nested(made_up_regretformer(2, 2), 1) | {"input_layer.1.pe": encoding(2, 64)}
    with pytest.raises(CheckpointError, match="2 bidders or 2 items apart"):
        convert_official(official, setting)


@pytest.mark.parametrize(
    ("net", "held", "asked", "message"),
    [
        ("regretnet", (2, 2), (1, 2), "is for 2x2, not for 1x2; name 2x2"),
        ("regretnet", (2, 3), (3, 2), "is for 2x3, not for 3x2"),
        ("equivariantnet", (2, 3), (2, 5), "shape published for 2x5, 6, but 5, as for 2x3"),
        ("regretformer", (2, 2), (1, 2), "as for 2x2 and 2x3"),
    ],
)
def test_a_checkpoint_of_another_setting_is_refused(
    net: str, held: tuple[int, int], asked: tuple[int, int], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        convert_official(MADE_UP[net](*held), asked)


def test_heads_are_asked_for_where_the_width_does_not_tell_them() -> None:
    state = made_up_regretformer(1, 2)
    narrow = {
        name: entry[:24]
        if ".w_" in name
        else entry[:, :24]
        if name.endswith(("item.fc.weight", "agent.fc.weight"))
        else entry
        for name, entry in state.items()
    }
    with pytest.raises(CheckpointError, match="attention of width 24, which cannot be shared by an unknown number"):
        convert_official(narrow)
    with pytest.raises(CheckpointError, match="by 5 heads"):
        convert_official(narrow, heads=5)
    network = convert_official(narrow, heads=3)
    assert isinstance(network, RegretFormer)
    assert (network.shape.heads, network.shape.head_channels) == (3, 8)


def without(state: State, name: str) -> State:
    return {key: entry for key, entry in state.items() if key != name}


def test_foreign_damaged_and_incomplete_state_dicts_are_refused() -> None:
    state = made_up_regretnet(1, 2)
    wrong = {
        "no RegretNet, EquivariantNet or RegretFormer": {"conv.weight": torch.zeros(1)},
        "its entries are none": {},
        "no state dict": {"model": {"weight": torch.zeros(1)}},
        "NaN or infinite": state | {"pay_layers.0.bias": torch.full((100,), math.nan)},
        "lacks 'payment_layers.2.weight'": without(state, "pay_layers.2.weight"),
        r"lacks \['payment_layers.1.bias'\] and has nothing": without(state, "pay_layers.1.bias"),
        r"has \['norm.weight'\] in excess": state | {"norm.weight": torch.zeros(1)},
        "do not fit together": state | {"alloc_layers.2.weight": torch.zeros(5, 100)},
    }
    for message, entries in wrong.items():
        with pytest.raises(CheckpointError, match=message):
            convert_official(entries)


def test_files_that_are_no_state_dict_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not a checkpoint")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "network.pt")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "foreign.pt")
    torch.save(dict(made_up_regretnet(1, 2)), tmp_path / "whole.pt")
    (tmp_path / "half.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    for name in ("text.pt", "empty.pt", "network.pt", "half.pt"):
        with pytest.raises(CheckpointError, match=rf"{name} is no file of tensors alone"):
            load_official(tmp_path / name)
    with pytest.raises(CheckpointError, match=r"foreign.pt: the checkpoint is no RegretNet"):
        load_official(tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match=r"absent\.pt cannot be read: No such file"):
        load_official(tmp_path / "absent.pt")
    assert isinstance(load_official(tmp_path / "whole.pt"), RegretNet)
