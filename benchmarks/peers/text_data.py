"""Texts as transformers' examples prepare them: ``datasets.map`` over the tokenizer, then a collator."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ..shapes import LABELS
from ..workloads import Workload

Padding = Literal["batch", "max_length"]


def tokenizer(data: Workload) -> Any:
    """Of the model folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(data.model)


def dataset(data: Workload, split: Path, *, padding: Padding = "batch", order: Sequence[int] | None = None) -> Any:
    """Tokenised rows of a csv file with ``labels``, in the order given.

    Args:
        data: The row's workload.
        split: Its csv file.
        padding: ``max_length`` pads every text to it, as ``run_glue.py`` does by default.
        order: Rows of the file, in this order; None: all.
    """
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    with split.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    chosen = rows if order is None else [rows[number] for number in order]
    made = Dataset.from_dict(
        {"text": [row["text"] for row in chosen], "labels": [LABELS.index(row["label"]) for row in chosen]}
    )
    words = tokenizer(data)

    def encode(batch: dict[str, list[str]]) -> Any:
        pad = "max_length" if padding == "max_length" else False
        return words(batch["text"], padding=pad, truncation=True, max_length=data.work.max_length)

    return made.map(encode, batched=True, remove_columns=["text"])


def model(data: Workload) -> Any:
    """The same weights as ours, from the same folder."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoModelForSequenceClassification.from_pretrained(data.model)
