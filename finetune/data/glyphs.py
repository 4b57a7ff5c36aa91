"""Letters drawn to look like the digits: what the small ViT of the offline default is pre-trained on.

Printed letters of the Latin faces that matplotlib bundles (since 3.11), bent by random affine and elastic distortion,
then put through what made scikit-learn's digits: a 32 x 32 bitmap cut to the ink, counted in 4 x 4 blocks. No digit is
drawn.
"""

from __future__ import annotations

import string
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from finetune.data.digits import GRID, MAX_LEVEL
from finetune.randomness import seed_for

if TYPE_CHECKING:
    from torch import Generator, Tensor

# Letters of one shape in both cases are one class: distortion leaves no size to tell them apart.
ALIKE = "Cc Il Kk Oo Pp Ss Uu Vv Ww Xx Yy Zz"

FACES = (
    *(f"DejaVu{face}" for face in ("Sans", "Sans-Bold", "Sans-Oblique", "Sans-BoldOblique")),
    *(f"DejaVuSansMono{style}" for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(f"DejaVuSerif{style}" for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("", "Bol", "Italic", "BolIta")),
    *("cmr10", "cmb10", "cmss10", "cmti10", "cmtt10"),
)

CANVAS = 64  # pixels a letter is kept and distorted at; its longer side takes 40 of them
BITMAP = 32


class Glyphs(NamedTuple):
    """Drawn letters: ``levels`` (letters, 8, 8) float 0 … 16, as in digits; ``labels`` (letters,) index classes."""

    levels: Tensor
    labels: Tensor


def classes() -> tuple[str, ...]:
    """The classes, sorted; look-alikes share one, as in ``"Cc"``."""
    alone = set(string.ascii_letters) - set(ALIKE)
    return tuple(sorted([*ALIKE.split(), *alone]))


def draw(count: int, *, seed: int, batch: int = 0, purpose: str = "glyphs") -> Glyphs:
    """Random letters in random faces; equal arguments draw equal letters."""
    import torch

    random = torch.Generator().manual_seed(seed_for(seed, purpose, batch))
    letters, labels = _letters()
    chosen = torch.randint(len(letters), (count,), generator=random)
    bent = _bend(letters[chosen].float().div_(255).unsqueeze(1), random)
    levels = _count_ink(_cut_to_ink(bent, random), random)
    return Glyphs(levels, labels[chosen])


def _uniform(low: float, high: float, shape: tuple[int, ...], random: Generator) -> Tensor:
    import torch

    return torch.rand(shape, generator=random) * (high - low) + low


def _bend(images: Tensor, random: Generator) -> Tensor:
    """Rotate by up to 17 degrees, shear, and displace smoothly, as hands do; images (batch, 1, canvas, canvas)."""
    import torch
    import torch.nn.functional as F

    count = (len(images),)
    angle, shear = _uniform(-0.3, 0.3, count, random), _uniform(-0.4, 0.4, count, random)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros(count)
    affine = torch.stack([cos, shear - sin, zero, sin, cos, zero], dim=-1).view(-1, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    waves = torch.randn((*count, 2, 5, 5), generator=random) * _uniform(0.0, 0.12, (*count, 1, 1, 1), random)
    waves = F.interpolate(waves, size=(CANVAS, CANVAS), mode="bicubic", align_corners=True)
    return F.grid_sample(images, grid + waves.permute(0, 2, 3, 1), align_corners=False)


def _cut_to_ink(images: Tensor, random: Generator) -> Tensor:
    """Stretch the box around the ink to the bitmap's height and most of its width, as the digits are."""
    import torch
    import torch.nn.functional as F

    ink = (images[:, 0] > 0.3).float()
    spans = []
    for axis in (1, 2):  # over rows: the columns' extent; over columns: the rows'
        inked = ink.amax(dim=axis)
        first = inked.argmax(dim=1).float()
        last = CANVAS - 1 - inked.flip(1).argmax(dim=1).float()
        spans.append(((first + last + 1) / CANVAS - 1, (last - first + 1) / CANVAS))
    (centre_x, width), (centre_y, height) = spans
    natural = width / height * _uniform(0.8, 1.2, (len(ink),), random)
    stretched = _uniform(0.6, 0.88, (len(ink),), random)
    share = torch.where(natural > 0.45, stretched, natural.clamp(min=0.15))  # of the bitmap's width
    zero = torch.zeros_like(width)
    affine = torch.stack([width / share, zero, centre_x, zero, height, centre_y], dim=-1).view(-1, 2, 3)
    grid = F.affine_grid(affine, [len(ink), 1, BITMAP, BITMAP], align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def _count_ink(bitmaps: Tensor, random: Generator) -> Tensor:
    """Blur, keep the darkest share of the pixels as ink (a pen's width), and count it in 4 x 4 blocks."""
    import torch.nn.functional as F

    count = len(bitmaps)
    spread = F.avg_pool2d(bitmaps, 5, stride=1, padding=2)
    spread = F.avg_pool2d(spread, 3, stride=1, padding=1)
    softness = _uniform(0.3, 1.0, (count, 1, 1, 1), random)
    soft = (1 - softness) * bitmaps + softness * spread
    present = (bitmaps > 0.3).float().mean(dim=(1, 2, 3))
    share = (present * _uniform(0.8, 1.4, (count,), random)).clamp(0.18, 0.42)
    ranked = soft.flatten(1).sort(dim=1, descending=True).values
    threshold = ranked.gather(1, (share * (BITMAP * BITMAP - 1)).long().unsqueeze(1)).clamp(min=0.05)
    ink = (soft > threshold.view(-1, 1, 1, 1)).float()
    block = BITMAP // GRID
    return F.avg_pool2d(ink, block).squeeze(1) * MAX_LEVEL


@cache
def _letters() -> tuple[Tensor, Tensor]:
    """Every letter in every face, (letters x faces, canvas, canvas) uint8, and its class."""
    import torch

    folder = _font_folder()
    label_of = {letter: index for index, letters in enumerate(classes()) for letter in letters}
    pairs = [(face, letter) for face in FACES for letter in string.ascii_letters]
    images = np.stack([_letter(folder / f"{face}.ttf", letter) for face, letter in pairs])
    return torch.from_numpy(images), torch.tensor([label_of[letter] for _, letter in pairs])


def _font_folder() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _letter(font_file: Path, letter: str) -> np.ndarray:
    """One letter, white on black, in the middle of the canvas with its longer side at 40 pixels."""
    from PIL import Image, ImageDraw, ImageFont

    large = Image.new("L", (320, 320))
    ImageDraw.Draw(large).text((160, 160), letter, fill=255, font=ImageFont.truetype(str(font_file), 160), anchor="mm")
    cut = large.crop(large.getbbox())
    scale = 40 / max(cut.size)
    cut = cut.resize((max(1, round(cut.width * scale)), max(1, round(cut.height * scale))), Image.Resampling.BOX)
    canvas = Image.new("L", (CANVAS, CANVAS))
    canvas.paste(cut, ((CANVAS - cut.width) // 2, (CANVAS - cut.height) // 2))
    return np.asarray(canvas)
