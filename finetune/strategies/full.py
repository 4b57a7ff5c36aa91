"""Every layer trains, or some do: the two strategies of one phase."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from ..choices import listed, nearest
from ..durations import Duration
from .base import Phase, Rate

if TYPE_CHECKING:
    from torch import nn

    from ..layers import LayerGroup

START = Duration(0, "steps")


@dataclass(frozen=True, kw_only=True)
class Full:
    """Every parameter trains at the base LR (Devlin et al. 2019, section 3)."""

    name: Literal["full"] = "full"

    __pydantic_config__ = {"extra": "forbid"}

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        return model

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        return tuple(layers)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        return (Phase(START, {group.name: Rate(1.0) for group in groups}),)


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """Only the named groups train; with the default, a linear probe.

    Args:
        trainable: Group names; ``*`` and ``?`` match as in a shell, and ``layer.-1`` counts from the
            top, so that one recipe fits models of any depth.
    """

    name: Literal["freeze"] = "freeze"
    trainable: tuple[str, ...] = ("head",)

    __pydantic_config__ = {"extra": "forbid"}

    def __post_init__(self) -> None:
        if isinstance(self.trainable, str) or not self.trainable:
            raise ValueError(f"trainable: a list of groups, such as ['head', 'layer.-1']; got {self.trainable!r}")

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        return model

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        return tuple(layers)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        names = [group.name for group in groups]
        chosen = {name for pattern in self.trainable for name in matching(pattern, names)}
        return (Phase(START, {name: Rate(1.0) for name in names if name in chosen}),)


def matching(pattern: str, names: Sequence[str], *, field: str = "strategy.trainable") -> list[str]:
    """The group names that ``pattern`` means.

    Args:
        pattern: A name, with ``*`` and ``?`` as in a shell, or ``layer.-1`` counted from the top.
        names: Of all groups, from the input to the head.
        field: Where the pattern was written, for the message.

    Raises:
        ValueError: It means none; the message lists those there are.
    """
    blocks = [name for name in names if name.startswith("layer.")]
    if pattern.startswith("layer.-") and pattern[7:].isdigit() and 1 <= int(pattern[7:]) <= len(blocks):
        return [blocks[-int(pattern[7:])]]
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ValueError(
            f"{field}: {pattern!r} matches no layer group{nearest(pattern, names)}; there are {listed(names)}"
        )
    return found
