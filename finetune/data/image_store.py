"""Images, decoded when a batch asks for them or once for all; random views are seeded by the draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..randomness import generator
from .augment import Augment, random_view
from .pixels import Pixels, planes
from .store import Draw, indices_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from .kept_images import Keeping, KeptImages
    from .rows import Fault
    from .store import Batch
    from .table import Table

_ROOM = 256 / 224  # of the shorter side above the model's: the habit of ImageNet's resized copies


@dataclass(frozen=True, eq=False)
class ImageStore:
    """One split of images; a ``Store``.

    Args:
        table: Where the images come from.
        pixels: How the model wants them.
        augment: ``"none"`` for everything but training.
        kept: The images as they were decoded once; None: each is decoded when a batch asks for it.
        leaves_bytes: A batch holds bytes and ``pixel_table``, what each becomes, for ``pixels.finished`` to
            scale on the device.
    """

    table: Table
    pixels: Pixels
    augment: Augment = "none"
    kept: KeptImages | None = None
    leaves_bytes: bool = False

    @property
    def leaving_bytes(self) -> ImageStore:
        """The same images for a device that scales them."""
        return replace(self, leaves_bytes=self.pixels.is_split)

    @property
    def varies(self) -> bool:
        """Whether an image looks different each time."""
        return self.augment != "none"

    def __len__(self) -> int:
        return len(self.table)

    @property
    def lengths(self) -> np.ndarray:
        """1 for each image, (examples,) int32."""
        return np.ones(len(self), np.int32)

    @property
    def labels(self) -> np.ndarray | None:
        """Classes, (examples,) int64, or which labels, (examples, labels) bool; None for a split without any."""
        return self.table.labels

    @property
    def fingerprint(self) -> str:
        """Of the data, before any transform."""
        return self.table.fingerprint

    @property
    def skipped(self) -> tuple[Fault, ...]:
        """Rows that ``bad_rows: skip`` left out."""
        return self.table.skipped

    def column(self, name: str) -> np.ndarray:
        """A column of the source by name, (examples,).

        Raises:
            DataError: No such column; names those there are.
        """
        return self.table.column(name)

    def where(self, index: int) -> str:
        """The file of an example, for messages."""
        return self.table.where(index)

    def batch(self, draws: Sequence[Draw]) -> Batch:
        """``pixel_values`` (batch, 3, height, width), ``labels`` and ``index``.

        Raises:
            DataError: An image that cannot be read, with its file.
        """
        import torch

        rows = indices_of(draws)
        batch = {**self._images(draws), "index": torch.from_numpy(rows)}
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[rows])
        return batch

    def keeping(self, *, is_resized: bool = False) -> Keeping:
        """What may be kept of these images: as the model is given them; pictures where views are taken.

        Args:
            is_resized: Pictures are made smaller first, to where views of them seldom have to be made larger.
        """
        from .kept_images import Keeping

        shorter_side = round(max(self.pixels.size) * _ROOM) if is_resized and self.varies else 0
        return Keeping(self.table, self.pixels, views=self.varies, shorter_side=shorter_side)

    def _images(self, draws: Sequence[Draw]) -> Batch:
        import torch

        if not self.pixels.is_split:
            images = [self._scaled(draw) for draw in draws]
            return {"pixel_values": torch.stack(images) if images else torch.zeros(0, 3, *self.pixels.size)}
        found = np.empty((len(draws), 3, *self.pixels.size), np.uint8)
        for place, draw in enumerate(draws):
            found[place] = self._shaped(draw)
        if not self.leaves_bytes:
            return {"pixel_values": self.pixels.scaled(found)}
        return {"pixel_values": torch.from_numpy(found), "pixel_table": torch.from_numpy(self.pixels.table)}

    def _shaped(self, draw: Draw) -> np.ndarray:
        """The bytes of one draw, (3, height, width)."""
        if self.varies and draw.seed:
            return planes(self._view(draw))
        if self.kept is not None and not self.varies:
            return self.kept[draw.index]
        is_kept = self.kept is not None and self.kept.is_exact
        return self.pixels.shaped(self._picture(draw.index) if is_kept else self.table.image(draw.index))

    def _scaled(self, draw: Draw) -> Tensor:
        if self.varies and draw.seed:
            return self.pixels.view(self._view(draw))
        return self.pixels.whole(self.table.image(draw.index))

    def _view(self, draw: Draw) -> Image:
        rng = generator(draw.seed, "augment")
        size, resample = self.pixels.size, self.pixels.resample
        return random_view(self._picture(draw.index), augment=self.augment, rng=rng, size=size, resample=resample)

    def _picture(self, index: int) -> Image:
        from PIL import Image as Images

        return self.table.image(index) if self.kept is None else Images.fromarray(self.kept[index])
