"""Layers that stop training, one after the other from the input up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt, Le

from ..durations import Duration, DurationText
from .base import Phase
from .composition import base_or_full, by_layer, phases_below
from .full import START

if TYPE_CHECKING:
    from torch import nn

    from ..layers import LayerGroup


@dataclass(frozen=True, kw_only=True)
class FreezeOut:
    """Freeze the layers that train one by one, the lowest first (Brock et al. 2017, arXiv 1706.04983).

    After a share t of the run, of G layers below the last one
    floor(level * G * (t - start) / (end - start)) are frozen: the form of MosaicML Composer's layer freezing, which
    also never freezes the last. What is frozen costs no backward pass, and from then on its output may be kept.

    Args:
        start: When freezing begins; a percentage is of the run.
        end: When as many are frozen as ``level`` says; in the unit of ``start``.
        level: Share of the layers below the last one that freeze.
        base: What trains before; of several phases (``gradual_unfreeze``: thaw, then freeze) these start at set
            times, in the unit of ``start``.
    """

    name: Literal["freeze_out"] = "freeze_out"
    start: DurationText = "50%"
    end: DurationText = "100%"
    level: Annotated[float, Gt(0), Le(1)] = 1.0
    base: Any = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        start, end = Duration.parse(self.start), Duration.parse(self.end)
        if start.unit != end.unit:
            raise ValueError(f"end: {self.end!r} is not in the unit of start ({self.start!r}); give both in one")
        if end.amount <= start.amount:
            raise ValueError(f"end: {self.end!r} is not after start ({self.start!r})")

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        return base_or_full(self.base).adapt(model, new)

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        return base_or_full(self.base).groups(layers, new)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        below = phases_below(self.base, groups)
        starts = self._starts(below)
        ever = {name for phase in below for name in phase.rates}
        frozen = self._frozen([group.name for group in groups if group.name in ever])
        for name, at in frozen.items():
            joins = min(start for start, phase in zip(starts, below, strict=True) if name in phase.rates)
            if joins >= at:
                raise ValueError(
                    f"strategy: {name!r} would freeze (at {self._time(round(at, 1))}) before it begins to train (at "
                    f"{self._time(round(joins, 1))}); let strategy.start be later, or the base be done earlier"
                )
        found = []
        for at in sorted({*starts, *frozen.values()}):
            phase = below[max(number for number, start in enumerate(starts) if start <= at)]
            rates = {name: rate for name, rate in phase.rates.items() if frozen.get(name, at + 1) > at}
            found.append(Phase(self._time(at) if at else START, rates))
        return tuple(found)

    def _time(self, amount: float) -> Duration:
        return Duration(amount, Duration.parse(self.start).unit)

    def _starts(self, below: Sequence[Phase]) -> list[float]:
        """When the phases of the base start, in the unit of ``start``.

        Raises:
            ValueError: Not at set times, in another unit, or with schedules that freezing would cut up.
        """
        unit, found = Duration.parse(self.start).unit, []
        for phase in below:
            if not isinstance(phase.start, Duration):
                raise ValueError("strategy.base: freeze_out needs phases that start at set times; leave out patience")
            if phase.start.amount and phase.start.unit != unit:
                raise ValueError(f"strategy.start: {self.start!r} is not in the unit of its base ({phase.start})")
            if any(rate.schedule is not None or rate.warmup is not None for rate in phase.rates.values()):
                raise ValueError(
                    "strategy.base: freeze_out cuts phases, so a schedule or a warm-up over each would begin anew at "
                    "each freezing; leave it out"
                )
            found.append(phase.start.amount)
        return found

    def _frozen(self, names: Sequence[str]) -> dict[str, float]:
        """When each group freezes; those that never do are left out."""
        start, end = Duration.parse(self.start), Duration.parse(self.end)
        layers = by_layer(names)
        count = self.level * (len(layers) - 1)
        times = {}
        for number, members in enumerate(layers[:-1], start=1):
            at = start.amount + (end.amount - start.amount) * number / count
            if number <= count + 1e-9 and not (start.unit == "%" and at >= 100):  # at the end there is nothing left
                times.update(dict.fromkeys(members, at))
        return times
