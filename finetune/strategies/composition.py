"""A strategy over another: the base adapts the model and cuts the groups, and scales multiply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .base import Phase, Rate, Strategy
from .full import Full

if TYPE_CHECKING:
    from ..layers import LayerGroup


def base_or_full(base: Strategy | None) -> Strategy:
    """The strategy below; without one, every parameter trains."""
    return base if base is not None else Full()


def rates_below(base: Strategy | None, groups: Sequence[LayerGroup]) -> dict[str, Rate]:
    """The rates of a base strategy of one phase.

    Raises:
        ValueError: The base has several phases; two courses over one run have no single order.
    """
    phases = base_or_full(base).phases(groups)
    if len(phases) > 1:
        name = getattr(base, "name", type(base).__name__)
        raise ValueError(f"strategy.base: {name!r} has {len(phases)} phases; a base may have only one. Swap the two")
    return dict(phases[0].rates)


def scaled(phases: Sequence[Phase], scales: dict[str, float]) -> tuple[Phase, ...]:
    """These phases with each group's scale multiplied; a name that is no group is left for the plan to refuse."""
    return tuple(
        Phase(
            phase.start,
            {name: rate._replace(scale=rate.scale * scales.get(name, 1.0)) for name, rate in phase.rates.items()},
        )
        for phase in phases
    )
