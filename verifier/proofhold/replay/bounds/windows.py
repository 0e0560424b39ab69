"""The windows that a convolution or a pool slides over an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from proofhold.replay.bounds.enclosure import Array, NoBound, Step


@dataclass(frozen=True, slots=True)
class Windows:
    """Where windows lie: `out` places an axis, `kernel` elements each, with padding round the image."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    out: tuple[int, ...]

    @classmethod
    def of(cls, step: Step, image: Sequence[int], kernel: Sequence[int]) -> Windows:
        """Read an operator's strides, dilations and padding.

        Raises:
            NoBound: they are not what ONNX says.

        """
        rank = len(kernel)
        strides, dilations = _attribute(step, "strides", rank), _attribute(step, "dilations", rank)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        automatic = step.attributes.get("auto_pad", "NOTSET")
        if automatic in ("SAME_UPPER", "SAME_LOWER"):
            out = [math.ceil(size / stride) for size, stride in zip(image, strides, strict=True)]
            total = [
                max((o - 1) * s + r - size, 0)
                for o, s, r, size in zip(out, strides, reach, image, strict=True)
            ]
            less, more = [t // 2 for t in total], [t - t // 2 for t in total]
            before, after = (less, more) if automatic == "SAME_UPPER" else (more, less)
        else:
            pads = [0] * 2 * rank if automatic == "VALID" else step.attributes.get("pads", [0] * 2 * rank)
            before, after = list(pads[:rank]), list(pads[rank:])
            rounding = math.ceil if step.attributes.get("ceil_mode", 0) else math.floor
            room = [size + b + a - r for size, b, a, r in zip(image, before, after, reach, strict=True)]
            out = [rounding(r / s) + 1 for r, s in zip(room, strides, strict=True)]
            if step.attributes.get("ceil_mode", 0):
                # A window must begin inside of the image or of the padding before it.
                out = [
                    o - (((o - 1) * s) >= size + b)
                    for o, s, size, b in zip(out, strides, image, before, strict=True)
                ]
        if any(o < 1 for o in out) or any(p < 0 for p in (*before, *after)):
            raise NoBound(f"{step.operator} of windows {tuple(kernel)} on {tuple(image)}")
        return cls(tuple(kernel), strides, dilations, tuple(before), tuple(after), tuple(out))

    def view(self, images: Array, fill: float) -> Array:
        """Give every window: images and channels, then places, then the elements of the kernel."""
        rank = len(self.kernel)
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        needed = [(o - 1) * s + r for o, s, r in zip(self.out, self.strides, reach, strict=True)]
        pads = [(0, 0), (0, 0)] + [
            (b, max(n - size - b, 0))
            for b, n, size in zip(self.before, needed, images.shape[2:], strict=True)
        ]
        padded = np.pad(images, pads, constant_values=fill)
        padded = padded[(slice(None), slice(None), *(slice(0, n) for n in needed))]
        views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
        places = tuple(slice(None, None, s) for s in self.strides)
        elements = tuple(slice(None, None, d) for d in self.dilations)
        return views[(slice(None), slice(None), *places, *elements)]

    def counts(self, image: Sequence[int], *, padding: bool) -> Array:
        """Count the elements of each window that an average divides by."""
        ones = np.ones((1, 1, *image))
        if padding:
            around = [(0, 0), (0, 0), *zip(self.before, self.after, strict=True)]
            inner = Windows(
                self.kernel, self.strides, self.dilations, (0,) * len(self.kernel), self.after, self.out
            )
            views = inner.view(np.pad(ones, around, constant_values=1.0), 0.0)
        else:
            views = self.view(ones, 0.0)
        counts: Array = views.sum(axis=spatial(self.kernel))
        return counts


def spatial(kernel: Sequence[int]) -> tuple[int, ...]:
    """Name the last axes, those of the kernel."""
    return tuple(range(-len(kernel), 0))


def _attribute(step: Step, name: str, rank: int) -> tuple[int, ...]:
    values = tuple(int(value) for value in step.attributes.get(name) or (1,) * rank)
    if len(values) != rank or any(value < 1 for value in values):
        raise NoBound(f"{step.operator}: {name} {values}")
    return values
