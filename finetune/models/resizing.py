"""Another image size for a vision transformer: its table of positions is resampled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn


def resize_images(module: nn.Module, processor: Any, size: int, *, source: str) -> nn.Module:
    """The model of transformers for images of ``size`` pixels a side; the processor is set to that size, too.

    Raises:
        ModelError: Another table than that of absolute positions depends on the size.
    """
    own = getattr(module.config, "image_size", size)
    if own not in (size, (size, size), [size, size]):
        module = _rebuilt(module, size, source=source)
    set_size(processor, size)
    return module


def check_patches(module: nn.Module, size: int, *, source: str) -> None:
    """Refuse a size of which the model would not see the right and the lower edge.

    Raises:
        ModelError: It is no multiple of the side of a patch.
    """
    from torch.nn import Conv2d

    first = next((part for part in module.modules() if isinstance(part, Conv2d)), None)
    if first is None or first.stride != first.kernel_size:
        return
    if any(hasattr(part, "maybe_pad") or getattr(part, "dynamic_img_pad", False) for part in module.modules()):
        return  # Swin of transformers fills up what is missing
    side = first.kernel_size[0]
    if left := size % side:
        near = [fit for fit in (size - left, size - left + side) if fit]
        raise ModelError(
            f"task.image_size: {size} pixels, and {source} reads patches of {side} x {side}, so it would not see the "
            f"last {left} pixels of each side. Take a multiple of {side}: {' or '.join(map(str, near))}."
        )


def _rebuilt(module: Any, size: int, *, source: str) -> nn.Module:
    import copy

    config = copy.deepcopy(module.config)
    config.image_size = size
    resized = type(module)(config)
    weights = module.state_dict()
    for name, target in resized.state_dict().items():
        if weights[name].shape == target.shape:
            continue
        if weights[name].ndim != 3 or len(weights[name]) != 1:
            raise ModelError(
                f"model {source!r} cannot take images of {size} pixels: {name} depends on the size, and is no "
                f"table of absolute positions that could be resampled. Use its own size, {module.config.image_size}."
            )
        weights[name] = resample_positions(weights[name], length=target.shape[1])
    resized.load_state_dict(weights)
    return resized.train(module.training)


def resample_positions(table: Tensor, *, length: int) -> Tensor:
    """Positions of another square grid by bicubic interpolation (Dosovitskiy et al. 2021, section 3.2).

    Args:
        table: (1, prefix + side * side, width); the prefix (class, distillation, register tokens) is kept.
        length: prefix + side * side of the new grid.

    Returns:
        (1, length, width).
    """
    import torch
    import torch.nn.functional as F

    old = table.shape[1]
    prefixes = [p for p in range(8) if _is_square(old - p) and _is_square(length - p)]
    if not prefixes:
        raise ModelError(f"positions of {old} tokens cannot be resampled to {length}: one of the grids is not square")
    kept, grid = table[:, : prefixes[0]], table[:, prefixes[0] :]
    side, target = math.isqrt(grid.shape[1]), math.isqrt(length - prefixes[0])
    grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid.float(), size=(target, target), mode="bicubic", antialias=True).to(table.dtype)
    return torch.cat([kept, grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number


def set_size(processor: Any, size: int) -> None:
    """Set an image processor of transformers to square images of ``size`` pixels a side."""
    square = {"height": size, "width": size}
    own = dict(processor.size or {})
    processor.size = {"shortest_edge": size} if "shortest_edge" in own else square
    if getattr(processor, "crop_size", None):
        processor.crop_size = square
