"""Models of PyTorch, through both of its exporters, become circuits; one of each is proved."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import onnx
import pytest
from numpy.typing import NDArray

from circuits_of import evaluate
from proofhold.compile import check, compile_model
from proofhold.compile.toolchain import Toolchain
from proofhold.domain import PostProcessing
from proofhold.locks import RunArgs
from small_models import uniform, write_model

torch = pytest.importorskip("torch", reason="PyTorch is not installed: sh requirements/add-torch")

RUN_ARGS = RunArgs(columns=2, decomp_base=128, decomp_legs=5, input_scale=9, param_scale=9)
EXPORTERS = pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])


def perceptron() -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3), nn.Softmax(dim=-1))


def convolution() -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.SiLU(),
        nn.Dropout(0.5),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


def normalised() -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.ELU(), nn.Mish(), nn.Linear(4, 2))


def export(module: Any, shape: tuple[int, ...], *, dynamo: bool) -> bytes:
    module.eval()
    example, file = torch.zeros(shape), io.BytesIO()
    options: dict[str, Any] = {"input_names": ["x"], "dynamo": dynamo}
    if dynamo:
        options |= {"dynamic_shapes": ({0: torch.export.Dim("batch")},), "verbose": False}
        example = torch.zeros((2, *shape[1:]))
    else:
        options |= {"dynamic_axes": {"x": {0: "batch"}}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(module, (example,), None if dynamo else file, **options)
    if dynamo:
        encoded: bytes = program.model_proto.SerializeToString()
        return encoded
    return file.getvalue()


def outputs_of(module: Any, rows: NDArray[Any]) -> NDArray[Any]:
    with torch.no_grad():
        found: NDArray[Any] = module(torch.from_numpy(rows)).numpy()
    return found


@EXPORTERS
@pytest.mark.parametrize(
    ("make", "shape", "post_processing"),
    [
        (perceptron, (1, 4), PostProcessing.SOFTMAX),
        (convolution, (1, 1, 6, 6), PostProcessing.NONE),
        (normalised, (1, 4), PostProcessing.NONE),
    ],
)
def test_a_module_becomes_a_circuit_that_gives_what_it_gives(
    make: Any,
    shape: tuple[int, ...],
    post_processing: PostProcessing,
    dynamo: bool,
    tmp_path: Path,
    tools: Toolchain,
) -> None:
    torch.manual_seed(1)
    module = make()
    rows = uniform((8, *shape[1:]), low=-2, high=2)
    model = export(module, shape, dynamo=dynamo)
    assert onnx.ModelProto.FromString(model).graph.input[0].type.tensor_type.shape.dim[0].dim_param
    path = write_model(tmp_path, model, {"x": rows}, low=-2, high=2)
    found = evaluate(path, RUN_ARGS, tools)
    assert found.trial.derivation.post_processing is post_processing
    assert found.trial.k <= 13
    expected = outputs_of(module, rows)
    assert found.finished.reshape(expected.shape) == pytest.approx(expected, abs=0.03)


@EXPORTERS
def test_a_circuit_of_it_is_proved_and_pinned(
    dynamo: bool, tmp_path: Path, cache: Path, tools: Toolchain
) -> None:
    torch.manual_seed(1)
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    rows = uniform((8, 4))
    path = write_model(tmp_path / "models" / "torch", export(module, (1, 4), dynamo=dynamo), {"x": rows})
    lock = compile_model(path, tmp_path / "circuits" / "torch", run_args=RUN_ARGS, cache=cache, tools=tools)
    assert lock.error.max_abs < 0.02
    assert lock.peak is not None
    assert check(["torch"], tmp_path, cache=cache, tools=tools) == []
