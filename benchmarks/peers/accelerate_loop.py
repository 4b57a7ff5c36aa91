"""The loop of transformers' ``run_glue_no_trainer.py``: Accelerate, dynamic padding, unfused AdamW."""

from __future__ import annotations

from typing import Any

from ..clock import Clock
from ..definition import Work
from ..ours import LOG_EVERY, LR, MAX_GRAD_NORM, WARMUP, WEIGHT_DECAY, drawn
from ..workloads import Workload
from . import text_data
from .freezing import adapted, train_only

_EVALUATION_BATCH = 8  # the script's default


def steps(work: Work, data: Workload, clock: Clock) -> None:
    """The same updates as ours in the same order."""
    order = [index for update in drawn(work) for index in update]
    _run(work, data, clock, order=order)


def whole(work: Work, data: Workload, clock: Clock) -> None:
    """A whole run, shuffled; evaluates after every epoch where the row does."""
    _run(work, data, clock, order=None)
    clock.finished()


def _run(work: Work, data: Workload, clock: Clock, *, order: list[int] | None) -> None:
    import torch
    from accelerate import Accelerator
    from torch.utils.data import DataLoader
    from transformers import DataCollatorWithPadding, get_scheduler

    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    network = adapted(text_data.model(data), work)
    if work.stages:
        train_only(network, work.stages[0])
    collator = DataCollatorWithPadding(text_data.tokenizer(data))
    train = DataLoader(
        text_data.dataset(data, data.train, order=order),
        shuffle=order is None,
        collate_fn=collator,
        batch_size=work.batch_size,
    )
    validation = DataLoader(
        text_data.dataset(data, data.validation), collate_fn=collator, batch_size=_EVALUATION_BATCH
    )
    optimizer = torch.optim.AdamW(_groups(network), lr=LR)
    total = work.total_epochs * len(train)
    schedule = get_scheduler("linear", optimizer, num_warmup_steps=int(total * WARMUP), num_training_steps=total)
    network, optimizer, train, validation, schedule = accelerator.prepare(
        network, optimizer, train, validation, schedule
    )
    clock.loaded()
    step = 0
    for _ in range(work.total_epochs):
        network.train()
        for batch in train:
            clock.tick(step)
            loss = network(**batch).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)  # the script has none; the work is ours
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if step % LOG_EVERY == 0:
                loss.item()
        if work.evaluates:
            _evaluate(accelerator, network, validation)


def _evaluate(accelerator: Any, network: Any, validation: Any) -> None:
    import torch

    network.eval()
    correct = seen = 0
    for batch in validation:
        with torch.no_grad():
            outputs = network(**batch)
        predictions, references = accelerator.gather((outputs.logits.argmax(dim=-1), batch["labels"]))
        correct += int((predictions == references).sum())
        seen += len(references)


def _groups(network: Any) -> list[dict[str, Any]]:
    """As the script groups them."""
    spared = ["bias", "LayerNorm.weight"]
    named = [(name, parameter) for name, parameter in network.named_parameters() if parameter.requires_grad]
    return [
        {"params": [p for n, p in named if not any(s in n for s in spared)], "weight_decay": WEIGHT_DECAY},
        {"params": [p for n, p in named if any(s in n for s in spared)], "weight_decay": 0.0},
    ]
