"""What it costs that a checkpoint is summed, synced and verified, and that a run goes on where it stood."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .clock import Clock
from .definition import Work
from .workloads import Workload

_NUM_BYTES = 500_000_000
_TENSORS = 125  # of 1,000,000 numbers
_TURNS = 3
_EXAMPLES, _BATCH = 1_000_000, 32

Write = Callable[[dict[str, Any], Path], Path]
Measured = Callable[[Work, Workload, Clock], dict[str, float]]


def ours(tensors: dict[str, Any], folder: Path) -> Path:
    """A whole checkpoint: no weight spoiled, checksums, a manifest, everything on the disk when it returns."""
    from finetune.checkpoints.writing import write_checkpoint
    from finetune.training.checkpoint_contents import not_finite

    assert not not_finite(tensors, tensors)
    return write_checkpoint(folder, 1, tensors={"model": tensors}, documents={}, run_id="r") / "model.safetensors"


def plain(tensors: dict[str, Any], folder: Path) -> Path:
    """The same bytes by the library; it returns when the system has them, and they may be on no disk yet."""
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def synced(tensors: dict[str, Any], folder: Path) -> Path:
    """The same, and they are on the disk when it returns."""
    path = plain(tensors, folder)
    for each in (path, folder):
        handle = os.open(each, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return path


def writing(write: Write) -> Measured:
    """Median seconds of writing 500 MB; what was written is read back and compared."""

    def measured(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
        import torch
        from safetensors.torch import load_file

        tensors, found, worked = _tensors(), [], []
        for turn in range(_TURNS + 1):  # the first warms up
            with tempfile.TemporaryDirectory(dir=data.folder) as folder:
                os.sync()
                began, busy = time.perf_counter(), time.process_time()
                path = write(tensors, Path(folder))
                found.append(time.perf_counter() - began)
                worked.append(time.process_time() - busy)
                if turn == 0:
                    read = load_file(path)
                    assert read.keys() == tensors.keys()
                    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
        return {"seconds": statistics.median(found[1:]), "cpu_seconds": statistics.median(worked[1:])}

    return measured


def verifying(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
    """Seconds a GB of reading a checkpoint with all its checksums."""
    from finetune.checkpoints.reading import newest_good

    found, worked = [], []
    with tempfile.TemporaryDirectory(dir=data.folder) as folder:
        ours(_tensors(), Path(folder))
        for _ in range(_TURNS):
            began, busy = time.perf_counter(), time.process_time()
            assert newest_good(Path(folder)) is not None
            found.append(time.perf_counter() - began)
            worked.append(time.process_time() - busy)
    seconds, busy = statistics.median(found), statistics.median(worked)
    gb = _NUM_BYTES / 1e9
    return {"seconds": seconds, "seconds_per_gb": seconds / gb, "cpu_seconds_per_gb": busy / gb}


def first_batch(step: int) -> Measured:
    """Seconds from nothing to the batch of an update, of a million examples in random order."""

    def measured(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
        from finetune.data.loading import updates
        from finetune.data.sampling import Sampler

        found = []
        for seed in range(_TURNS + 1):
            began = time.perf_counter()
            sampler = Sampler(_EXAMPLES, batch_size=_BATCH, seed=seed)
            batches = updates(
                _Numbers(), lambda at, of=sampler: [of.draws(at)], steps=range(step, step + 9), workers=0
            )
            assert len(next(batches)[0]["index"]) == _BATCH
            found.append(time.perf_counter() - began)
        return {"seconds": statistics.median(found[1:])}

    return measured


class _Numbers:
    """A store without anything to read."""

    def batch(self, draws: Any) -> dict[str, Any]:
        """Which examples these are."""
        import torch

        from finetune.data.store import indices_of

        return {"index": torch.from_numpy(indices_of(draws))}


def _tensors() -> dict[str, Any]:
    import torch

    made = torch.Generator().manual_seed(0)
    size = _NUM_BYTES // _TENSORS // 4
    return {f"layer.{number}": torch.randn(size, generator=made) for number in range(_TENSORS)}
