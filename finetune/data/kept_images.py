"""Images that were decoded once, for all epochs and all runs: bytes in one array, mapped from a file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..cached_arrays import ArrayCache, CacheUnavailable
from .images import content_of, header_size
from .pixels import Pixels, tried

if TYPE_CHECKING:
    from PIL.Image import Image

    from .table import Table

_FORMAT = 1
_AT_ONCE = 64  # images between two looks at whether the run is to stop, for each thread


@dataclass(frozen=True, eq=False)
class KeptImages:
    """The bytes of every image of a split.

    Args:
        bytes: Image after image, (bytes,) uint8.
        shapes: Of each, (examples, 3) int32: (3, height, width) where it has the model's size, (height, width, 3)
            where it is a picture to take views of.
        is_exact: Whether pictures are as they were decoded, and not made smaller.
    """

    bytes: np.ndarray
    shapes: np.ndarray
    offsets: np.ndarray
    is_exact: bool = True

    def __getitem__(self, index: int) -> np.ndarray:
        start = int(self.offsets[index])
        return self.bytes[start : int(self.offsets[index + 1])].reshape(self.shapes[index])


@dataclass(frozen=True, eq=False)
class Keeping:
    """What is to be kept of a split's images.

    Args:
        table: Where they come from.
        pixels: How the model wants them.
        views: Whether random views are taken of them: then pictures are kept, as they are decoded, else what
            the model is given before it is scaled.
        shorter_side: Pictures are made so small first, in pixels: approximate. 0: never.
    """

    table: Table
    pixels: Pixels
    views: bool = False
    shorter_side: int = 0

    def find(self, cache: ArrayCache) -> KeptImages | None:
        """What an earlier run kept; None where none did."""
        arrays = cache.find(self.key)
        if arrays is None or set(arrays) != {"bytes", "shapes"} or len(arrays["shapes"]) != len(self.table):
            return None
        return self._kept(arrays)

    def make(self, cache: ArrayCache, *, is_stopping: Callable[[], bool] = lambda: False) -> KeptImages | None:
        """Decode every image, in as many threads as there are processors; None where the run is to stop.

        Raises:
            CacheUnavailable: They cannot be kept.
            DataError: An image that cannot be read, with its file.
        """
        sizes = np.fromiter(self._sizes(), np.int64, count=len(self.table))
        offsets = np.append(0, sizes.cumsum())
        forms: Any = {"bytes": ((int(offsets[-1]),), np.uint8), "shapes": ((len(sizes), 3), np.int32)}
        draft = cache.create(self.key, forms)
        try:
            whole = self._fill(draft.arrays["bytes"], draft.arrays["shapes"], offsets, is_stopping)
        except BaseException:
            draft.discard()
            raise
        if not whole:
            draft.discard()
            return None
        return self._kept(draft.commit())

    @cached_property
    def key(self) -> str:
        """Names the entry: what the images are made from, and how."""
        import PIL
        import torch
        import torchvision  # type: ignore[import-untyped]
        import xxhash

        libraries = [PIL.__version__, torch.__version__, torchvision.__version__]
        how = [_FORMAT, *libraries, torch.backends.cpu.get_cpu_capability(), self.views, self.shorter_side]
        state = xxhash.xxh3_128(json.dumps([*how, len(self.table)]).encode())
        if not self.views:
            for image in tried():
                state.update(self.pixels.shaped(image).tobytes())
        for digest, value in zip(self.table.contents, self._values(), strict=True):
            state.update(digest + content_of(value, self.table.rows.folder))
        return f"images-{state.hexdigest()}"

    def estimate(self) -> int:
        """Bytes that they take, from at most 100 of them."""
        if not self.views:
            return len(self.table) * 3 * math.prod(self.pixels.size)
        places = np.unique(np.linspace(0, len(self.table) - 1, 100).round().astype(int)).tolist()
        return round(np.mean([self._num_bytes(self._value(place)) for place in places]) * len(self.table))

    def _values(self) -> Iterator[Any]:
        return map(self._value, range(len(self.table)))

    def _value(self, index: int) -> Any:
        assert self.table.image_column is not None, "a table of texts has no images"
        return self.table.rows.columns[self.table.image_column][int(self.table.positions[index])]

    def _sizes(self) -> Iterator[int]:
        each = 3 * math.prod(self.pixels.size)
        return map(self._num_bytes, self._values()) if self.views else (each for _ in range(len(self.table)))

    def _num_bytes(self, value: Any) -> int:
        """Of a picture, by its header; turning it upright changes nothing in that."""
        return 3 * math.prod(_made_smaller(header_size(value, self.table.rows.folder), self.shorter_side))

    def _array(self, index: int) -> np.ndarray:
        image = self.table.image(index)
        if not self.views:
            return self.pixels.shaped(image)
        smaller = _made_smaller(image.size, self.shorter_side)
        return np.asarray(image if smaller == image.size else _resized(image, smaller, self.pixels.resample))

    def _fill(self, out: np.ndarray, shapes: np.ndarray, offsets: np.ndarray, is_stopping: Callable[[], bool]) -> bool:
        def put(index: int) -> None:
            array = self._array(index)
            start, end = int(offsets[index]), int(offsets[index + 1])
            if array.size != end - start:
                raise CacheUnavailable(f"{self.table.where(index)} decodes to another size than its header says")
            out[start:end] = array.reshape(-1)
            shapes[index] = array.shape

        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        with ThreadPoolExecutor(workers) as pool:  # decoding gives the interpreter's lock back
            for start in range(0, len(shapes), workers * _AT_ONCE):
                if is_stopping():
                    return False
                list(pool.map(put, range(start, min(start + workers * _AT_ONCE, len(shapes)))))
        return True

    def _kept(self, arrays: dict[str, np.memmap]) -> KeptImages:
        shapes = np.asarray(arrays["shapes"])
        offsets = np.append(0, shapes.prod(axis=1, dtype=np.int64).cumsum())
        return KeptImages(np.asarray(arrays["bytes"]), shapes, offsets, is_exact=not self.shorter_side)


def _made_smaller(size: tuple[int, int], shorter_side: int) -> tuple[int, int]:
    """The size with its shorter side brought down to so many pixels; never up."""
    if not shorter_side or min(size) <= shorter_side:
        return size
    scale = shorter_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)


def _resized(image: Image, size: tuple[int, int], resample: int) -> Image:
    from PIL import Image as Images

    return image.resize(size, resample=Images.Resampling(resample))
