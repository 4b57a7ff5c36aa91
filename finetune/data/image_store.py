"""Images, decoded when a batch asks for them; random views are seeded by the draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..randomness import generator
from .augment import Augment, random_view
from .pixels import Pixels
from .store import Draw

if TYPE_CHECKING:
    from torch import Tensor

    from .store import Batch
    from .table import Table


@dataclass(frozen=True, eq=False)
class ImageStore:
    """One split of images; a ``Store``.

    Args:
        table: Where the images come from.
        pixels: How the model wants them.
        augment: ``"none"`` for everything but training.
    """

    table: Table
    pixels: Pixels
    augment: Augment = "none"

    def __len__(self) -> int:
        return len(self.table)

    @property
    def lengths(self) -> np.ndarray:
        """1 for each image, (examples,) int32."""
        return np.ones(len(self), np.int32)

    @property
    def labels(self) -> np.ndarray | None:
        """Classes, (examples,) int64; None for a split without labels."""
        return self.table.labels

    @property
    def fingerprint(self) -> str:
        """Of the data, before any transform."""
        return self.table.fingerprint

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

        rows = np.fromiter((draw.index for draw in draws), np.int64, count=len(draws))
        images = [self._image(draw) for draw in draws]
        batch = {
            "pixel_values": torch.stack(images) if images else torch.zeros(0, 3, *self.pixels.size),
            "index": torch.from_numpy(rows),
        }
        if self.labels is not None:
            batch["labels"] = torch.from_numpy(self.labels[rows])
        return batch

    def _image(self, draw: Draw) -> Tensor:
        image = self.table.image(draw.index)
        if self.augment == "none" or not draw.seed:
            return self.pixels.whole(image)
        rng = generator(draw.seed, "augment")
        size, resample = self.pixels.size, self.pixels.resample
        return self.pixels.view(random_view(image, augment=self.augment, rng=rng, size=size, resample=resample))
