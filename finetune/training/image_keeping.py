"""Which images a run decodes once and keeps, made ready before it trains."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..cached_arrays import ArrayCache, CacheUnavailable, folder_of
from ..data.image_store import ImageStore
from ..data.kept_images import KeptImages
from ..data.store import Store
from ..prefix.boundaries import passes
from ..prefix.deciding import CachePlan
from ..prefix.sizes import shown
from ..speed import Speed, bytes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..checkpoints.log import Log
    from ..plans import Plan
    from .placement import Placement
    from .prepare import Prepared

# Making costs one decoding and some writing; a run that decodes each image hardly more than once gains nothing.
_LEAST_PASSES = 1.5


def plan_images(
    stores: Mapping[str, Store], plan: Plan, *, evaluations: Sequence[int], cached: CachePlan, speed: Speed
) -> dict[str, Any]:
    """What ``plan.json`` says of images that are kept, by split: ``bytes`` and ``why``, bytes 0 where none are.

    Empty for a run without images. A run that finds what an earlier one kept reads that, whatever is said here.

    Args:
        stores: ``"train"`` and ``"validation"``.
        plan: Of the run.
        evaluations: Steps after which the run evaluates.
        cached: What is kept of the frozen layers, which then need their images once.
        speed: What the user allows.
    """
    counts = _decodings(plan, evaluations, cached)
    found = {}
    for split, store in stores.items():
        if isinstance(store, ImageStore):
            why = _why_not(store, counts[split], speed)
            found[split] = {
                "bytes": 0 if why else _estimate(store, speed),
                "why": why or f"each is read {counts[split]:.2g} times and decoded once",
            }
    return found


def keep_images(
    prepared: Prepared,
    placement: Placement,
    *,
    evaluations: Sequence[int],
    log: Log | None = None,
    tell: Callable[[str], None] = lambda line: None,
    is_stopping: Callable[[], bool] = lambda: False,
) -> Prepared:
    """The run with its images decoded: found from an earlier run, or made now by rank 0. Called on every rank.

    What cannot be kept is decoded for each batch.

    Args:
        prepared: The run.
        placement: Where it runs.
        evaluations: Steps after which it evaluates.
        log: Of a run that has a folder, on rank 0.
        tell: Shows a line to the user.
        is_stopping: Whether the run was asked to stop; then what is not ready is left.
    """
    counts = _decodings(prepared.plan, evaluations, prepared.cached)
    changed: dict[str, Store] = {}
    for split, store in (("train", prepared.train), ("validation", prepared.validation)):
        if not isinstance(store, ImageStore):
            continue
        began = time.monotonic()
        kept, what = _kept(store, counts[split], prepared.config.speed, placement, tell, is_stopping)
        changed[split] = replace(store, kept=kept)
        if log is not None:
            size = int(kept.bytes.nbytes) if kept is not None else 0
            seconds = round(time.monotonic() - began, 3)
            log.append({"image_store": what, "split": split, "bytes": size, "wall_seconds": seconds})
    return prepared._replace(**changed) if changed else prepared  # type: ignore[arg-type]


def _kept(
    store: ImageStore,
    count: float,
    speed: Speed,
    placement: Placement,
    tell: Callable[[str], None],
    is_stopping: Callable[[], bool],
) -> tuple[KeptImages | None, str]:
    """The images on this rank, and what became of it: ``found``, ``made``, or why not, equal on every rank."""
    if why := _why_not(store, math.inf, speed):
        return None, why
    keeping = store.keeping(is_resized=speed.image_store == "resized")
    cache = ArrayCache(folder_of(speed.cache_folder), max_bytes=bytes_of(speed.cache_disk))
    mine: KeptImages | None = None

    def have() -> str:
        nonlocal mine
        mine = keeping.find(cache)
        if mine is not None:
            return "found"
        if why := _why_not(store, count, speed):
            return why
        tell(f"decodes {len(store)} images once: {shown(keeping.estimate())} in {cache.folder}")
        try:
            mine = keeping.make(cache, is_stopping=is_stopping)
        except CacheUnavailable as refusal:
            return str(refusal)
        return "the run was asked to stop" if mine is None else "made"

    what = placement.ranks.on_first(have)
    if what in ("found", "made") and not placement.ranks.is_first:
        mine = keeping.find(cache)  # None on a machine that does not share the folder: it decodes, to the same bytes
    return mine, what


def _why_not(store: ImageStore, count: float, speed: Speed) -> str:
    """Why the images of a split are not kept; empty where they are."""
    if speed.image_store == "off":
        return "speed.image_store is off"
    if not store.varies and not store.pixels.is_split:
        return "the model's image processor scales images before it resizes them"
    if count < _LEAST_PASSES:
        return f"the run decodes each image {count:.2g} times: too few to pay"
    needed, most = _estimate(store, speed), bytes_of(speed.cache_disk)
    if needed > most:
        smaller = "; speed.image_store: resized keeps smaller ones" if store.varies else ""
        return f"they take about {shown(needed)}, and speed.cache_disk is {shown(most)}{smaller}"
    return ""


def _estimate(store: ImageStore, speed: Speed) -> int:
    return store.keeping(is_resized=speed.image_store == "resized").estimate()


def _decodings(plan: Plan, evaluations: Sequence[int], cached: CachePlan) -> dict[str, float]:
    """How often the run goes through the images of each split; once where a phase reads kept activations."""
    counts = {}
    for split, by_phase in passes(plan, evaluations).items():
        reads = [number for number in range(len(by_phase)) if _reads(cached, number, split)]
        read = sum(count for number, count in enumerate(by_phase) if number not in reads)
        counts[split] = read + len({id(cached.of(number)) for number in reads})
    return counts


def _reads(cached: CachePlan, phase: int, split: str) -> bool:
    kept = cached.of(phase)
    return kept is not None and split in kept.splits
