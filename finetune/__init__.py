"""Fine-tune BERT- and ViT-class encoders: what is configured is what runs, and it can be seen before it runs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import _version
from .start_up import rarely_collected

if TYPE_CHECKING:
    from .cli import main as main
    from .comparing import compare as compare
    from .curricula import Column as Column
    from .curricula import Curriculum as Curriculum
    from .curricula import DataMapScore as DataMapScore
    from .curricula import TeacherLoss as TeacherLoss
    from .data.spec import Data as Data
    from .data.truncation import HeadTailTruncation as HeadTailTruncation
    from .data.truncation import HeadTruncation as HeadTruncation
    from .data.truncation import TailTruncation as TailTruncation
    from .data.truncation import TokenizerTruncation as TokenizerTruncation
    from .lr_finding import Sweep as Sweep
    from .lr_finding.finding import find_lr as find_lr
    from .metrics.external import External as External
    from .optimizers import SGD as SGD
    from .optimizers import AdamW as AdamW
    from .policies import Checkpointing as Checkpointing
    from .policies import EarlyStopping as EarlyStopping
    from .policies import NonFinite as NonFinite
    from .precision import Precision as Precision
    from .recommending import Priors as Priors
    from .recommending import recommend as recommend
    from .run_config import RunConfig as RunConfig
    from .schedules import Constant as Constant
    from .schedules import CosineRestarts as CosineRestarts
    from .schedules import Cyclical as Cyclical
    from .schedules import Exponential as Exponential
    from .schedules import InverseSqrt as InverseSqrt
    from .schedules import MultiStep as MultiStep
    from .schedules import OneCycle as OneCycle
    from .schedules import Polynomial as Polynomial
    from .schedules import ReduceOnPlateau as ReduceOnPlateau
    from .schedules import SlantedTriangular as SlantedTriangular
    from .schedules import WarmupCosine as WarmupCosine
    from .schedules import WarmupLinear as WarmupLinear
    from .schedules import WarmupStableDecay as WarmupStableDecay
    from .speed import PLAIN as PLAIN
    from .speed import Speed as Speed
    from .stages import Average as Average
    from .stages import Stage as Stage
    from .stages.planning import plan_stages as plan_stages
    from .stages.running import run_stages as run_stages
    from .strategies import LPFT as LPFT
    from .strategies import AutoRGN as AutoRGN
    from .strategies import BitFit as BitFit
    from .strategies import Discriminative as Discriminative
    from .strategies import Freeze as Freeze
    from .strategies import FreezeOut as FreezeOut
    from .strategies import Full as Full
    from .strategies import GradualUnfreeze as GradualUnfreeze
    from .strategies import LoRA as LoRA
    from .strategies import Mixout as Mixout
    from .strategies import NamedGroups as NamedGroups
    from .strategies import NormTuning as NormTuning
    from .strategies import Peft as Peft
    from .strategies import Reinitialised as Reinitialised
    from .tasks.class_losses import CrossEntropy as CrossEntropy
    from .tasks.class_losses import Focal as Focal
    from .tasks.data_map import DataMap as DataMap
    from .tasks.growing_length import GrowingLength as GrowingLength
    from .tasks.images import ImageClassification as ImageClassification
    from .tasks.l2_sp import L2SP as L2SP
    from .tasks.masked_language import MaskedLanguage as MaskedLanguage
    from .tasks.multi_label import ImageMultiLabel as ImageMultiLabel
    from .tasks.multi_label import TextMultiLabel as TextMultiLabel
    from .tasks.patch_dropout import PatchDropout as PatchDropout
    from .tasks.progressive import ProgressiveResolution as ProgressiveResolution
    from .tasks.question_answering import QuestionAnswering as QuestionAnswering
    from .tasks.selective_backprop import SelectiveBackprop as SelectiveBackprop
    from .tasks.self_paced import SelfPaced as SelfPaced
    from .tasks.super_loss import SuperLoss as SuperLoss
    from .tasks.text import TextClassification as TextClassification
    from .tasks.text import TextRegression as TextRegression
    from .tasks.token_classification import TokenClassification as TokenClassification
    from .training import fit as fit
    from .training import plan_run as plan_run
    from .tuning import tune as tune

__version__ = _version.VERSION

# Loaded at first use, so that ``import finetune`` costs nothing and pulls no torch.
_HOMES = {
    "AdamW": "optimizers",
    "AutoRGN": "strategies",
    "Average": "stages",
    "BitFit": "strategies",
    "Checkpointing": "policies",
    "Column": "curricula",
    "Constant": "schedules",
    "CosineRestarts": "schedules",
    "CrossEntropy": "tasks.class_losses",
    "Curriculum": "curricula",
    "Cyclical": "schedules",
    "Data": "data.spec",
    "DataMap": "tasks.data_map",
    "DataMapScore": "curricula",
    "Discriminative": "strategies",
    "EarlyStopping": "policies",
    "Exponential": "schedules",
    "External": "metrics.external",
    "Focal": "tasks.class_losses",
    "Freeze": "strategies",
    "FreezeOut": "strategies",
    "Full": "strategies",
    "GradualUnfreeze": "strategies",
    "GrowingLength": "tasks.growing_length",
    "HeadTailTruncation": "data.truncation",
    "HeadTruncation": "data.truncation",
    "ImageClassification": "tasks.images",
    "ImageMultiLabel": "tasks.multi_label",
    "InverseSqrt": "schedules",
    "L2SP": "tasks.l2_sp",
    "LPFT": "strategies",
    "LoRA": "strategies",
    "MaskedLanguage": "tasks.masked_language",
    "Mixout": "strategies",
    "MultiStep": "schedules",
    "NamedGroups": "strategies",
    "NonFinite": "policies",
    "NormTuning": "strategies",
    "OneCycle": "schedules",
    "PLAIN": "speed",
    "PatchDropout": "tasks.patch_dropout",
    "Peft": "strategies",
    "Polynomial": "schedules",
    "Precision": "precision",
    "Priors": "recommending",
    "ProgressiveResolution": "tasks.progressive",
    "QuestionAnswering": "tasks.question_answering",
    "ReduceOnPlateau": "schedules",
    "Reinitialised": "strategies",
    "RunConfig": "run_config",
    "SGD": "optimizers",
    "SelectiveBackprop": "tasks.selective_backprop",
    "SelfPaced": "tasks.self_paced",
    "SlantedTriangular": "schedules",
    "Speed": "speed",
    "Stage": "stages",
    "Sweep": "lr_finding",
    "SuperLoss": "tasks.super_loss",
    "TailTruncation": "data.truncation",
    "TeacherLoss": "curricula",
    "TextClassification": "tasks.text",
    "TextMultiLabel": "tasks.multi_label",
    "TextRegression": "tasks.text",
    "TokenClassification": "tasks.token_classification",
    "TokenizerTruncation": "data.truncation",
    "WarmupCosine": "schedules",
    "WarmupLinear": "schedules",
    "WarmupStableDecay": "schedules",
    "find_lr": "lr_finding.finding",
    "compare": "comparing",
    "fit": "training",
    "main": "cli",
    "plan_run": "training",
    "plan_stages": "stages.planning",
    "recommend": "recommending",
    "run_stages": "stages.running",
    "tune": "tuning",
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
