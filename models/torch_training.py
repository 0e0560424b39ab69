"""Training with PyTorch that gives the same weights again: what the export scripts beside this file share.

One thread, float64, fixed seeds and a fixed number of epochs. What two processors then disagree about is far
below the weight grid of onnx_export.py. PyTorch is no dependency of the project: `sh requirements/add-torch`
adds its CPU build to an environment made by `sh requirements/install dev`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

BATCH = 64
Weights = dict[str, npt.NDArray[np.float64]]


def train(
    make: Callable[[], torch.nn.Module],
    inputs: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> Weights:
    """Train the module that `make` makes, by Adam on the cross entropy; gives its parameters by name."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)
    try:
        torch.manual_seed(seed)
        module = make().double()
        order = torch.Generator().manual_seed(seed)
        rows, targets = torch.from_numpy(inputs), torch.from_numpy(labels)
        optimiser = torch.optim.Adam(module.parameters(), lr=learning_rate, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
        for _ in range(epochs):
            for batch in torch.randperm(len(rows), generator=order).split(BATCH):
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(module(rows[batch]), targets[batch]).backward()
                optimiser.step()
            schedule.step()
    finally:
        torch.use_deterministic_algorithms(mode=False)
        torch.set_num_threads(threads)
    return {name: value.detach().numpy() for name, value in module.named_parameters()}
