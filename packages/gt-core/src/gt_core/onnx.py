"""Writing a module as ONNX, quietly: torch's exporter reports on other libraries, and older versions print their steps.

`onnx` and `onnxscript` must be installed; the packages that export declare them as an extra.
"""

import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["write_onnx"]


def write_onnx(
    module: nn.Module,
    example: Tensor,
    path: str | os.PathLike[str],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic_shapes: Any,  # noqa: ANN401 (torch's type: nested shapes)
) -> None:
    """Write a module of one tensor to `path`, which is overwritten if it exists.

    Args:
        module: what to export, on the CPU.
        example: an input to trace it with.
        path: the ONNX file.
        inputs: names of the inputs.
        outputs: names of the outputs.
        dynamic_shapes: which axes may change, as `torch.export.export` takes them.
    """
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=inputs,
            output_names=outputs,
            dynamic_shapes=dynamic_shapes,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing, as its old form does")
        program.save(os.fspath(path))


@contextmanager
def _quiet() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            for category in (DeprecationWarning, FutureWarning):
                warnings.simplefilter("ignore", category)
            yield
    finally:
        logger.setLevel(level)
