"""Groups of one's own: by regular expression over parameter names, and each with its share of the learning rate."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ..choices import listed
from ..layers import regrouped
from .base import Phase
from .composition import base_or_full, layer_of, phases_below, scaled
from .full import matching

if TYPE_CHECKING:
    from torch import nn

    from ..layers import LayerGroup


@dataclass(frozen=True, kw_only=True)
class NamedGroups:
    """Cut groups out of the layer map, and scale the learning rate of some: torch's parameter groups, by name.

    With ``freeze`` as base, surgical fine-tuning of any subset of the weights (Lee et al. 2023, arXiv 2210.11466,
    tunes blocks; patterns also reach what lies across them, such as all attention weights).

    Args:
        patterns: Group name to a regular expression, searched for in the qualified names of parameters; the first
            match wins, and what none matches stays in its layer. A group named below a layer
            (``layer.3.attention``) counts as part of it in depth, and one named as a layer group joins it.
        scales: Factor on the learning rate by group; ``*``, ``?`` and ``layer.-1`` as in ``freeze``, the first match
            counts. Not of the head, whose rate is ``optimizer.head_lr``.
        base: What trains when, over these groups; absent: all of them, always.
    """

    name: Literal["named_groups"] = "named_groups"
    patterns: Mapping[str, str] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)
    base: Any = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if not self.patterns and not self.scales:
            raise ValueError("named_groups needs patterns (group name to regular expression), or scales, or both")
        for name, scale in self.scales.items():
            if not 0 < scale < float("inf"):
                raise ValueError(f"scales.{name}: a factor above 0; got {scale}. To freeze a group use base: freeze")

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        return base_or_full(self.base).adapt(model, new)

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        return base_or_full(self.base).groups(regrouped(layers, self.patterns), new)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        names = [group.name for group in groups]
        below = phases_below(self.base, groups)
        trained = {name for phase in below for name in phase.rates}
        scales: dict[str, float] = {}
        for pattern, scale in self.scales.items():
            found = matching(pattern, names, field="strategy.scales")
            if trained.isdisjoint(found):
                raise ValueError(f"strategy.scales: {pattern!r} is without effect, as {listed(found)} never trains")
            for name in found:
                if layer_of(name) == "head":
                    raise ValueError(
                        f"strategy.scales: {pattern!r} would scale the head; set optimizer.head_lr instead"
                    )
                scales.setdefault(name, scale)
        return scaled(below, scales)
