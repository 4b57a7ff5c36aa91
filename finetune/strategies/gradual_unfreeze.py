"""Gradual unfreezing: one layer group after another begins to train."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from ..durations import Duration, DurationText, check_interval
from .base import Phase, Plateau, Rate
from .composition import base_or_full, rates_below
from .discriminative import depth_scales
from .full import START
from .measuring import check_measured
from .thawing import Order, in_stages, named, ordered

if TYPE_CHECKING:
    from torch import nn

    from ..layers import LayerGroup


@dataclass(frozen=True, kw_only=True)
class GradualUnfreeze:
    """The head trains first; then one more group joins at equal intervals (Howard & Ruder 2018, section 3.3).

    Exclusive and bottom up it is chain-thaw (Felbo et al. 2017, arXiv 1708.00524, section 3.3): the new layer, then
    each alone from the first to the last, then all.

    Args:
        over: When the last stage begins; a percentage is of the run. Default 50%.
        every: Instead of ``over``: the interval between two stages; ULMFiT uses ``"1 epoch"``.
        at: Instead of ``over``: when each stage after the first begins.
        patience: A stage begins earlier once this many evaluations have not improved, counted from the stage before.
        stages: One layer at a time where absent; a number of equal stages; or a list of them, each a list of group
            names, with ``order: given`` (``*``, ``?`` and ``layer.-1`` as in ``freeze``).
        order: Of the layers below the head, which is first: ``relative_gradient_norm`` takes the largest
            |gradient| / |weights| of the start model first (Lee et al. 2023).
        mode: ``exclusive``: each stage trains alone, and all together at last.
        rewarm: Linear warm-up of what a stage thaws; a percentage is of the stage's phase. Absent: none.
        schedule: Over each phase anew, e.g. one triangle each; absent: the run's goes on.
        decay: Factor on the LR per layer below the head, as ``Discriminative`` counts (``beit``); 1 for none.
        measured: Relative gradient norms by group; absent: the run measures what ``order`` needs.
        base: A strategy of one phase whose groups and scales are used, e.g. LoRA.
    """

    name: Literal["gradual_unfreeze"] = "gradual_unfreeze"
    over: DurationText | None = None
    every: DurationText | None = None
    at: tuple[DurationText, ...] | None = None
    patience: Annotated[int, Ge(1)] | None = None
    stages: Annotated[int, Ge(2)] | tuple[tuple[str, ...], ...] | None = None
    order: Order = "top_down"
    mode: Literal["cumulative", "exclusive"] = "cumulative"
    rewarm: DurationText | None = None
    schedule: Any = None
    decay: Annotated[float, Gt(0), Le(1)] = 1.0
    measured: Mapping[str, float] | None = None
    base: Any = None

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        _check_times(self)
        _check_stages(self)
        check_measured(self.measured)

    @property
    def wants_gradients(self) -> bool:
        return self.order == "relative_gradient_norm" and self.measured is None

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        return base_or_full(self.base).adapt(model, new)

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        return base_or_full(self.base).groups(layers, new)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        below = rates_below(self.base, groups)
        scales = depth_scales(groups, self.decay, "beit")
        rates = {
            name: rate._replace(scale=rate.scale * scales[name], schedule=self.schedule or rate.schedule)
            for name, rate in below.items()
            if name in scales
        }
        courses = self._courses([group.name for group in groups if group.name in below])
        starts = self._starts(len(courses))
        return tuple(
            Phase(start, self._rates(rates, course, before))
            for start, course, before in zip(starts, courses, [None, *courses], strict=False)
        )

    def _courses(self, names: Sequence[str]) -> list[list[str]]:
        """What trains in each phase, in the order of thawing."""
        if self.stages is None or isinstance(self.stages, int):
            layers = ordered(names, self.order, self.measured)
            stages = in_stages(layers, self.stages or len(layers))
        else:
            stages = named(self.stages, names)
        cumulative = list(accumulate(stages, lambda before, stage: [*before, *stage]))
        if self.mode == "cumulative" or len(stages) <= 1:
            return cumulative
        return [*stages, cumulative[-1]]

    def _rates(
        self, rates: Mapping[str, Rate], course: Sequence[str], before: Sequence[str] | None
    ) -> dict[str, Rate]:
        """The rates of a phase; what it thaws warms up, but for the first, which the run's own schedule warms up."""
        warmup = Duration.parse(self.rewarm) if self.rewarm is not None else None
        return {
            name: rates[name] if before is None or name in before else rates[name]._replace(warmup=warmup)
            for name in course
        }

    def _starts(self, count: int) -> list[Duration | Plateau]:
        """When each of so many phases begins."""
        if self.at is not None:
            if len(self.at) != count - 1:
                raise ValueError(
                    f"strategy.at: got {len(self.at)}, expected {count - 1}: a time for each phase after the first"
                )
            times = [Duration.parse(time) for time in self.at]
        elif self.every is not None:
            times = [Duration.parse(self.every) * number for number in range(1, count)]
        else:
            interval = Duration.parse(self.over or "50%") * (1 / max(1, count - 1))
            times = [interval * number for number in range(1, count)]
        if self.patience is None:
            return [START, *times]
        return [START, *(Plateau(self.patience, time) for time in times)]


def _check_times(strategy: GradualUnfreeze) -> None:
    """When stages begin, said once and in order; and what a plateau rules out."""
    given = [name for name in ("over", "every", "at") if getattr(strategy, name) is not None]
    if len(given) > 1:
        raise ValueError(
            "give either over (when the last group joins) or every (the interval) or at (each time), not both: "
            f"there are {' and '.join(given)}"
        )
    if strategy.over is not None:
        Duration.parse(strategy.over)
    if strategy.every is not None:
        check_interval(strategy.every, field="every")
    times = [Duration.parse(time) for time in strategy.at or ()]
    if any(a.unit == b.unit and a.amount >= b.amount for a, b in pairwise(times)):
        raise ValueError(f"at: {list(strategy.at or ())} do not follow one another")
    if strategy.rewarm is not None:
        check_interval(strategy.rewarm, field="rewarm")
    if strategy.patience is None:
        return
    if strategy.schedule is not None:
        raise ValueError("schedule: it runs over each phase, whose length patience leaves open; leave one of them out")
    if strategy.rewarm is not None and Duration.parse(strategy.rewarm).unit == "%":
        raise ValueError(f"rewarm: {strategy.rewarm!r} is of a phase whose length patience leaves open; give steps")


def _check_stages(strategy: GradualUnfreeze) -> None:
    """Stages that are listed are in the order given, and no others are."""
    is_list = isinstance(strategy.stages, (tuple, list))
    if is_list != (strategy.order == "given"):
        raise ValueError(
            "order: given goes with stages as a list of lists of group names, such as [[head], [layer.-1, layer.-2]]; "
            f"here the order is {strategy.order} and stages {'is' if is_list else 'is not'} such a list"
        )
    if isinstance(strategy.stages, (tuple, list)) and not (strategy.stages and all(strategy.stages)):
        raise ValueError("stages: every stage needs at least one group")
    if strategy.measured is not None and strategy.order != "relative_gradient_norm":
        raise ValueError(f"measured: without effect with order: {strategy.order}; leave it out")
