"""Auto-RGN: each layer's learning rate by how much its gradient would move it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from .base import Phase
from .composition import base_or_full, layer_of, phases_below, scaled
from .measuring import check_measured, norm_of

if TYPE_CHECKING:
    from torch import nn

    from ..layers import LayerGroup


@dataclass(frozen=True, kw_only=True)
class AutoRGN:
    """Scale each group by its relative gradient norm over the largest (Lee et al. 2023, arXiv 2210.11466, Auto-RGN).

    The norm of a group is |gradient| / |weights|; the largest is of those that train. The head has 1 and is left out
    of it: it is new, so its gradient says how little it knows and not where the data differ. Measured once, on the
    model as it starts and 128 training examples; the authors' code measures each tensor anew every epoch, with a new
    Adam.

    Args:
        measured: Relative gradient norms by group; absent: the run measures them first, and ``plan`` prints them.
        base: Another strategy whose scales are multiplied, e.g. gradual unfreezing.
    """

    name: Literal["auto_rgn"] = "auto_rgn"
    measured: Mapping[str, float] | None = None
    base: Any = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_measured(self.measured)

    @property
    def wants_gradients(self) -> bool:
        return self.measured is None

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        return base_or_full(self.base).adapt(model, new)

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        return base_or_full(self.base).groups(layers, new)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        below = phases_below(self.base, groups)
        trained = {name for phase in below for name in phase.rates if layer_of(name) != "head"}
        norms = {name: norm_of(self.measured, name) for name in sorted(trained)}
        largest = max(norms.values(), default=0.0)
        if not largest:
            why = "no gradient reaches one here" if trained else "none of them trains"
            raise ValueError(f"strategy: auto_rgn tells layers below the head apart, and {why}")
        return scaled(below, {name: norm / largest for name, norm in norms.items()})
