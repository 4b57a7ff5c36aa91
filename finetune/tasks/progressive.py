"""Progressive resolution: training images that are smaller at first."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge

from ..durations import Duration, DurationText
from ..errors import ConfigError
from .base import Output, Task
from .wrapping import base_score, base_splits, of_base, without_effect

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..data.store import Batch, Store
    from ..models.loaded import LoadedModel
    from ..progress import Progress


@dataclass(frozen=True, kw_only=True)
class ProgressiveResolution:
    """A task on images whose training images are smaller at first; approximate, and evaluated at full size.

    A ViT of patch size 16 has 64 patches at 128 pixels, 121 at 176 and 196 at 224, and its cost falls with
    them. Position embeddings are interpolated for each forward, as the model's own library does it; the weights
    stay those of the full size, at which the run ends.

    Measured, one seed: ViT-Tiny on 1,024 pictures of clothes, two epochs at 128, 176 and 224 pixels, took 110 s of
    one CPU core in place of 190, evaluations included, and gave 87.5 % on 713 others (plain: 87.2; a point may be
    chance). A few patches are too few: digits of 16 pixels, with phases at 8 and 12, fell to 61.0 % (plain: 96.9,
    three seeds).

    Progressive resizing is Howard's (DAWNBench 2018); for ViTs see EfficientTrain (Wang et al. 2023,
    arXiv 2211.09703), which crops frequencies, and FixRes (Touvron et al. 2019) on why to end at the full size.

    Args:
        base: The task on images.
        sizes: Sides of the training images, in pixels, one after the other, each larger than the one before;
            multiples of the patch size. After the last comes the size that the model takes.
        until: When each of them ends, counted from the start of the run.
    """

    name: Literal["progressive_resolution"] = "progressive_resolution"
    base: Task
    sizes: tuple[Annotated[int, Ge(1)], ...] = (128, 176)
    until: tuple[DurationText, ...] = ("50%", "80%")

    __pydantic_config__ = {"extra": "forbid"}

    splits = base_splits
    score = base_score

    def __post_init__(self) -> None:
        if not self.sizes or len(self.sizes) != len(self.until):
            raise ValueError(f"until: {len(self.until)} ends for {len(self.sizes)} sizes; give one for each size")
        if any(after <= before for before, after in pairwise(self.sizes)):
            raise ValueError(f"sizes: {list(self.sizes)} do not grow; give them from small to large")
        ends = [Duration.parse(end) for end in self.until]
        if any(a.unit == b.unit and a.amount >= b.amount for a, b in pairwise(ends)):
            raise ValueError(f"until: {list(self.until)} do not follow one another")

    def __getattr__(self, name: str) -> Any:
        return of_base(self, name)

    def load_model(self) -> LoadedModel:
        """The model of ``base``, able to take each of the sizes.

        Raises:
            ConfigError: It cannot.
        """
        loaded = self.base.load_model()
        _check_sizes(loaded.module, self.sizes)
        return loaded

    def load_split(self, name: str) -> Store:
        """The split of ``base``, with images of full size.

        Raises:
            ConfigError: A size is not smaller than that, or images are not square.
        """
        store = self.base.load_split(name)
        height, width = getattr(getattr(store, "pixels", None), "size", (0, 0))
        if height != width:
            raise ConfigError(f"task.sizes: the model takes images of {height} x {width} pixels; they must be square.")
        if height and self.sizes[-1] >= height:
            raise ConfigError(
                f"task.sizes: {self.sizes[-1]} is not smaller than the {height} pixels that the model takes, and "
                "with which the run ends by itself. Leave it out, or set task.base.image_size."
            )
        return store

    def forward(self, model: nn.Module, batch: Batch, progress: Progress) -> Output:
        """As ``base`` has it; in training, of images that are as small as the run wants them now."""
        size = self.size(progress) if model.training else None
        return self.base.forward(model, batch if size is None else _smaller(batch, size), progress)

    def without_effect(self, progress: Progress) -> list[str]:
        """What is set and changes nothing in a run, or never ends."""
        found, before = without_effect(self.base, progress), 0
        for size, until in zip(self.sizes, self.until, strict=True):
            end = min(progress.steps(until), progress.total_steps)
            if end <= before:
                found.append(f"task.sizes: no update of this run is made at {size} pixels; see task.until")
            before = max(before, end)
        if before >= progress.total_steps:
            found.append(f"task.until: {list(self.until)} leave no update of this run at full size")
        return found

    def size(self, progress: Progress) -> int | None:
        """The side of training images now, in pixels; None: full size."""
        ends = zip(self.sizes, self.until, strict=True)
        return next((size for size, end in ends if progress.step < progress.steps(end)), None)


def _smaller(batch: Batch, size: int) -> Batch:
    """The batch with images of this side; the word to interpolate positions goes along, for transformers."""
    import torch
    from torch.nn.functional import interpolate

    if "pixel_values" not in batch:
        raise ValueError("the images change their size from phase to phase")
    images: Tensor = batch["pixel_values"]
    smaller = interpolate(images, size=(size, size), mode="bilinear", antialias=True)
    return {**batch, "pixel_values": smaller, "interpolate_pos_encoding": torch.tensor(1)}


def _check_sizes(module: nn.Module, sizes: tuple[int, ...]) -> None:
    """Let the model take images of other sizes, and try each.

    Raises:
        ConfigError: A size that it does not take.
    """
    import torch

    from ..encoders import Forward
    from ..encoders.families.timm_vit import fits, take_any_size

    if type(module).__module__.startswith("timm.") and fits(module):
        take_any_size(module)
    forward = Forward(module)
    modes = {part: part.training for part in module.modules()}
    forward.eval()
    weight = next(parameter for parameter in module.parameters() if parameter.is_floating_point())
    try:
        for size in sizes:
            blank = torch.zeros(1, 3, size, size, dtype=weight.dtype)
            with torch.no_grad():
                forward(_smaller({"pixel_values": blank, "index": torch.zeros(1, dtype=torch.int64)}, size))
    except (AssertionError, RuntimeError, TypeError, ValueError) as fault:  # each library has its own
        raise ConfigError(f"task.sizes: the model does not take images of {size} pixels ({fault}).") from None
    finally:
        for part, training in modes.items():
            part.training = training
