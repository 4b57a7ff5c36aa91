"""How deep a model is frozen in each phase, and how often the run goes through what is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..layers import LayerGroup
    from ..plans import Plan


def frozen_depths(plan: Plan, layers: Sequence[LayerGroup], *, num_blocks: int) -> tuple[int, ...]:
    """For every phase, how many blocks at the bottom of the trunk hold no trained parameter.

    0 where something below the trunk trains, as all blocks then see other inputs from update to update.

    Args:
        plan: Of the run.
        layers: Of the model by structure alone: a new weight of a block belongs to its block.
        num_blocks: Of the trunk.
    """
    inside = {group.name: set(group.parameters) for group in layers}
    found = []
    for phase in plan.phases:
        trained = {name for group in plan.groups if group.name in phase.rates for name in group.parameters}
        depth = 0
        if not trained & inside.get("embeddings", set()):
            while depth < num_blocks and not trained & inside.get(f"layer.{depth}", set()):
                depth += 1
        found.append(depth)
    return tuple(found)


@dataclass(frozen=True)
class Stretch:
    """Phases in a row that share one prefix: none of them trains what lies below another's depth.

    Args:
        depths: Blocks that are fixed, by phase. They only go down: a prefix that grows again holds other
            weights than before, and begins a stretch of its own.
    """

    depths: Mapping[int, int]

    @property
    def first(self) -> int:
        """The phase before which the activations are taken."""
        return min(self.depths)


def stretches(frozen: Sequence[int], reachable: Sequence[int]) -> list[Stretch]:
    """The phases that the run may reach, where something is frozen in them, by common prefix.

    Args:
        frozen: Of ``frozen_depths``.
        reachable: Of ``Plan.reachable``.
    """
    found: list[dict[int, int]] = []
    deepest = 0  # what is still as it was before the last stretch
    for phase in reachable:
        if frozen[phase] > deepest:
            found.append({})
        deepest = frozen[phase]
        if deepest:
            found[-1][phase] = deepest
    return [Stretch(depths) for depths in found]


def passes(plan: Plan, evaluations: Sequence[int]) -> dict[str, list[float]]:
    """How often each phase goes through a split, ``"train"`` and ``"validation"``, for every phase.

    A phase that a plateau starts counts as long as it may last.

    Args:
        plan: Of the run.
        evaluations: Steps after which the run evaluates; that is part of the phase that the update was in.
    """
    train, validation = [], []
    courses = [_spans(plan, starts) for starts in (plan.starts(plan.at(0)), plan.earliest())]
    for number in range(len(plan.phases)):
        spans = [course[number] for course in courses]
        train.append(max(end - start for start, end in spans) / plan.steps_per_epoch)
        validation.append(float(max(sum(start < step <= end for step in evaluations) for start, end in spans)))
    return {"train": train, "validation": validation}


def _spans(plan: Plan, starts: Sequence[int]) -> list[tuple[int, int]]:
    within = [min(start, plan.total_steps) for start in starts]
    return list(zip(within, [*within[1:], plan.total_steps], strict=True))


def fixed_batches(lengths: Sequence[int], *, tokens: int, examples: int) -> list[list[int]]:
    """All examples, longest first, in batches that depend on nothing but their lengths.

    The last bits of an activation may depend on what else is in its batch, so a run that goes on computes
    the very batches of the run that was stopped, on however many ranks.

    Args:
        lengths: Tokens of each example.
        tokens: The most of a batch, unless one example alone has more.
        examples: The most of a batch.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batches: list[list[int]] = []
    size = math.inf
    for index in order:
        size += lengths[index]
        if size > tokens or len(batches[-1]) >= examples:
            batches.append([])
            size = lengths[index]
        batches[-1].append(index)
    return batches
