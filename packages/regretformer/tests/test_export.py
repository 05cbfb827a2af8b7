"""ONNX files against the networks they were exported from, run by onnxruntime."""

import subprocess
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from gt_core.errors import InputError

from regretformer import export
from regretformer.export import export_onnx, takes_any_size
from regretformer.networks.build import build
from regretformer.networks.network import AuctionNetwork

ASYMMETRIC = (torch.tensor([4.0, 4.0]), torch.tensor([16.0, 7.0]))
ANY_SIZE = ((1, 2), (1, 1), (3, 1), (2, 5))
EXPORT = """
import pathlib, sys
from regretformer.export import export_onnx
from regretformer.networks.build import build
import torch

asymmetric = (torch.tensor([4.0, 4.0]), torch.tensor([16.0, 7.0]))
for name, options in {
    "regretnet": {}, "equivariantnet": {}, "regretformer": {},
    "asymmetric": {"net": "regretformer", "told_apart": "items", "support": asymmetric},
    "sizes": {"net": "regretformer", "told_apart": "sizes"},
    "rivals": {"net": "equivariantnet", "told_apart": "rivals"},
}.items():
    network = build(**{"net": name, "bidders": 1, "items": 2, "seed": 0} | options)
    before = {name: entry.clone() for name, entry in network.state_dict().items()}
    export_onnx(network, pathlib.Path(sys.argv[1]) / f"{name}.onnx", 1, 2)
    assert network.training and all(torch.equal(entry, before[key]) for key, entry in network.state_dict().items())
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Files of all kinds, and what was printed while they were written, in a process where warnings are errors."""
    folder = tmp_path_factory.mktemp("exported")
    line = [sys.executable, "-W", "error", "-c", EXPORT, folder]
    done = subprocess.run(line, check=True, capture_output=True, text=True)
    return folder, done.stdout + done.stderr


def test_export_prints_nothing(exported: tuple[Path, str]) -> None:
    assert exported[1] == ""


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "network", "sizes"),
    [
        ("regretnet", build("regretnet", 1, 2, seed=0), [(1, 2)]),
        ("equivariantnet", build("equivariantnet", 1, 2, seed=0), ANY_SIZE),
        ("regretformer", build("regretformer", 1, 2, seed=0), ANY_SIZE),
        ("asymmetric", build("regretformer", 1, 2, seed=0, told_apart="items", support=ASYMMETRIC), [(1, 2)]),
        ("sizes", build("regretformer", 1, 2, seed=0, told_apart="sizes"), ANY_SIZE),
        ("rivals", build("equivariantnet", 1, 2, seed=0, told_apart="rivals"), ANY_SIZE),
    ],
)
def test_onnx_answers_as_the_network_does(
    name: str, network: AuctionNetwork, sizes: list[tuple[int, int]], exported: tuple[Path, str]
) -> None:
    file = exported[0] / f"{name}.onnx"
    onnx.checker.check_model(file, full_check=True)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    axes = ["batch", 1, 2] if len(sizes) == 1 else ["batch", "bidders", "items"]
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("bids", axes)]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [("allocation", axes), ("payments", axes[:2])]
    for batch in (1, 5):
        for n, m in sizes:
            bids = torch.rand(batch, n, m, generator=torch.Generator().manual_seed(0))
            allocation, payments = session.run(None, {"bids": bids.numpy()})
            expected = network(bids)
            assert torch.allclose(torch.from_numpy(allocation), expected.allocation, rtol=0, atol=1e-6)
            assert torch.allclose(torch.from_numpy(payments), expected.payments, rtol=0, atol=1e-6)


def test_export_names_the_extra_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"onnx and onnxscript: pip install 'regretformer\[onnx\]'"):
        export_onnx(build("regretnet", 1, 2, seed=0), tmp_path / "mechanism.onnx", 1, 2)


def test_networks_tied_to_their_size_are_known() -> None:
    unit = (torch.tensor(0.0), torch.tensor(2.0))
    assert takes_any_size(build("regretformer", 2, 3, seed=0, support=unit))
    assert not takes_any_size(build("equivariantnet", 2, 3, seed=0, told_apart="bidders"))
    assert not takes_any_size(build("regretformer", 1, 2, seed=0, support=ASYMMETRIC))
    assert not takes_any_size(build("regretnet", 2, 3, seed=0))
