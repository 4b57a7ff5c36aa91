"""The pass through the frozen layers, over all ranks, and what names its results on disk."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..cached_arrays import ArrayCache, folder_of
from ..data.loading import updates
from ..data.store import Draw, moved
from ..encoders import Forward
from ..environment import hardware, versions
from ..layers import layer_groups
from ..prefix.keys import content_digest, entry_key, model_facts, weight_digests
from ..prefix.planning import as_model_takes, kept_type
from ..prefix.source import Source
from ..speed import bytes_of
from .placement import Placement
from .sharding import whole
from .shared_entries import Form, SharedEntries

if TYPE_CHECKING:
    from ..data.store import Batch
    from .prepare import Prepared

Name = tuple[str, int]  # split and depth of an array

_STOP_EVERY = 16  # batches between two looks at whether the run is to stop
# Of a batch without gradients: (tokens, texts, images). On a CPU larger ones leave its caches.
_BATCH = {"cuda": (65536, 4096, 256), "cpu": (2048, 512, 16)}


def fill(
    wrapped: nn.Module,
    prepared: Prepared,
    placement: Placement,
    *,
    source: Source,
    arrays: Mapping[int, np.ndarray],
    is_stopping: Callable[[], bool],
) -> bool:
    """Run the frozen layers over a split, its batches dealt to the ranks.

    Args:
        wrapped: The module to call; every rank calls it equally often.
        prepared: The run.
        placement: Where it runs.
        source: The split.
        arrays: What to fill, by depth; empty for nothing.
        is_stopping: Whether the run was asked to stop, the same on every rank.

    Returns:
        Whether all is filled; False where the run is to stop.
    """
    if not arrays:
        return True
    ranks, rows = placement.ranks, prepared.cached.rows
    tokens, texts, images = _BATCH[placement.device.type]
    batches = source.batches(tokens=tokens, examples=texts if prepared.forward.takes_text else images)
    mine = batches[ranks.index :: ranks.count]
    prepared.forward.eval()
    made = _inputs(prepared, placement, source=source, mine=mine, num_rounds=-(-len(batches) // ranks.count))
    with closing(made), torch.no_grad():  # not inference_mode: its tensors can serve no backward
        for number, batch in zip(count(), made):
            if number % _STOP_EVERY == 0 and is_stopping():
                return False
            with placement.autocast():
                found = wrapped(batch, boundaries=tuple(sorted(arrays)))
            if number >= len(mine):
                continue  # a rank short of batches ran an example that is another's
            for depth, array in arrays.items():
                source.write(array, rows[depth], mine[number], _numbers(found[depth], array.dtype))
    return True


def array_form(prepared: Prepared, source: Source, depth: int) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of what is kept of a split at a depth."""
    dtype = np.dtype(kept_type(prepared.forward, prepared.config.speed))
    return source.shape(prepared.cached.rows[depth]), dtype


def shared_entries(
    prepared: Prepared, placement: Placement, *, sources: Mapping[str, Source], names: Sequence[Name]
) -> SharedEntries:
    """Entries of the cache folder by what they are computed from; their names are ``label(name)``.

    Raises:
        CacheUnavailable: They cannot be had.
    """
    speed, forward, ranks = prepared.config.speed, prepared.forward, placement.ranks
    assert forward.family is not None
    below = weight_digests(_prefix_tensors(forward), num_blocks=len(forward.family.blocks))
    content: dict[str, str] = {}
    if ranks.is_first:
        used = {split: sources[split] for split, _ in names}
        content = {split: content_digest(one.store, views=one.num_views, seed=one.seed) for split, one in used.items()}
    facts: list[Any] = [
        versions(),
        [placement.precision, speed.packed, speed.first_token, speed.cache_dtype, speed.merged_lora],
        # The last bits of an activation depend on these.
        [placement.device.type, hardware(), torch.get_num_threads(), torch.backends.cpu.get_cpu_capability()],
        model_facts(forward.model),
    ]
    forms = {}
    for split, depth in names:
        shape, dtype = array_form(prepared, sources[split], depth)
        key = entry_key(*facts, below[depth], content.get(split), depth, list(shape), dtype.str)
        forms[label((split, depth))] = Form(key, shape, dtype)
    cache = ArrayCache(folder_of(speed.cache_folder), max_bytes=bytes_of(speed.cache_disk))
    return SharedEntries(cache, ranks, ranks.first(forms))


def label(name: Name) -> str:
    """``"train.3"``."""
    return f"{name[0]}.{name[1]}"


def _inputs(
    prepared: Prepared, placement: Placement, *, source: Source, mine: Sequence[Sequence[int]], num_rounds: int
) -> Generator[Batch, None, None]:
    """This rank's batches on its device; an example that counts for nothing where it has none left."""

    def cuts(number: int) -> list[Sequence[Draw]]:
        return [source.draws(mine[number]) if number < len(mine) else []]

    workers, device = prepared.config.workers, placement.device
    with closing(updates(source.store, cuts, steps=range(num_rounds), workers=workers, device=device)) as made:
        for (batch,) in made:
            yield moved(as_model_takes(batch, prepared.forward), device)


def _numbers(rows: Tensor, dtype: np.dtype) -> np.ndarray:
    """As they are kept; bf16 as its bits."""
    if dtype == np.uint16:
        return rows.bfloat16().cpu().view(torch.int16).numpy().view(np.uint16)
    return rows.to(torch.float64 if dtype == np.float64 else torch.float32).cpu().numpy()


def _prefix_tensors(forward: Forward) -> Iterator[tuple[int, str, Tensor]]:
    """(block, name, whole tensor) of weights and buffers, from below the trunk (block -1) up; a collective."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on shared layers, which the plan's own groups have said
        groups = layer_groups(forward.model)
    below = {name for group in groups if group.name == "embeddings" for name in group.parameters}
    assert forward.family is not None
    blocks = forward.family.blocks
    inside = {id(tensor) for block in blocks for tensor in block.buffers()}
    for name, parameter in forward.model.named_parameters():
        if name in below:
            yield -1, name, whole(parameter)
    for name, buffer in forward.model.named_buffers():
        if id(buffer) not in inside:
            yield -1, name, whole(buffer)
    for number, block in enumerate(blocks):
        for name, tensor in (*block.named_parameters(), *block.named_buffers()):
            yield number, name, whole(tensor)
