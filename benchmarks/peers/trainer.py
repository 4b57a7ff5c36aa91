"""``transformers.Trainer``, with its defaults and with its best flags."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

from ..clock import Clock
from ..definition import Work
from ..ours import LOG_EVERY, LR, MAX_GRAD_NORM, SEED, WARMUP, WEIGHT_DECAY, drawn
from ..workloads import Workload
from . import images, text_data
from .freezing import adapted, stage_of, train_only

# Of what its documentation offers for speed on this work, with batches padded to a multiple of 8.
BEST = {"train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused", "logging_nan_inf_filter": False}


def steps(work: Work, data: Workload, clock: Clock, *, padding: text_data.Padding = "batch") -> None:
    """Defaults, over the same updates as ours in the same order; padded as ``padding`` says."""
    network = _network(work, data)
    order = [index for update in drawn(work) for index in update]
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(
            network,
            data,
            order=order,
            padding=padding,
            callbacks=[ticking(clock)],
            flags={**common(work, folder), "train_sampling_strategy": "sequential"},
        )
        clock.loaded()
        trainer.train()


def grouped_steps(work: Work, data: Workload, clock: Clock) -> None:
    """Best flags: warmed up on the first updates, then one epoch over the examples of the window, grouped by length.

    A sampler that groups chooses its own order, so the window is exactly the same examples, not the same updates.
    """
    import torch

    network = _network(work, data)
    order = [index for update in drawn(work) for index in update]
    split = work.warmup_steps * work.batch_size
    window = order[split : split + work.timed_steps * work.batch_size]
    with tempfile.TemporaryDirectory() as folder:
        flags = {**common(work, folder), **BEST, "dataloader_pin_memory": torch.cuda.is_available()}
        warmup = _trainer(network, data, order=order[:split], multiple_of=8, flags=flags)
        clock.loaded()
        warmup.train()
        last = ticking(clock, offset=work.warmup_steps, ends_at=work.timed_steps)
        trainer = _trainer(network, data, order=window, multiple_of=8, callbacks=[last], flags=flags)
        trainer.optimizer = warmup.optimizer.optimizer  # with its moments, as in mid-run
        trainer.train()


def whole(work: Work, data: Workload, clock: Clock) -> None:
    """A whole run with defaults; evaluates after every epoch where the row does."""
    network = _network(work, data)
    callbacks = []
    if len(work.stages) == 1:
        train_only(network, work.stages[0])
    elif work.stages:
        callbacks.append(_unfreezing(work))
    with tempfile.TemporaryDirectory() as folder:
        flags = common(work, folder) | {
            "num_train_epochs": work.total_epochs,
            "eval_strategy": "epoch" if work.evaluates else "no",
            "logging_strategy": "no",  # ours writes no log either where it has no run folder
        }
        trainer = _trainer(network, data, callbacks=callbacks, flags=flags)
        clock.loaded()
        trainer.train()
        clock.finished()


def evaluation(work: Work, data: Workload, clock: Clock) -> dict[str, float]:
    """``Trainer.evaluate`` on the training split, after a first pass that warms up."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(_network(work, data), data, flags=common(work, folder))
        trainer.evaluate(trainer.train_dataset)
        clock.loaded()
        began = time.perf_counter()
        trainer.evaluate(trainer.train_dataset)
        seconds = time.perf_counter() - began
        clock.finished()
    return {"seconds": seconds}


def saving_steps(work: Work, data: Workload, clock: Clock) -> None:
    """Defaults, with a checkpoint every so many updates."""
    with tempfile.TemporaryDirectory() as folder:
        flags = common(work, folder) | {
            "train_sampling_strategy": "sequential",
            "save_strategy": "steps",
            "save_steps": work.saves_every,
            "save_total_limit": 1,
        }
        trainer = _trainer(_network(work, data), data, callbacks=[ticking(clock)], flags=flags)
        clock.loaded()
        trainer.train()


def common(work: Work, folder: str) -> dict[str, Any]:
    """The arguments that make the work the same; all others are Trainer's defaults."""
    import torch

    return {
        "output_dir": folder,
        "num_train_epochs": 1,
        "per_device_train_batch_size": work.batch_size,
        "learning_rate": LR,
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_GRAD_NORM,
        "lr_scheduler_type": "linear",
        "warmup_steps": WARMUP,
        "logging_steps": LOG_EVERY,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": "none",
        "seed": SEED,
        "bf16": work.precision == "bf16",
        "use_cpu": not torch.cuda.is_available(),
    }


def ticking(clock: Clock, *, offset: int = 0, ends_at: int | None = None) -> Any:
    """A callback that tells the clock of every update; after ``ends_at`` of them the window ends."""
    from transformers import TrainerCallback

    class Ticking(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            clock.tick(offset + state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == ends_at:
                clock.tick(offset + state.global_step)

    return Ticking()


def _unfreezing(work: Work) -> Any:
    """Gradual unfreezing that really trains: the optimizer is built while everything requires gradients."""
    from transformers import TrainerCallback

    class Unfreezing(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            train_only(model, stage_of(work, round(state.epoch)))

    return Unfreezing()


def _network(work: Work, data: Workload) -> Any:
    network = images.model(data) if data.shape.is_image else text_data.model(data)
    return adapted(network, work)


def _trainer(
    network: Any,
    data: Workload,
    *,
    flags: dict[str, Any],
    order: Sequence[int] | None = None,
    padding: text_data.Padding = "batch",
    multiple_of: int | None = None,
    callbacks: Sequence[Any] = (),
) -> Any:
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, default_data_collator
    from transformers.trainer_callback import PrinterCallback

    if data.shape.is_image:
        from torch.utils.data import Subset

        train, validation = (images.dataset(data, split, network) for split in (data.train, data.validation))
        train = train if order is None else Subset(train, list(order))
        kind: dict[str, Any] = {"data_collator": images.collated}
        network = images.classifier(network)
    else:
        words = text_data.tokenizer(data)
        train = text_data.dataset(data, data.train, padding=padding, order=order)
        validation = text_data.dataset(data, data.validation, padding=padding)
        collator = DataCollatorWithPadding(words, pad_to_multiple_of=multiple_of)
        kind = {
            "data_collator": default_data_collator if padding == "max_length" else collator,
            "processing_class": words,
        }
    arguments = TrainingArguments(**flags, remove_unused_columns=not data.shape.is_image)
    trainer = Trainer(network, arguments, train_dataset=train, eval_dataset=validation, **kind)
    trainer.remove_callback(PrinterCallback)  # it prints to the terminal, which is not the work
    for callback in callbacks:
        trainer.add_callback(callback)
    return trainer
