"""Data sets by one word: where they are, and what their columns are called."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import MappingProxyType
from typing import Any

from ..choices import listed, nearest
from ..errors import DataError
from .conll_rows import SUFFIXES as CONLL
from .rows import Rows
from .spec import SPLITS, Data

_THREE = MappingProxyType({split: split for split in SPLITS})
# Most sets have no validation split, and a test split must not choose the best checkpoint.
_HELD_OUT = MappingProxyType({"train": "train", "validation": "10%", "test": "test"})
_GLUE = MappingProxyType({"train": "train", "validation": "validation"})  # its test labels are secret


@dataclass(frozen=True)
class Preset:
    """One data set; ``hub`` is None for those that need no network."""

    hub: str | None
    label: str = "label"
    text: str | tuple[str, ...] | None = None
    image: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: _THREE)


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "pydocs": Preset(None, text="text"),
        "pynames": Preset(None, text="tokens", label="tags"),
        "pypairs": Preset(None, text=("function", "text")),
        "pytopics": Preset(None, text="text", label="labels"),
        "pypages": Preset(None, text="text"),
        "pyquestions": Preset(None, text=("question", "context"), label="answers"),
        "digits": Preset(None, image="image"),
        "digit_sets": Preset(None, image="image", label="labels"),
        "sst2": Preset("stanfordnlp/sst2", text="sentence", splits=_GLUE),
        "cola": Preset("nyu-mll/glue:cola", text="sentence", splits=_GLUE),
        "mrpc": Preset("nyu-mll/glue:mrpc", text=("sentence1", "sentence2")),
        "qqp": Preset("nyu-mll/glue:qqp", text=("question1", "question2"), splits=_GLUE),
        "qnli": Preset("nyu-mll/glue:qnli", text=("question", "sentence"), splits=_GLUE),
        "rte": Preset("nyu-mll/glue:rte", text=("sentence1", "sentence2"), splits=_GLUE),
        "mnli": Preset(
            "nyu-mll/glue:mnli",
            text=("premise", "hypothesis"),
            splits=MappingProxyType({"train": "train", "validation": "validation_matched"}),
        ),
        "stsb": Preset("nyu-mll/glue:stsb", text=("sentence1", "sentence2"), splits=_GLUE),
        "imdb": Preset("stanfordnlp/imdb", text="text", splits=_HELD_OUT),
        "ag_news": Preset("fancyzhx/ag_news", text="text", splits=_HELD_OUT),
        "emotion": Preset("dair-ai/emotion:split", text="text"),
        "banking77": Preset("legacy-datasets/banking77", text="text", splits=_HELD_OUT),
        "cifar10": Preset("uoft-cs/cifar10", image="img", splits=_HELD_OUT),
        "cifar100": Preset("uoft-cs/cifar100", image="img", label="fine_label", splits=_HELD_OUT),
        "mnist": Preset("ylecun/mnist", image="image", splits=_HELD_OUT),
        "beans": Preset("AI-Lab-Makerere/beans", image="image", label="labels"),
        "squad": Preset("rajpurkar/squad", text=("question", "context"), label="answers", splits=_GLUE),
    }
)


def resolved(data: Data, *, images: bool) -> Data:
    """The data with what a preset knows filled in; what the user has set stays.

    Raises:
        DataError: The name is no preset and no Hub id, or the preset does not fit the task.
    """
    if data.name is None:
        return data
    preset = PRESETS.get(data.name)
    if preset is None:
        if "/" not in data.name or data.name.startswith((".", "/", "~")) or _path(data.name):
            raise DataError(_unknown(data.name))
        return data
    if (preset.image is not None) != images:
        has, wants = ("images", "texts") if preset.image else ("texts", "images")
        raise DataError(
            f"task.data: {data.name!r} is a data set of {has}, and the task is about {wants}. Name another."
        )
    known: dict[str, Any] = {"label": preset.label, "text": preset.text, "image": preset.image, **preset.splits}
    unset = {key: value for key, value in known.items() if getattr(data, key) is None}
    return replace(data, name=preset.hub or data.name, **unset)


def offline_rows(name: str, split: str) -> Rows | None:
    """The rows of a data set that comes with the libraries; None for names that are not of that kind.

    Raises:
        DataError: It has no such split.
    """
    preset = PRESETS.get(name)
    if preset is None or preset.hub is not None:
        return None
    parts = _offline(name)
    if split not in parts:
        raise DataError(f"{name} has no split {split!r}; it has {listed(parts)}.")
    images = () if preset.image is None else (preset.image,)
    return Rows(f"{name} {split}", parts[split], image_columns=images)


def _offline(name: str) -> Mapping[str, Mapping[str, Any]]:
    return import_module(f".{name}", __package__).few_shot()


def _path(name: str) -> str:
    """The file or folder of that name, or ``""``; ``datasets`` would read it in place of the Hub's set."""
    return next((path for path in (name, name.partition(":")[0]) if os.path.exists(os.path.expanduser(path))), "")


def _unknown(name: str) -> str:
    if name.lower().endswith((".csv", ".tsv", ".json", ".jsonl", ".parquet", *CONLL)):
        return f"task.data: {name!r} is a file, not a name. Write task.data.train={name}."
    if path := _path(name):
        kind = "folder" if os.path.isdir(os.path.expanduser(path)) else "file"
        return f"task.data: {path!r} is a {kind}, not a name. Write task.data.train={path}."
    return (
        f"task.data: no data set is called {name!r}{nearest(name, PRESETS)}. Give one of {listed(PRESETS, most=30)}, "
        "a Hub data set ('owner/name'), or a mapping with train: a file or folder."
    )
