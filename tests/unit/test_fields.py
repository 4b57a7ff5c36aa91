from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from finetune.curricula import Curriculum
from finetune.fields import check_fields
from finetune.optimizers import SGD, AdamW
from finetune.policies import Checkpointing, EarlyStopping
from finetune.precision import Precision
from finetune.run_config import RunConfig
from finetune.schedules import WarmupCosine, WarmupLinear
from finetune.strategies import Discriminative, GradualUnfreeze, LoRA


@dataclass(frozen=True)
class Task:
    """Anything; what it is called is not known at run time."""

    model: Unknown = "bert"  # noqa: F821


@dataclass(frozen=True)
class Listed:
    """A list that a single word is easily taken for."""

    words: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            Discriminative(convention="biet"),
            r"convention: got 'biet' \(did you mean 'beit'\?\); expected one of 'beit'",
        ),
        (Discriminative(decay=1.5), "decay: got 1.5; expected at most 1"),
        (Discriminative(decay=0.0), "decay: got 0.0; expected above 0"),
        (Discriminative(base=GradualUnfreeze(decay=2.0)), "base.decay: got 2.0; expected at most 1"),
        (Curriculum(pacing="rooot"), r"pacing: got 'rooot' \(did you mean 'root'\?\)"),
        (Curriculum(order="easy"), "order: got 'easy'"),
        (WarmupLinear(name="6 steps"), "name: got '6 steps'; expected one of 'warmup_linear'"),
        (AdamW(lr=-1.0), "lr: got -1.0; expected above 0"),
        (AdamW(lr=math.nan), "lr: got nan; expected above 0"),
        (AdamW(lr="2e-5"), "lr: got '2e-5'; expected a number"),
        (AdamW(head_lr=0.0), "head_lr: got 0.0; expected above 0"),
        (AdamW(betas=(0.9, 1.0)), r"betas: got \(0.9, 1.0\); expected below 1"),
        (AdamW(betas=(0.9, 0.99, 0.999)), r"betas: got \(0.9, 0.99, 0.999\); expected 2 values"),
        (Listed(words="head"), "words: got 'head'; expected a tuple"),
        (LoRA(rank=0), "rank: got 0; expected at least 1"),
        (Precision(name="half"), "name: got 'half'"),
        (Precision(growth=0.5), "growth: got 0.5; expected above 1"),
        (EarlyStopping(patience=0), "patience: got 0; expected at least 1"),
        (Checkpointing(keep_last=0), "keep_last: got 0; expected at least 1"),
    ],
)
def test_a_value_that_its_annotation_does_not_allow(value, message):
    with pytest.raises(ValueError, match=message):
        check_fields(value)


@pytest.mark.parametrize(
    "value",
    [AdamW(head_lr=1e-3), SGD(), Curriculum(), Precision(), LoRA(targets=("query",)), LoRA(base=Discriminative())],
)
def test_what_is_allowed(value):
    check_fields(value)


def test_a_run_names_all_its_faults_by_path():
    with pytest.raises(ValueError) as caught:
        RunConfig(Task(), strategy=Discriminative(convention="biet"), batch_size=0, order="sorted", seed=-1)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["strategy.convention", "batch_size", "order", "seed"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"length": "10%"}, "length: '10%' is a share of nothing"),
        ({"evaluate_every": "0 epochs"}, "evaluate_every: '0 epochs' is no interval"),
        ({"log_every": "0 steps"}, "log_every: '0 steps' is no interval"),
    ],
)
def test_durations_of_a_run(changes, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(Task(), **changes)


def test_objects_of_a_user_are_left_alone():
    class Own:
        lr: Any = "not a dataclass"
        adapt = groups = phases = lambda self: None

    RunConfig(Task(), strategy=Own(), schedule=WarmupCosine(floor=0.5), curriculum=None)
