"""LP-FT: a linear probe first, then everything, so that a random head does not distort the features."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt

from ..durations import Duration, DurationText, check_interval
from .base import Phase, Plateau, Rate
from .composition import base_or_full, layer_of, rates_below
from .full import START

if TYPE_CHECKING:
    from torch import nn

    from ..layers import LayerGroup
    from ..schedules import Schedule


@dataclass(frozen=True, kw_only=True)
class LPFT:
    """Only the head trains, then everything (Kumar et al. 2022, arXiv 2202.10054, sections 3.4, 4.2).

    ``optimizer.head_lr`` is the rate of the probe, and ``optimizer.lr`` of what joins it; the paper takes
    3e-3 to 1 for the one and 3e-7 to 1e-2 for the other (SGD, cosine, 20 epochs), and after a probe on ImageNet a
    tenth of what fine-tuning alone would take. Their code fine-tunes a ResNet in eval mode, so that its batch norms
    keep their statistics; here they always do, and dropout is the model's.

    Args:
        probe: How long only the head trains; a percentage is of the run.
        patience: The probe ends earlier once this many evaluations have not improved.
        head_scale: Factor on the head's rate once everything trains, e.g. ``optimizer.lr / optimizer.head_lr``.
        probe_schedule: Over the probe alone; absent: the run's goes on.
        schedule: Over what comes after the probe; absent: the run's goes on.
        base: A strategy of one phase that trains after the probe, e.g. LR decay over depth, or adapters.
    """

    name: Literal["lp_ft"] = "lp_ft"
    probe: DurationText = "50%"
    patience: Annotated[int, Ge(1)] | None = None
    head_scale: Annotated[float, Gt(0)] = 1.0
    probe_schedule: Any = None
    schedule: Any = None
    base: Any = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        check_interval(self.probe, field="probe")
        if self.patience is not None and self.probe_schedule is not None:
            raise ValueError(
                "probe_schedule: it runs over the probe, whose length patience leaves open; leave one of them out"
            )

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        return base_or_full(self.base).adapt(model, new)

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        return base_or_full(self.base).groups(layers, new)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        below = rates_below(self.base, groups)
        head = {name: rate for name, rate in below.items() if layer_of(name) == "head"}
        if not head:
            raise ValueError("strategy: lp_ft probes the head, and no group of this name trains")
        if len(head) == len(below):
            raise ValueError(
                "strategy: lp_ft has nothing to train after the probe but the head; use freeze for a probe"
            )
        tuned = below | {name: rate._replace(scale=rate.scale * self.head_scale) for name, rate in head.items()}
        end = Duration.parse(self.probe)
        return (
            Phase(START, _over_phase(head, self.probe_schedule)),
            Phase(Plateau(self.patience, end) if self.patience else end, _over_phase(tuned, self.schedule)),
        )


def _over_phase(rates: Mapping[str, Rate], schedule: Schedule | None) -> dict[str, Rate]:
    """These rates with a schedule of the phase's own, where there is one."""
    return {name: rate._replace(schedule=schedule or rate.schedule) for name, rate in rates.items()}
