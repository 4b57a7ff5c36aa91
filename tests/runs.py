"""Short real runs on tiny models, and what is compared of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from finetune.models.loaded import LoadedModel
from finetune.optimizers import AdamW
from finetune.run_config import RunConfig
from finetune.strategies import Discriminative, Freeze, Full, GradualUnfreeze, LoRA
from finetune.tasks.images import ImageClassification
from finetune.tasks.masked_language import MaskedLanguage
from finetune.tasks.multi_label import ImageMultiLabel, TextMultiLabel
from finetune.tasks.question_answering import QuestionAnswering
from finetune.tasks.text import TextClassification
from finetune.tasks.token_classification import TokenClassification
from finetune.training import FitResult, fit
from tests import tiny_data, tiny_models

STRATEGIES = {
    "full": Full(),
    "freeze": Freeze(trainable=("head", "layer.-1")),
    "discriminative": Discriminative(decay=0.5),
    "gradual_unfreeze": GradualUnfreeze(over="60%", decay=0.9),
    "lora": LoRA(rank=2, alpha=4),
}


@dataclass(frozen=True)
class Exact:
    """A task in fp64 without dropout: differences of rounding stay far below the tolerances of the invariants."""

    task: Any

    def load_model(self) -> LoadedModel:
        loaded = self.task.load_model()
        without_dropout(loaded.module.double())
        return loaded

    def splits(self):
        return self.task.splits()

    def load_split(self, name: str):
        return self.task.load_split(name)

    def forward(self, model, batch, progress):
        if "pixel_values" in batch:
            batch = {**batch, "pixel_values": batch["pixel_values"].double()}
        return self.task.forward(model, batch, progress)

    def score(self, predictions):
        return self.task.score(predictions)

    @property
    def metrics(self):
        return self.task.metrics

    @property
    def id2label(self):
        return self.task.id2label


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("dropout_prob", "attention_dropout", "attention_probs_dropout_prob"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def text_task(folder: Path, *, examples: int = 26, family: str = "bert") -> TextClassification:
    """A two-class text task on a tiny pretrained encoder, all in ``folder``."""
    if not (folder / family).exists():
        tiny_models.save_text_folder(folder / family, family)
    train, validation = folder / f"train-{examples}.csv", folder / "validation.csv"
    if not train.exists():
        tiny_data.write_texts(train, examples)
        tiny_data.write_texts(validation, 21, seed=1)
    data = {"train": str(train), "validation": str(validation), "text": "text", "label": "label"}
    return TextClassification(model=str(folder / family), data=data, max_length=32)


def token_task(folder: Path, *, examples: int = 26, family: str = "bert", **options: Any) -> TokenClassification:
    """A task on words with two types of entities on a tiny pretrained encoder, all in ``folder``."""
    if not (folder / family).exists():
        tiny_models.save_text_folder(folder / family, family)
    train, validation = folder / f"train-{examples}.conll", folder / "validation.conll"
    if not train.exists():
        tiny_data.write_tags(train, examples)
        tiny_data.write_tags(validation, 21, seed=1)
    data = {"train": str(train), "validation": str(validation)}
    return TokenClassification(model=str(folder / family), data=data, **{"max_length": 32, **options})


def masked_task(folder: Path, *, family: str = "bert", **changes: Any) -> MaskedLanguage:
    """Masked words of the texts of ``text_task``."""
    task = text_task(folder, family=family)
    return MaskedLanguage(**{"model": task.model, "data": task.data, "max_length": 32, **changes})


def image_task(folder: Path, *, per_class: int = 6, augment: str = "none", family: str = "vit") -> ImageClassification:
    """A three-class image task on a tiny pretrained model, all in ``folder``."""
    is_timm = family in tiny_models.TIMM
    if not (folder / family).exists():
        (tiny_models.save_timm_folder if is_timm else tiny_models.save_image_folder)(folder / family, family)
    if not (folder / "images").exists():
        tiny_data.write_images(folder / "images" / "train", per_class)
        tiny_data.write_images(folder / "images" / "validation", 7, seed=1)
    data = {"train": str(folder / "images" / "train"), "validation": str(folder / "images" / "validation")}
    model = f"timm:{folder / family}" if is_timm else str(folder / family)
    return ImageClassification(model=model, data=data, augment=augment)


def text_label_task(folder: Path, **options: Any) -> TextMultiLabel:
    """Labels that words tell, two of a kind and whether the text is long."""
    if not (folder / "bert").exists():
        tiny_models.save_text_folder(folder / "bert")
        for split, count, seed in (("train", 26, 0), ("validation", 21, 1), ("test", 9, 2)):
            rows = list(tiny_data.examples(count, seed=seed))
            lines = ["text,good,dark,long"]
            for text, kind, words in rows:
                flags = (kind == "positive", kind == "negative", words > 8)
                lines.append(",".join([text, *(str(int(flag)) for flag in flags)]))
            (folder / f"{split}.csv").write_text("\n".join(lines))
    data = {split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")}
    data |= {"text": "text", "label": ("good", "dark", "long")}
    return TextMultiLabel(**{"model": str(folder / "bert"), "data": data, "max_length": 32} | options)


def image_label_task(folder: Path, *, model: str = "vit", **options: Any) -> ImageMultiLabel:
    """Colours of a spot, and whether it is warm."""
    if not (folder / "images").exists():
        tiny_models.save_image_folder(folder / "vit")
        tiny_models.save_timm_folder(folder / "timm", labels=("blue", "green", "warm"))
        for split, count, seed in (("train", 6, 0), ("validation", 4, 1)):
            tiny_data.write_images(folder / "images" / split, count, seed=seed)
            names = {"red": ["warm"], "blue": ["blue"], "green": ["green", "warm"]}
            rows = [
                {"image": f"images/{split}/{path.parent.name}/{path.name}", "labels": names[path.parent.name]}
                for path in sorted((folder / "images" / split).rglob("*.png"))
            ]
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = f"timm:{folder / 'timm'}" if model == "timm" else str(folder / model)
    data = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")} | {"label": "labels"}
    return ImageMultiLabel(model=source, data=data, **options)


def question_task(folder: Path, *, family: str = "bert", **options: Any) -> QuestionAnswering:
    """Which is the good word, or the bad one, in a sentence; every fifth has none."""
    if not (folder / family).exists():
        tiny_models.save_text_folder(folder / family, family)
    for split, count, seed in (("train", 26, 0), ("validation", 21, 1), ("test", 9, 2)):
        rng = np.random.default_rng(seed)
        rows = []
        for number in range(count):
            asked, words = (("good", tiny_data.POSITIVE), ("bad", tiny_data.NEGATIVE))[number % 2]
            filling = [str(word) for word in rng.choice(tiny_data.NEUTRAL, rng.integers(3, 20))]
            answer, at = str(rng.choice(words[1:])), int(rng.integers(0, len(filling)))
            found = {"text": [], "answer_start": []}
            if number % 5:
                filling.insert(at, answer)
                found = {"text": [answer], "answer_start": [len(" ".join([*filling[:at], ""]))]}
            rows.append({"question": asked, "context": " ".join(filling), "answers": found})
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation", "test")}
    return QuestionAnswering(**{"model": str(folder / family), "data": data, "max_length": 16, "overlap": 4} | options)


def run(task: Any, **changes: Any) -> FitResult:
    """A run of 10 updates of 8 examples (the epoch's last one is short), small enough for every test."""
    settings = {"length": "10 steps", "batch_size": 8, "optimizer": AdamW(lr=1e-2), "show": "nothing"}
    return fit(task, **{**settings, **changes})


def config(task: Any, **changes: Any) -> RunConfig:
    """The same run as data."""
    settings = {"length": "10 steps", "batch_size": 8, "optimizer": AdamW(lr=1e-2)}
    return RunConfig(task, **{**settings, **changes})


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, whole, on the CPU."""
    from finetune.training.sharding import whole

    return {name: whole(tensor) for name, tensor in model.state_dict().items()}


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Names the exact bits."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.view(torch.uint8).numpy().tobytes() if tensor.ndim else tensor.numpy().tobytes())
    return found.hexdigest()


def assert_close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Equal as DESIGN has it for fp64 without dropout: |a - b| <= 1e-10 + 1e-8 |a|."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-8, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")


def history(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``log.jsonl`` without times."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if not {"prefix_cache", "image_store", "difficulty"} & line.keys()]  # by process
    return [{key: value for key, value in line.items() if key != "wall_seconds"} for line in lines]


def replaced(task: Any, **changes: Any) -> Any:
    return dataclasses.replace(task, **changes)
