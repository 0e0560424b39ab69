"""scikit-learn's handwritten digits as the export scripts beside this file use them: split, sizes, more rows.

Grey values are multiples of 1/16 from 0 to 1 at every size, so that a circuit of four or more binary digits
after the point holds an input exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 20261123
SIDE = 8
GREY_LEVELS = 16.0
HELD_OUT = 360
SAMPLES = 96
"""How many held-out images a samples.json may take: they calibrate, so `held_out_images` leaves them."""

Images = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """Images of shape [n, 8, 8] with their labels, the same split for every model of digits."""

    train: Images
    train_labels: Labels
    held_out: Images
    held_out_labels: Labels


def split() -> Split:
    """1,437 images to train with, 360 held out, stratified."""
    data = load_digits()
    train, held, train_labels, held_labels = train_test_split(
        data.images / GREY_LEVELS, data.target, test_size=HELD_OUT, random_state=SEED, stratify=data.target
    )
    return Split(train, train_labels, held, held_labels)


def upsample(images: Images, side: int) -> Images:
    """Bilinear enlargement to `side` × `side`, rounded back to sixteen grey levels."""
    source = np.arange(SIDE)
    target = (np.arange(side) + 0.5) * SIDE / side - 0.5
    # One matrix turns rows into rows: where each new line lies between the old ones.
    weights = np.stack([np.interp(target, source, line) for line in np.eye(SIDE)], axis=1)
    enlarged = weights @ images @ weights.T
    return np.floor(enlarged * GREY_LEVELS + 0.5) / GREY_LEVELS


def held_out_images(count: int) -> Images:
    """`count` images of which no model saw one, in training or in samples.json.

    The held-out images that samples.json leaves are 264; the others are the same ones, moved by one pixel in
    each of the eight directions, with black moving in.
    """
    kept = split().held_out[SAMPLES:]
    padded = np.pad(kept, ((0, 0), (1, 1), (1, 1)))
    steps = sorted(product((-1, 0, 1), repeat=2), key=lambda step: (step != (0, 0), step))
    moved = [padded[:, 1 + down : 1 + down + SIDE, 1 + right : 1 + right + SIDE] for down, right in steps]
    return np.concatenate(moved)[:count]
