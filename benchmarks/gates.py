"""The equality gate of a row: 20 updates fast, 20 updates plain, and 20 of a loop over the plain model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .clock import Clock
from .definition import Row, Work
from .ours import Clocked, arguments, task
from .workloads import Workload, workload

STEPS = 20
TOLERANCE = 1e-4  # of the loss, relative; fp32
_EXAMPLES, _BATCH = 40, 8  # five updates an epoch, so that later epochs, from a cache, are among the 20


def gate_work(work: Work) -> Work:
    """The row's work, small: the same model, lengths, stages and adapters, in fp32."""
    epochs = STEPS // (_EXAMPLES // _BATCH) // max(1, len(work.stages))
    small = {"batch_size": _BATCH, "examples": _EXAMPLES, "validation": 16, "epochs": epochs, "precision": "fp32"}
    return dataclasses.replace(work, **small, warmup_steps=0, timed_steps=0, evaluates=False, saves_every=0)


def gate(row: Row, root: Path) -> dict[str, Any]:
    """The largest relative differences between the losses of the three, without dropout, and whether they pass.

    Where layers are frozen, also between what the cache would keep and what the plain model computes there.
    """
    import torch

    from finetune import PLAIN

    from .peers import torch_loop

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    work = gate_work(row.work)
    data = workload(work, root, dropout=False)
    fast, plain = recorded(work, data, speed=None), recorded(work, data, speed=PLAIN)
    loop = torch_loop.losses(work, data)
    found = {"fast_plain": difference(fast, plain), "fast_loop": difference(fast, loop)}
    if work.stages:
        found["features"] = features(work, data)
    passed = len(fast) == len(plain) == len(loop) == STEPS and max(found.values()) < TOLERANCE
    return {**found, "steps": len(fast), "passed": passed}


class Recording(Clocked):
    """A task that keeps the loss of every update; one of eight examples is one forward."""

    def __init__(self, task: Any) -> None:
        super().__init__(task, Clock(first=-1, last=-1))
        self.losses: dict[int, float] = {}

    def forward(self, model: Any, batch: Any, progress: Any) -> Any:
        """As the task does."""
        import torch

        output = super().forward(model, batch, progress)
        if torch.is_grad_enabled() and output.losses is not None:
            # The last forward of a step counts: the trial forward before a run looks like one of step 0.
            self.losses[progress.step] = float(output.losses.detach().double().mean())
        return output


def recorded(work: Work, data: Workload, *, speed: Any) -> list[float]:
    """The loss of every update of one of our runs."""
    from finetune import fit

    recording = Recording(task(data))
    fit(recording, **arguments(work, speed))
    return [loss for _, loss in sorted(recording.losses.items())]


def difference(first: Sequence[float], second: Sequence[float]) -> float:
    """The largest relative difference."""
    return max((abs(a - b) / max(abs(b), 1e-12) for a, b in zip(first, second, strict=False)), default=float("inf"))


def features(work: Work, data: Workload) -> float:
    """What the topmost frozen block gives, by our forward and by the plain model: difference over largest value."""
    import torch

    from finetune.data.store import Draw
    from finetune.encoders import Forward, padded
    from finetune.layers import trunk_blocks

    ours = task(data)
    forward = Forward(ours.load_model().module).eval()
    depth = data.shape.layers - min(work.stages)
    if forward.family is None or depth == 0:
        return 0.0  # nothing is kept
    store = ours.load_split("train")
    batch = store.batch([Draw(0, 0, index) for index in range(len(store))])
    kept: list[Any] = []
    handle = trunk_blocks(forward.model)[depth - 1].register_forward_hook(lambda *call: kept.append(call[-1]))
    with torch.no_grad():
        forward.plain(batch)
        handle.remove()
        found = forward(batch, boundaries=(depth,))[depth]
    expected = kept[0] if isinstance(kept[0], torch.Tensor) else kept[0][0]
    if found.ndim == 2 and len(found) == len(store):  # first tokens are all that is kept
        expected = expected[:, 0]
    elif "lengths" in batch:
        expected = expected[padded(batch, forward.pad_id)["attention_mask"].bool()]
    return float((found - expected).abs().max() / expected.abs().max())
