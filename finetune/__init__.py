"""Fine-tune BERT- and ViT-class encoders: what is configured is what runs, and it can be seen before it runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import _version
from .start_up import rarely_collected

if TYPE_CHECKING:
    from .cli import main as main
    from .curricula import Curriculum as Curriculum
    from .data.spec import Data as Data
    from .metrics.external import External as External
    from .optimizers import SGD as SGD
    from .optimizers import AdamW as AdamW
    from .policies import Checkpointing as Checkpointing
    from .policies import EarlyStopping as EarlyStopping
    from .precision import Precision as Precision
    from .run_config import RunConfig as RunConfig
    from .schedules import Constant as Constant
    from .schedules import WarmupCosine as WarmupCosine
    from .schedules import WarmupLinear as WarmupLinear
    from .speed import PLAIN as PLAIN
    from .speed import Speed as Speed
    from .strategies import Discriminative as Discriminative
    from .strategies import Freeze as Freeze
    from .strategies import Full as Full
    from .strategies import GradualUnfreeze as GradualUnfreeze
    from .strategies import LoRA as LoRA
    from .tasks.growing_length import GrowingLength as GrowingLength
    from .tasks.images import ImageClassification as ImageClassification
    from .tasks.patch_dropout import PatchDropout as PatchDropout
    from .tasks.progressive import ProgressiveResolution as ProgressiveResolution
    from .tasks.text import TextClassification as TextClassification
    from .tasks.text import TextRegression as TextRegression
    from .training import fit as fit
    from .training import plan_run as plan_run

__version__ = _version.VERSION

# Loaded at first use, so that ``import finetune`` costs nothing and pulls no torch.
_HOMES = {
    "AdamW": "optimizers",
    "Checkpointing": "policies",
    "Constant": "schedules",
    "Curriculum": "curricula",
    "Data": "data.spec",
    "Discriminative": "strategies",
    "EarlyStopping": "policies",
    "External": "metrics.external",
    "Freeze": "strategies",
    "Full": "strategies",
    "GradualUnfreeze": "strategies",
    "GrowingLength": "tasks.growing_length",
    "ImageClassification": "tasks.images",
    "LoRA": "strategies",
    "PLAIN": "speed",
    "PatchDropout": "tasks.patch_dropout",
    "Precision": "precision",
    "ProgressiveResolution": "tasks.progressive",
    "RunConfig": "run_config",
    "SGD": "optimizers",
    "Speed": "speed",
    "TextClassification": "tasks.text",
    "TextRegression": "tasks.text",
    "WarmupCosine": "schedules",
    "WarmupLinear": "schedules",
    "fit": "training",
    "main": "cli",
    "plan_run": "training",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'finetune' has no attribute {name!r}")
    with rarely_collected():
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
