"""Gradual unfreezing: one more layer group after another, from the head down."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt, Le

from ..durations import Duration, DurationText, check_interval
from .base import Phase, Rate
from .composition import base_or_full, rates_below
from .discriminative import depth_scales
from .full import START

if TYPE_CHECKING:
    from torch import nn

    from ..layers import LayerGroup


@dataclass(frozen=True, kw_only=True)
class GradualUnfreeze:
    """The head trains first; then one more group joins at equal intervals (Howard & Ruder 2018, section 3.3).

    Args:
        over: When the last group (the embeddings) joins; a percentage is of the run. Default 50%.
        every: Instead of ``over``: the interval between two groups; ULMFiT uses ``"1 epoch"``.
        decay: Factor on the LR per layer below the head, as ``Discriminative`` counts (``beit``); 1 for none.
        base: A strategy of one phase whose groups and scales are used, e.g. LoRA.
    """

    name: Literal["gradual_unfreeze"] = "gradual_unfreeze"
    over: DurationText | None = None
    every: DurationText | None = None
    decay: Annotated[float, Gt(0), Le(1)] = 1.0
    base: Any = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if self.over is not None and self.every is not None:
            raise ValueError("give either over (when the last group joins) or every (the interval), not both")
        if self.over is not None:
            Duration.parse(self.over)
        if self.every is not None:
            check_interval(self.every, field="every")

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        return base_or_full(self.base).adapt(model, new)

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        return base_or_full(self.base).groups(layers, new)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        below = rates_below(self.base, groups)
        scales = depth_scales(groups, self.decay, "beit")
        names = [group.name for group in reversed(groups) if group.name in below]
        rates = {name: Rate(below[name].scale * scales[name], below[name].schedule) for name in names}
        interval = self._interval(len(names))
        return tuple(
            Phase(interval * count if count else START, {name: rates[name] for name in names[: count + 1]})
            for count in range(len(names))
        )

    def _interval(self, num_groups: int) -> Duration:
        if self.every is not None:
            return Duration.parse(self.every)
        return Duration.parse(self.over or "50%") * (1 / max(1, num_groups - 1))
