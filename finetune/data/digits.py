"""Real handwriting without a download: the 1797 digits that scikit-learn bundles (UCI, CC BY 4.0).

Each is an 8 x 8 grid of ink levels 0 … 16: how many of the 4 x 4 pixels of a 32 x 32 bitmap were black.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finetune.errors import DataError
from finetune.randomness import generator

if TYPE_CHECKING:
    from PIL.Image import Image

GRID = 8
MAX_LEVEL = 16
IMAGE_SIZE = 16


def few_shot(
    *, per_class: int = 20, validation_per_class: int = 30, seed: int = 0
) -> dict[str, dict[str, list[Image | str]]]:
    """Disjoint splits, ``{split: {"image": [...], "label": [...]}}``: balanced, and the test split is all the rest.

    The validation split does not depend on ``per_class``, and a smaller training split is part of a larger one.

    Raises:
        DataError: More images of a class are asked for than there are.
    """
    levels, labels = _load()
    splits: dict[str, dict[str, list[Image | str]]] = {
        name: {"image": [], "label": []} for name in ("train", "validation", "test")
    }
    for digit in range(10):
        of_class = np.flatnonzero(labels == digit)
        if per_class + validation_per_class >= len(of_class):
            raise DataError(
                f"digits: {per_class} training and {validation_per_class} validation images of {digit} leave none of"
                f" the {len(of_class)} for the test split; ask for fewer per class."
            )
        order = generator(seed, "digits", digit).permutation(of_class)
        held_out, rest = order[:validation_per_class], order[validation_per_class:]
        parts = {"validation": held_out, "train": rest[:per_class], "test": rest[per_class:]}
        for name, part in parts.items():
            splits[name]["image"] += [image_of(levels[index]) for index in part]
            splits[name]["label"] += [str(digit)] * len(part)
    return splits


def image_of(levels: np.ndarray) -> Image:
    """An 8 x 8 grid of ink levels 0 … 16 as a 16 x 16 RGB image, ink white on black, as models take it."""
    from PIL import Image

    grey = np.rint(np.asarray(levels) * (255 / MAX_LEVEL)).astype(np.uint8)
    enlarged = Image.fromarray(grey).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
    return enlarged.convert("RGB")


def _load() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target
