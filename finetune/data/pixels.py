"""How a model wants its images: the resizing, cropping and scaling that its own library does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from .store import Batch

_BICUBIC = 3  # PIL's number, the default of most image models
# Width and height of what both ways are tried on: tall, wide, far larger than a model's input, far smaller; none 1 or
# 3, which transformers may take for channels.
_TRIED = ((40, 90), (300, 70), (700, 650), (4, 5))


@dataclass(frozen=True, eq=False)
class Pixels:
    """From an RGB image to (3, height, width) float32, one image at a time or a batch of bytes at once.

    Args:
        whole: As the model's own library prepares an image for prediction.
        view: The same without resizing and cropping, for an image that already has the size.
        shaped: ``whole`` without scaling: resized and cropped bytes, (3, height, width).
        size: Height and width of what comes out.
        resample: The model's filter, PIL's number for it.
    """

    whole: Callable[[Image], Tensor]
    view: Callable[[Image], Tensor]
    shaped: Callable[[Image], np.ndarray]
    size: tuple[int, int]
    resample: int

    @cached_property
    def table(self) -> np.ndarray:
        """What each byte becomes in each channel, (3, 256) float32."""
        from PIL import Image

        ramp = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
        return self.view(Image.fromarray(ramp)).numpy().reshape(3, 256).copy()

    @cached_property
    def is_split(self) -> bool:
        """Whether ``table`` of ``shaped`` is ``whole``, bit for bit, and of any image ``view``.

        Not where bytes are made floats before they are resized, or where pixels depend on others in scaling.
        """
        try:
            return all(self._is_same(image) for image in tried())
        except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
            return False  # a processor of its own kind, that cannot be told to leave a step out

    def scaled(self, images: np.ndarray) -> Tensor:
        """A batch of bytes as the model wants it: (n, 3, height, width) float32."""
        import torch

        found = np.empty(images.shape, np.float32)
        for place in np.ndindex(*images.shape[:2]):
            np.take(self.table[place[1]], images[place], out=found[place], mode="clip")
        return torch.from_numpy(found)

    def _is_same(self, image: Image) -> bool:
        ways = ((self.shaped(image), self.whole), (planes(image), self.view))
        return all(np.array_equal(self.scaled(found[None])[0].numpy(), own(image).numpy()) for found, own in ways)


def tried() -> list[Image]:
    """Noise of several shapes, the same each time: what tells one way of preparing images from another."""
    from PIL import Image

    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in _TRIED]


def planes(image: Image) -> np.ndarray:
    """The bytes of an RGB image by channel, (3, height, width)."""
    return np.asarray(image).transpose(2, 0, 1)


def finished(batch: Batch) -> Batch:
    """A batch of images that were left as bytes, scaled by its ``pixel_table`` where it is now; any other as it is.

    A table gives the same floats on every device, and a quarter of the bytes go there.
    """
    import torch

    if "pixel_table" not in batch:
        return batch
    rest = {name: tensor for name, tensor in batch.items() if name != "pixel_table"}
    table, images = batch["pixel_table"], batch["pixel_values"]
    channels = [table[channel][images[:, channel].int()] for channel in range(3)]
    return {**rest, "pixel_values": torch.stack(channels, dim=1)}


def pixels_of_processor(processor: Any, *, source: str) -> Pixels:
    """Of an image processor of transformers.

    Args:
        processor: As it is saved beside the weights.
        source: Names the model in messages.

    Raises:
        ConfigError: Images of different shapes would come out.
    """

    def whole(image: Image) -> Tensor:
        return processor(images=[image], return_tensors="pt")["pixel_values"][0]

    def view(image: Image) -> Tensor:
        kept = {"do_resize": False, "do_center_crop": False}
        return processor(images=[image], return_tensors="pt", **kept)["pixel_values"][0]

    def shaped(image: Image) -> np.ndarray:
        kept = {"do_rescale": False, "do_normalize": False}
        return processor(images=[image], return_tensors="pt", **kept)["pixel_values"][0].numpy()

    resample = getattr(processor, "resample", None)
    return Pixels(whole, view, shaped, _size(whole, source), _BICUBIC if resample is None else int(resample))


def pixels_of_timm(config: dict[str, Any], *, source: str) -> Pixels:
    """Of what ``timm.data.resolve_data_config`` returns.

    Args:
        config: ``input_size``, ``interpolation``, ``mean``, ``std``, ``crop_pct``, ``crop_mode``.
        source: Names the model in messages.
    """
    from timm.data import create_transform
    from timm.data.transforms import str_to_pil_interp
    from torchvision.transforms import Compose, Normalize, ToTensor  # type: ignore[import-untyped]

    whole = create_transform(**config, is_training=False)
    view = Compose([ToTensor(), Normalize(config["mean"], config["std"])])
    unscaled = create_transform(**config, is_training=False, use_prefetcher=True)  # whose prefetcher would scale

    def shaped(image: Image) -> np.ndarray:
        return np.asarray(unscaled(image))

    return Pixels(whole, view, shaped, _size(whole, source), int(str_to_pil_interp(config["interpolation"])))


def _size(whole: Callable[[Image], Tensor], source: str) -> tuple[int, int]:
    """Height and width, found by trying: every processor keeps its sizes under other keys."""
    from PIL import Image

    try:
        tall, wide = (whole(Image.new("RGB", size)).shape for size in ((48, 64), (64, 48)))
    except Exception as error:  # of a size that it cannot make, or a configuration that makes no sense
        said = next(iter(str(error).splitlines()), "")[:100]
        raise ConfigError(
            f"task.image_size: the image processor of {source} cannot prepare a picture "
            f"({type(error).__name__}: {said}). Set another size, e.g. 224."
        ) from error
    if tall != wide:
        raise ConfigError(
            f"task.model: the image processor of {source} keeps the shape of each image, and a batch needs one shape. "
            "Set task.image_size, e.g. 224."
        )
    return tall[1], tall[2]
