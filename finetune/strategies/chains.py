"""Strategies over strategies: what lies in a chain of bases, and which of them do not go together."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from .composition import layer_of

if TYPE_CHECKING:
    from torch import nn

# What a strategy does to a model, by name; the others only say when what trains.
_KINDS = {
    "lora": "adapters",
    "peft": "adapters",
    "bitfit": "subset",
    "norm_tuning": "subset",
    "mixout": "mixed",
    "reinitialised": "redrawn",
}
_BELOW_HEAD = ("discriminative", "gradual_unfreeze", "freeze_out", "lora", "peft")
_WHY_NOT = {
    frozenset({"adapters"}): "a model has one set of adapters; put the course (such as discriminative) below",
    frozenset({"adapters", "subset"}): "an adapter is saved without its base, so what else trains would be lost",
    frozenset({"adapters", "mixed"}): "under adapters the weights that mixout mixes stay as they are",
    frozenset({"adapters", "redrawn"}): "an adapter is saved without its base, so weights drawn anew would be lost",
    frozenset({"subset"}): "both say which weights train; use one of them",
    frozenset({"subset", "mixed"}): "mixout mixes matrices, and none of them would train",
    frozenset({"mixed"}): "once is enough",
    frozenset({"redrawn"}): "once is enough",
}


def chain(strategy: Any) -> Iterator[Any]:
    """The strategy, its base, the base of that, to the last."""
    while strategy is not None:
        yield strategy
        strategy = getattr(strategy, "base", None)


def check_chain(strategy: Any) -> None:
    """Refuse bases under ``strategy`` that would be lost, or without effect.

    Raises:
        ValueError: Names the two that do not go together, and why.
    """
    own = _KINDS[strategy.name]
    for below in chain(strategy.base):
        name = getattr(below, "name", "")
        why = _WHY_NOT.get(frozenset({own, _KINDS[name]})) if name in _KINDS else None
        if why is not None:
            raise ValueError(f"base: {name} cannot be the base of {strategy.name}: {why}")


def without_effect(strategy: Any, trained: Collection[str]) -> list[str]:
    """What a chain would do to the layers below the head, in a run that trains the head alone.

    Args:
        strategy: Of the run.
        trained: The groups that train in some phase.
    """
    if any(layer_of(name) != "head" for name in trained):
        return []
    return [
        f"strategy{'.base' * depth}: {part.name} without effect, as nothing below the head trains"
        for depth, part in enumerate(chain(strategy))
        if getattr(part, "name", "") in _BELOW_HEAD
    ]


def renewed(strategy: Any, model: nn.Module) -> tuple[str, ...]:
    """Names of the weights that a chain of strategies draws anew, so that they must train as new ones do."""
    found = [name for part in chain(strategy) if hasattr(part, "renewed") for name in part.renewed(model)]
    return tuple(dict.fromkeys(found))
