"""Our side of evaluation: the pass over a split that ``fit`` makes."""

from __future__ import annotations

import time

from .clock import Clock
from .definition import Work
from .ours import SEED, task
from .workloads import Workload


def evaluation(work: Work, data: Workload, clock: Clock, *, warmups: int = 1) -> dict[str, float]:
    """The training split, evaluated after so many passes that warm up."""
    from finetune import Precision, Speed
    from finetune.data.sampling import MicroBatch
    from finetune.encoders import Forward
    from finetune.evaluation import evaluate
    from finetune.progress import Progress
    from finetune.randomness import keyed
    from finetune.training.micro_batches import resolve_micro_batch
    from finetune.training.placement import placed

    ours = task(data)
    store = ours.load_split("train")
    with placed(Precision(name=work.precision)) as placement, keyed(SEED, "init"):
        model = ours.load_model().module
        count = sum(parameter.numel() for parameter in model.parameters())
        text = resolve_micro_batch("auto", device=placement.device, num_parameters=count, store=store)
        forward = Forward(model, Speed()).to(placement.device)
        for repeat in range(warmups + 1):
            if repeat == warmups:
                clock.loaded()
            began = time.perf_counter()
            evaluate(
                forward,
                store,
                task=ours,
                progress=Progress(0, 1, 1),
                placement=placement,
                micro_batch=MicroBatch(text),
            )
            seconds = time.perf_counter() - began
    clock.finished()
    return {"seconds": seconds}
