"""What a loop costs beyond a bare one: both in one process, in turns, as the difference is a fraction of a step."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

from . import ours
from .clock import Clock
from .definition import Run, Work
from .ours import LR, MAX_GRAD_NORM, drawn
from .peers import text_data, torch_loop
from .workloads import Workload

_TURNS = 3


def above_bare(run: Run) -> Callable[[Work, Workload, Clock], dict[str, float]]:
    """Median microseconds of a step of ``run``, less those of a bare loop over the same ready batches."""

    def measured(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
        bare, looped = [], []
        for _ in range(_TURNS):
            bare += bare_gaps(work, data)
            turn = Clock(first=work.warmup_steps, last=work.warmup_steps + work.timed_steps)
            run(work, data, turn)
            looped += turn.gaps()
        medians = statistics.median(looped), statistics.median(bare)
        return {
            "overhead_us": 1e6 * (medians[0] - medians[1]),
            "bare_us": 1e6 * medians[1],
            "seconds": sum(looped),
        }

    return measured


def bare_gaps(work: Work, data: Workload) -> list[float]:
    """Seconds of each step of the shortest loop there is: the batches are tensors already, nothing is read back."""
    import torch
    from transformers import DataCollatorWithPadding

    network = text_data.model(data).train().to(torch_loop.device())
    optimizer = torch_loop.adamw(network, fused=True)
    rows, collator = text_data.dataset(data, data.train), DataCollatorWithPadding(text_data.tokenizer(data))
    batches = [
        {name: tensor.to(torch_loop.device()) for name, tensor in collator([rows[i] for i in update]).items()}
        for update in drawn(work)
    ]
    parameters = list(network.parameters())
    began = []
    for batch in batches:
        began.append(time.perf_counter())
        for group in optimizer.param_groups:
            group["lr"] = LR
        network(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    gaps = [later - earlier for earlier, later in zip(began, began[1:], strict=False)]
    return gaps[work.warmup_steps :]


def our_loop(work: Work, data: Workload, clock: Clock) -> None:
    """``fit`` with the forward of the bare loop, so that only the loops differ."""
    from finetune import Speed

    same: dict[str, Any] = {"packed": "off", "first_token": "off", "used_vocabulary": "off"}
    ours.steps(work, data, clock, speed=dataclasses.replace(Speed(), **same))


def stall(run: Run) -> Callable[[Work, Workload, Clock], dict[str, float]]:
    """Seconds by which an update with a save after it is longer than the others."""

    def measured(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
        run(work, data, clock)
        gaps = list(enumerate(clock.gaps(), start=work.warmup_steps))
        saving = [gap for step, gap in gaps if (step + 1) % work.saves_every == 0]
        others = statistics.median(gap for step, gap in gaps if (step + 1) % work.saves_every)
        # What a save does beside the training slows the updates after it: that is in here, and not in the stall.
        spread = (sum(gap for _, gap in gaps) - len(gaps) * min(gap for _, gap in gaps)) / len(saving)
        return {"stall": statistics.mean(saving) - others, "all_slowdown": spread, "step_seconds": others}

    return measured
