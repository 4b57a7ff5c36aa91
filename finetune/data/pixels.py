"""How a model wants its images: the resizing, cropping and scaling that its own library does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_BICUBIC = 3  # PIL's number, the default of most image models


@dataclass(frozen=True, eq=False)
class Pixels:
    """From an RGB image to (3, height, width) float32, one image at a time.

    Args:
        whole: As the model's own library prepares an image for prediction.
        view: The same without resizing and cropping, for an image that already has the size.
        size: Height and width of what comes out.
        resample: The model's filter, PIL's number for it.
    """

    whole: Callable[[Image], Tensor]
    view: Callable[[Image], Tensor]
    size: tuple[int, int]
    resample: int


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

    resample = getattr(processor, "resample", None)
    return Pixels(whole, view, _size(whole, source), _BICUBIC if resample is None else int(resample))


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
    return Pixels(whole, view, _size(whole, source), int(str_to_pil_interp(config["interpolation"])))


def _size(whole: Callable[[Image], Tensor], source: str) -> tuple[int, int]:
    """Height and width, found by trying: every processor keeps its sizes under other keys."""
    from PIL import Image

    tall, wide = (whole(Image.new("RGB", size)).shape for size in ((48, 64), (64, 48)))
    if tall != wide:
        raise ConfigError(
            f"task.model: the image processor of {source} keeps the shape of each image, and a batch needs one shape. "
            "Set task.image_size, e.g. 224."
        )
    return tall[1], tall[2]
