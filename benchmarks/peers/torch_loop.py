"""A plain loop over the plain model: padded batches, torch's optimizer, nothing of ours but the order of the data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..definition import Work
from ..ours import LR, MAX_GRAD_NORM, SEED, WARMUP, WEIGHT_DECAY, drawn, strategy, task
from ..workloads import Workload
from . import images, text_data
from .freezing import stage_of, train_only


def losses(work: Work, data: Workload) -> list[float]:
    """The loss of every update of a run."""
    import torch
    import torch.nn.functional as F

    network = _network(work, data)
    optimizer = adamw(network)
    total = work.total_epochs * work.steps_per_epoch
    found = []
    for step, (inputs, labels) in enumerate(_batches(work, data, network)):
        if work.stages and step % work.steps_per_epoch == 0:
            train_only(network, stage_of(work, step // work.steps_per_epoch))
        for group in optimizer.param_groups:
            group["lr"] = LR * multiplier(step, total)
        output = network(**inputs) if isinstance(inputs, dict) else network(inputs)
        loss = F.cross_entropy(getattr(output, "logits", output), labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        found.append(loss.item())
    return found


def multiplier(step: int, total: int) -> float:
    """Linear warm-up from 0, linear decay to 0; as ``transformers.get_linear_schedule_with_warmup``."""
    warmup = int(total * WARMUP)
    return step / warmup if step < warmup else (total - step) / max(1, total - warmup)


def adamw(network: Any, *, fused: bool | None = None) -> Any:  # noqa: FBT001
    """Over everything that may train; biases, norms and what the model itself names are not decayed."""
    import torch

    spared = set(network.no_weight_decay()) if hasattr(network, "no_weight_decay") else set()
    decayed, plain = [], []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (plain if parameter.ndim < 2 or name in spared else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LR, fused=fused)


def device() -> Any:
    """The accelerator, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _network(work: Work, data: Workload) -> Any:
    """In train mode; adapters start from the values that ours start from."""
    if not work.lora_rank:
        network = images.model(data) if data.shape.is_image else text_data.model(data)
        return network.to(device()).train()
    from finetune.randomness import keyed

    with keyed(SEED, "init"):
        loaded = task(data).load_model()
        return strategy(work).adapt(loaded.module, loaded.new).to(device()).train()


def _batches(work: Work, data: Workload, network: Any) -> Iterator[tuple[Any, Any]]:
    import torch
    from transformers import DataCollatorWithPadding

    if data.shape.is_image:
        pictures = images.dataset(data, data.train, network)
        for update in drawn(work):
            batch = images.collated([pictures[index] for index in update])
            yield batch["pixel_values"].to(device()), batch["labels"].to(device())
        return
    rows = text_data.dataset(data, data.train)
    collator = DataCollatorWithPadding(text_data.tokenizer(data))
    for update in drawn(work):
        batch = collator([rows[index] for index in update])
        labels = torch.as_tensor(batch.pop("labels")).to(device())
        yield {name: tensor.to(device()) for name, tensor in batch.items()}, labels
