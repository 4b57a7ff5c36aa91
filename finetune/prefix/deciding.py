"""Whether keeping the activations of frozen layers pays, at which depths, and where they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..speed import Speed, bytes_of
from .boundaries import Stretch
from .sizes import Part, Rows, free_disk, free_memory, shown

Where = Literal["memory", "disk", "off"]
# A first pass fills, so what is kept must be read for at least half a pass more to be worth its writing.
_LEAST_PASSES = 1.5


@dataclass(frozen=True)
class Kept:
    """What is taken before a stretch of phases.

    Args:
        first: The phase before which it is taken.
        depths: Blocks that are done in what a phase reads, by phase; a phase may read what was taken
            below its own boundary.
        splits: Those of ``"train"`` and ``"validation"`` that are kept.
        bytes: By depth, over these splits.
    """

    first: int
    depths: Mapping[int, int]
    splits: tuple[str, ...]
    bytes: Mapping[int, int]


@dataclass(frozen=True)
class CachePlan:
    """What a run keeps of its frozen layers, where, and why (or why not)."""

    where: Where
    why: str
    kept: tuple[Kept, ...] = ()
    rows: Mapping[int, Rows] = field(default_factory=dict)  # by depth

    def of(self, phase: int) -> Kept | None:
        """What a phase reads; None where it reads nothing that is kept."""
        return next((kept for kept in self.kept if phase in kept.depths), None)

    @property
    def bytes(self) -> int:
        """Of everything that is kept, all depths and splits."""
        return sum(size for kept in self.kept for size in kept.bytes.values())

    def document(self) -> dict[str, Any]:
        """For ``plan.json``: one boundary for each phase that reads what is kept."""
        boundaries = [
            {"phase": phase, "after": f"layer.{depth - 1}", "depth": depth, "bytes": kept.bytes[depth]}
            for kept in self.kept
            for phase, depth in kept.depths.items()
        ]
        splits = sorted({split for kept in self.kept for split in kept.splits})
        return {
            "boundaries": sorted(boundaries, key=lambda boundary: boundary["phase"]),
            "splits": splits,
            "where": self.where,
            "bytes": self.bytes,
            "why": self.why,
        }


class Work(NamedTuple):
    """What a run does with its frozen blocks."""

    stretches: Sequence[Stretch]
    passes: Mapping[str, Sequence[float]]  # by split and phase
    parts: Mapping[str, Part]  # by split
    rows: Mapping[int, Rows]  # by depth
    itemsize: int  # bytes of a kept number


def decide(work: Work, speed: Speed, *, num_ranks: int, num_nodes: int, folder: Path) -> CachePlan:
    """Where and what to keep: what spares most forward passes among what the budgets allow.

    Args:
        work: Stretches, sizes and passes of the run.
        speed: Budgets, and where the user wants it.
        num_ranks: Processes; they share one entry on disk, as memory would hold it once for each.
        num_nodes: Machines; whether they share the folder shows only when it is filled.
        folder: Of the entries on disk.
    """
    if speed.prefix_cache == "off":
        return CachePlan("off", "speed.prefix_cache is off")
    if not work.stretches:
        return CachePlan("off", "no phase freezes the embeddings and a block above them")
    ideal = [_best(work, stretch, budget=None) for stretch in work.stretches]
    if not any(ideal):
        return CachePlan("off", _too_few(work))
    room = _room(speed, num_ranks=num_ranks, folder=folder)
    options = [(where, [_best(work, stretch, budget=size) for stretch in work.stretches]) for where, size in room]
    where, chosen = max(options, key=lambda option: sum(choice.spared for choice in option[1] if choice))
    kept = [choice.kept for choice in chosen if choice]
    if not kept:
        least = min(size for choice in ideal if choice for size in choice.kept.bytes.values())
        limits = ", ".join(f"{shown(size)} {_PLACES[where]}" for where, size in room)
        return CachePlan("off", f"one boundary takes at least {shown(least)}, and there is room for {limits}")
    return CachePlan(where, _why(work, chosen, ideal, where, speed, num_ranks, num_nodes), tuple(kept))


_PLACES = {"memory": "in memory (speed.cache_memory, half of what is free)", "disk": "on disk (speed.cache_disk)"}


class _Choice(NamedTuple):
    kept: Kept
    spared: float  # tokens x blocks that are not computed


def _room(speed: Speed, *, num_ranks: int, folder: Path) -> list[tuple[Where, int]]:
    """The places that may be used, the preferred first, with the bytes that each takes."""
    found: list[tuple[Where, int]] = []
    if speed.prefix_cache != "disk" and num_ranks == 1:
        free = free_memory()
        budget = bytes_of(speed.cache_memory)
        found.append(("memory", budget if free is None else min(budget, free // 2)))
    if speed.prefix_cache != "memory" or num_ranks > 1:
        found.append(("disk", min(bytes_of(speed.cache_disk), free_disk(folder))))
    return found


def _best(work: Work, stretch: Stretch, *, budget: int | None) -> _Choice | None:
    """Take every depth of the stretch, and leave out what costs more than it spares, or does not fit."""
    depths = sorted(set(stretch.depths.values()))
    choice = _choice(work, stretch, depths)
    while depths:
        fits = budget is None or (choice is not None and sum(choice.kept.bytes.values()) <= budget)
        fewer = [_choice(work, stretch, [depth for depth in depths if depth != left]) for left in depths]
        gains = [
            ((other.spared if other else 0.0) - (choice.spared if choice else 0.0), left)
            for other, left in zip(fewer, depths, strict=True)
        ]
        gain, left = max(gains)
        if fits and gain <= 0:
            return choice
        depths.remove(left)
        choice = _choice(work, stretch, depths)
    return None


def _choice(work: Work, stretch: Stretch, depths: Sequence[int]) -> _Choice | None:
    """What is kept, and what it spares, where exactly these depths are taken."""
    reads = {phase: max((d for d in depths if d <= depth), default=0) for phase, depth in stretch.depths.items()}
    reads = {phase: depth for phase, depth in reads.items() if depth}
    spared, splits = 0.0, []
    for split, part in work.parts.items():
        read = sum(work.passes[split][phase] * depth for phase, depth in reads.items())
        filled = part.copies * max(reads.values(), default=0)
        if read >= _LEAST_PASSES * filled > 0:
            splits.append(split)
            spared += part.num_tokens * (read - filled)
    if not splits:
        return None
    sizes = {
        depth: sum(work.rows[depth].bytes(work.parts[split], itemsize=work.itemsize) for split in splits)
        for depth in sorted(set(reads.values()))
    }
    return _Choice(Kept(stretch.first, reads, tuple(splits), sizes), spared)


def _computed(work: Work) -> float:
    """Tokens x blocks that the frozen layers cost without a cache."""
    return sum(
        part.num_tokens * work.passes[split][phase] * depth
        for split, part in work.parts.items()
        for stretch in work.stretches
        for phase, depth in stretch.depths.items()
    )


def _too_few(work: Work) -> str:
    most = max(
        sum(work.passes[split][phase] * depth for phase, depth in stretch.depths.items())
        / (part.copies * max(stretch.depths.values()))
        for stretch in work.stretches
        for split, part in work.parts.items()
    )
    return f"the run goes {most:.2g} times through its frozen blocks, and the pass that fills is one: too few to pay"


def _why(
    work: Work,
    chosen: Sequence[_Choice | None],
    ideal: Sequence[_Choice | None],
    where: Where,
    speed: Speed,
    num_ranks: int,
    num_nodes: int,
) -> str:
    share = sum(choice.spared for choice in chosen if choice) / _computed(work)
    text = f"spares {share:.0%} of the forward passes through frozen blocks"
    taken, wanted = (sum(len(choice.kept.bytes) for choice in some if choice) for some in (chosen, ideal))
    if taken < wanted:
        text += f"; {taken} of {wanted} boundaries fit"
    if where == "disk" and num_ranks > 1:
        text += "; on disk, as several processes share it"
    if num_nodes > 1:
        text += f"; not used if the {num_nodes} nodes do not share the folder"
    return text
