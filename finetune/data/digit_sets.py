"""Several labels for a picture, without a download: one to three handwritten digits in the quarters of a square."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..randomness import generator
from . import digits

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_SIZE = 2 * digits.IMAGE_SIZE
MOST = 3  # digits in a picture: one quarter at least stays empty
SIZES = {"train": 400, "validation": 60, "test": 350}  # pictures; no digit is in two of them


def few_shot() -> dict[str, dict[str, list[Image | tuple[str, ...]]]]:
    """Disjoint splits: ``{split: {"image": [...], "labels": [...]}}``; equal digits in a picture are one label."""
    levels, classes = digits._load()
    random = generator(0, "digit_sets")
    left = iter(random.permutation(len(levels)).tolist())
    splits: dict[str, dict[str, list[Image | tuple[str, ...]]]] = {}
    for name, size in SIZES.items():
        splits[name] = {"image": [], "labels": []}
        for _ in range(size):
            chosen = [next(left) for _ in range(random.integers(1, MOST + 1))]
            splits[name]["image"].append(_picture([levels[index] for index in chosen], random))
            splits[name]["labels"].append(tuple(sorted({str(classes[index]) for index in chosen})))
    return splits


def _picture(chosen: list[np.ndarray], random: np.random.Generator) -> Image:
    """Each in a quarter of its own."""
    from PIL import Image

    picture = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    for levels, quarter in zip(chosen, random.permutation(4).tolist(), strict=False):
        row, column = divmod(quarter, 2)
        picture.paste(digits.image_of(levels), (column * digits.IMAGE_SIZE, row * digits.IMAGE_SIZE))
    return picture
