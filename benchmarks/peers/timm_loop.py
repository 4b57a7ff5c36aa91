"""The loop of timm's ``train.py``, of timm's own pieces: timm has no trainer to call."""

from __future__ import annotations

import contextlib
from typing import Any

from ..clock import Clock
from ..definition import Work
from ..ours import LR, MAX_GRAD_NORM, WARMUP, WEIGHT_DECAY
from ..workloads import Workload
from . import images
from .freezing import stage_of, train_only


def steps(work: Work, data: Workload, clock: Clock) -> None:
    """Some updates; all images cost the same, so their order does not matter."""
    _run(work, data, clock)


def whole(work: Work, data: Workload, clock: Clock) -> None:
    """A whole run."""
    _run(work, data, clock)
    clock.finished()


def _run(work: Work, data: Workload, clock: Clock) -> None:
    import torch
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter, dispatch_clip_grad

    from .torch_loop import device

    network = images.model(data).to(device())
    loader = _loader(work, data, network)
    if work.stages:
        train_only(network, stage_of(work, 0))
    optimizer = create_optimizer_v2(network, opt="adamw", lr=LR, weight_decay=WEIGHT_DECAY)
    total = work.total_epochs * len(loader)
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=work.total_epochs,
        warmup_epochs=max(1, int(work.total_epochs * WARMUP)) if work.total_epochs > 1 else 0,
        step_on_epochs=False,
        updates_per_epoch=len(loader),
    )
    loss_of = torch.nn.CrossEntropyLoss().to(device())
    autocast = torch.autocast("cuda", dtype=torch.bfloat16) if work.precision == "bf16" else contextlib.nullcontext()
    clock.loaded()
    step = 0
    for epoch in range(work.total_epochs):
        network.train()
        losses = AverageMeter()
        for pixels, labels in loader:
            clock.tick(step)
            pixels, labels = pixels.to(device()), labels.to(device())
            with autocast:
                loss = loss_of(network(pixels), labels)
            loss.backward()
            dispatch_clip_grad(network.parameters(), MAX_GRAD_NORM, mode="norm")
            optimizer.step()
            optimizer.zero_grad()
            losses.update(loss.item(), len(labels))  # every update, as train.py does
            step += 1
            schedule.step_update(num_updates=step, metric=losses.avg)
        schedule.step(epoch + 1)
    assert step == total


def _loader(work: Work, data: Workload, network: Any) -> Any:
    import torch
    from timm.data import create_dataset, create_loader, resolve_model_data_config

    on_gpu = torch.cuda.is_available()
    config = resolve_model_data_config(network)
    return create_loader(
        create_dataset("", root=str(data.train)),
        input_size=config["input_size"],
        batch_size=work.batch_size,
        is_training=True,
        no_aug=True,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        num_workers=4 if on_gpu else 0,  # its default; loader processes only compete with two busy cores
        use_prefetcher=on_gpu,
        persistent_workers=on_gpu,
    )
