"""Random views of an image, drawn from a generator that is handed in: no global state is read or moved."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

Augment = Literal["none", "light", "standard"]


class _Ranges(NamedTuple):
    area: tuple[float, float]  # of the crop, as a share of the image
    aspect: tuple[float, float]  # width / height of the crop, before it is resized
    colour: float  # brightness, contrast and saturation are multiplied by 1 +- this


_RANGES = {
    # Keeps most of the picture: a fine-tuning set is small, and its classes may differ in a detail.
    "light": _Ranges(area=(0.7, 1.0), aspect=(3 / 4, 4 / 3), colour=0.0),
    # Area and aspect of Szegedy et al. 2015 (section 6), colour of timm's default (0.4): the ImageNet habit.
    "standard": _Ranges(area=(0.08, 1.0), aspect=(3 / 4, 4 / 3), colour=0.4),
}


def random_view(
    image: Image, *, augment: Augment, rng: np.random.Generator, size: tuple[int, int], resample: int
) -> Image:
    """A random crop, resized, and mirrored left to right in half of the cases.

    Mirroring changes the class of letters and digits: leave such data at ``"none"``.

    Args:
        image: RGB.
        augment: ``"light"`` or ``"standard"``.
        rng: Where all draws come from.
        size: Height and width of the view, in pixels.
        resample: A filter of PIL.
    """
    from PIL import Image as Images

    ranges = _RANGES[augment]
    box = _crop(rng, ranges, width=image.width, height=image.height)
    height, width = size
    view = image.resize((width, height), resample=Images.Resampling(resample), box=box)
    if rng.random() < 0.5:
        view = view.transpose(Images.Transpose.FLIP_LEFT_RIGHT)
    return _coloured(view, rng, ranges.colour) if ranges.colour else view


def _crop(rng: np.random.Generator, ranges: _Ranges, *, width: int, height: int) -> tuple[int, int, int, int]:
    """Left, upper, right, lower of a random box.

    A side that does not fit is cut to the image. The usual rule draws again, and after ten times takes the
    centre: of a wide image that is the same view almost every time.
    """
    area = width * height * rng.uniform(*ranges.area)
    aspect = math.exp(rng.uniform(math.log(ranges.aspect[0]), math.log(ranges.aspect[1])))
    w = min(width, max(1, round(math.sqrt(area * aspect))))
    h = min(height, max(1, round(math.sqrt(area / aspect))))
    left, upper = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    return left, upper, left + w, upper + h


def _coloured(image: Image, rng: np.random.Generator, strength: float) -> Image:
    """Brightness, contrast and saturation in a random order, each by its own factor."""
    from PIL import ImageEnhance

    changes = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for which in rng.permutation(len(changes)):
        image = changes[which](image).enhance(rng.uniform(1 - strength, 1 + strength))
    return image
