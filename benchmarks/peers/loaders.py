"""Torch loaders of pairs (inputs, labels), for the peers that take those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..definition import Work
from ..workloads import Workload
from . import images, text_data


def loaders(work: Work, data: Workload, network: Any, *, order: Sequence[int] | None) -> tuple[Any, Any]:
    """Of the training split (shuffled where no order is given) and of the validation split."""
    from torch.utils.data import DataLoader

    train, validation, collate = _images(data, network, order) if data.shape.is_image else _texts(data, order)
    return (
        DataLoader(train, batch_size=work.batch_size, shuffle=order is None, collate_fn=collate),
        DataLoader(validation, batch_size=work.batch_size, collate_fn=collate),
    )


def _texts(data: Workload, order: Sequence[int] | None) -> tuple[Any, Any, Any]:
    from transformers import DataCollatorWithPadding

    collator = DataCollatorWithPadding(text_data.tokenizer(data))

    def collate(rows: Any) -> tuple[dict[str, Any], Any]:
        batch = dict(collator(rows))
        labels = batch.pop("labels")
        return batch, labels

    return text_data.dataset(data, data.train, order=order), text_data.dataset(data, data.validation), collate


def _images(data: Workload, network: Any, order: Sequence[int] | None) -> tuple[Any, Any, Any]:
    from torch.utils.data import Subset

    train, validation = (images.dataset(data, split, network) for split in (data.train, data.validation))

    def collate(pairs: Any) -> tuple[Any, Any]:
        batch = images.collated(pairs)
        return batch["pixel_values"], batch["labels"]

    return train if order is None else Subset(train, list(order)), validation, collate
