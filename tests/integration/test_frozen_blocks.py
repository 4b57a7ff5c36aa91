"""What is frozen is a fixed function: no dropout, no state, no gradient; and stays so after an evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from finetune.policies import Checkpointing
from finetune.strategies import Freeze, GradualUnfreeze, LoRA
from tests.runs import digest, run, text_task, weights


@dataclass(frozen=True)
class Dropping:
    """A task whose encoder drops with probability ``p`` where it is in training mode, and its head never."""

    task: Any
    p: float

    def __getattr__(self, name):
        return getattr(self.task, name)

    def load_model(self):
        loaded = self.task.load_model()
        for name, module in loaded.module.named_modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = self.p if name.startswith("bert.") else 0.0
        for layer in loaded.module.bert.encoder.layer:
            layer.attention.self.dropout.p = self.p
        return loaded


def trained(task, strategy, **settings):
    settings = {"checkpoint": Checkpointing(keep_best=0), "evaluate_every": "2 steps", **settings}
    return digest(weights(run(task, strategy=strategy, length="6 steps", **settings).model))


def test_a_frozen_encoder_does_not_drop(tmp_path):
    task = text_task(tmp_path)
    probe = Freeze(trainable=("head",))
    assert trained(Dropping(task, 0.5), probe) == trained(Dropping(task, 0.0), probe)


@pytest.mark.parametrize(
    "strategy", [GradualUnfreeze(over="50%"), LoRA(rank=2), Freeze(trainable=("head", "layer.1"))]
)
def test_what_trains_drops(tmp_path, strategy):
    task = text_task(tmp_path)
    assert trained(Dropping(task, 0.5), strategy) != trained(Dropping(task, 0.0), strategy)


def test_modes_follow_the_phases(tmp_path):
    """Seen from inside a forward: each block trains from its phase on, also after the evaluations between."""
    seen = {}

    @dataclass(frozen=True)
    class Watched:
        task: Any

        def __getattr__(self, name):
            return getattr(self.task, name)

        def forward(self, model, batch, progress):
            if torch.is_grad_enabled():
                bert = model.model.bert
                modes = [bert.embeddings.training, *(layer.training for layer in bert.encoder.layer)]
                seen[progress.step] = modes
            return self.task.forward(model, batch, progress)

    run(Watched(text_task(tmp_path)), strategy=GradualUnfreeze(over="6 steps"), evaluate_every="1 steps")
    expected = {0: [False, False, False], 2: [False, False, True], 4: [False, True, True], 6: [True, True, True]}
    assert {step: seen[step] for step in expected} == expected
    assert seen[3] == expected[2] and seen[9] == expected[6]
