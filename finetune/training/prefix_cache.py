"""What the phases of a run read in place of their inputs: activations of frozen layers, taken once."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from ..cached_arrays import CacheUnavailable
from ..data.store import Store
from ..errors import ConfigError
from ..prefix.deciding import Kept
from ..prefix.sizes import shown
from ..prefix.source import Source
from ..prefix.store import CachedStore
from .memory import lacks_memory
from .modes import reshard, set_modes
from .placement import Placement
from .prefix_check import why_not
from .prefix_filling import Name, array_form, fill, label, shared_entries

if TYPE_CHECKING:
    from ..checkpoints.log import Log
    from ..progress import Progress
    from .prepare import Prepared

_CHECKED = 4  # examples on which the task is tried out


class PrefixCache:
    """What the frozen layers of a run give for its examples.

    ``prepared.cached`` says what is kept. Whatever goes wrong with keeping it costs a warning and a line in the
    log, and the run computes its frozen layers each time.

    Args:
        prepared: The run.
        placement: Where it runs; every rank calls ``enter`` with the same phase.
        log: Of a run that has a folder, on rank 0.
        tell: Shows a line to the user.
    """

    def __init__(
        self, prepared: Prepared, placement: Placement, *, log: Log | None, tell: Callable[[str], None]
    ) -> None:
        self._prepared = prepared
        self._placement = placement
        self._log = log
        self._tell = tell
        views, seed = prepared.config.speed.views, prepared.config.seed
        stores = {"train": prepared.train, "validation": prepared.validation}
        self._sources = {split: Source(store, views, seed) for split, store in stores.items()}
        self._kept: Kept | None = None  # what the arrays are of
        self._arrays: dict[Name, np.ndarray] = {}
        self._stores: dict[Name, CachedStore] = {}
        self._given_up = prepared.cached.where == "off"
        if self._given_up and log is not None:
            log.append({"prefix_cache": "off", "why": prepared.cached.why})

    def enter(
        self,
        phase: int,
        wrapped: nn.Module,
        *,
        progress: Progress,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """Have ready what a phase and those after it read, and let go of what only earlier ones read.

        Called when ``requires_grad`` is set for the phase, and before its first update or evaluation in this
        process; afterwards the modes are those of ``set_modes``. A pass that is to stop leaves nothing behind.

        Args:
            phase: That begins, or goes on after a resume.
            wrapped: The module to call in it.
            progress: The clock.
            is_stopping: Whether the run was asked to stop: the same on every rank, which all ask together.
        """
        kept = None if self._given_up else self._prepared.cached.of(phase)
        if kept is not self._kept:
            self.let_go()
        if kept is None:
            return
        needed = {depth for later, depth in kept.depths.items() if later >= phase}
        if self._kept is None:
            try:
                self._check(kept, wrapped, phase, progress)
                self._take(kept, sorted(needed), wrapped, is_stopping)
            except CacheUnavailable as refusal:
                self._give_up(str(refusal))
            except Exception as fault:
                if not lacks_memory(fault):
                    raise
                self._do_without_memory(fault)
            finally:
                reshard(self._prepared.forward)
                set_modes(self._prepared.forward, self._prepared.blocks)
        self._arrays = {name: array for name, array in self._arrays.items() if name[1] in needed}
        self._stores = {name: store for name, store in self._stores.items() if name[1] in needed}

    def store_for(self, phase: int, split: str) -> Store:
        """What a phase reads of ``"train"`` or ``"validation"``: from its boundary on, or the split itself."""
        source = self._sources[split]
        depth = self._kept.depths.get(phase, 0) if self._kept is not None else 0
        if (split, depth) not in self._arrays:
            return source.store
        if (split, depth) not in self._stores:
            self._stores[split, depth] = source.cached(
                self._arrays[split, depth],
                self._prepared.cached.rows[depth],
                depth=depth,
                is_text=self._prepared.forward.takes_text,
            )
        return self._stores[split, depth]  # type: ignore[return-value]  # its fields are read-only

    def _check(self, kept: Kept, wrapped: nn.Module, phase: int, progress: Progress) -> None:
        """Try the task out on a few examples.

        Raises:
            CacheUnavailable: It does not go on from kept activations as from its inputs.
        """
        source = self._sources[kept.splits[0]]
        fault = why_not(
            wrapped,
            self._prepared,
            self._placement,
            store=source.store,
            draws=source.draws(range(min(_CHECKED, len(source.store)))),
            depth=kept.depths[phase],
            progress=progress,
        )
        if fault:
            raise CacheUnavailable(fault)

    def _take(self, kept: Kept, depths: Sequence[int], wrapped: nn.Module, is_stopping: Callable[[], bool]) -> None:
        """Find on disk, or compute in one pass over each split, what is kept at these depths."""
        began, where = time.monotonic(), self._prepared.cached.where
        names = [(split, depth) for split in kept.splits for depth in depths]
        entries = None
        if where == "disk":
            entries = shared_entries(self._prepared, self._placement, sources=self._sources, names=names)
            arrays = {name: entries.arrays[label(name)] for name in names}
            missing = [name for name in names if label(name) in entries.missing]
        else:
            forms = {name: array_form(self._prepared, self._sources[name[0]], name[1]) for name in names}
            arrays = {name: np.empty(*form) for name, form in forms.items()}
            missing = names
        if missing:
            size = shown(sum(arrays[name].nbytes for name in missing))
            self._tell(f"computing the frozen layers once: {size} {'on' if entries else 'in'} {where}")
        for split in kept.splits:
            wanted = {depth: arrays[name, depth] for name, depth in missing if name == split}
            if not fill(
                wrapped,
                self._prepared,
                self._placement,
                source=self._sources[split],
                arrays=wanted,
                is_stopping=is_stopping,
            ):
                return entries.discard() if entries is not None else None
        if entries is not None:
            entries.commit()
            arrays = {name: entries.arrays[label(name)] for name in names}
        self._arrays, self._kept = arrays, kept
        note = {"prefix_cache": "filled" if missing else "found", "where": where}
        counted = {
            "depths": list(depths),
            "splits": list(kept.splits),
            "bytes": sum(a.nbytes for a in arrays.values()),
        }
        if self._log is not None:
            self._log.append({**note, **counted, "wall_seconds": round(time.monotonic() - began, 3)})

    def let_go(self) -> None:
        """Drop what is kept: what was frozen is not what it was. The next ``enter`` takes it anew."""
        self._kept, self._arrays, self._stores = None, {}, {}

    def _do_without_memory(self, fault: Exception) -> None:
        if self._placement.ranks.count > 1:  # one alone may lack it, and the others wait for its part
            error = ConfigError("out of memory while the frozen layers were computed. Set speed.prefix_cache: off.")
            error.is_own = True
            raise error from fault
        self._give_up("there is not enough memory")

    def _give_up(self, why: str) -> None:
        self.let_go()
        self._given_up = True
        if self._placement.ranks.is_first:
            warnings.warn(f"frozen layers are computed each time: {why}", stacklevel=3)
        if self._log is not None:
            self._log.append({"prefix_cache": "off", "why": why})
