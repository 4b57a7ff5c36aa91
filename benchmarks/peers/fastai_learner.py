"""fastai's ``Learner`` over torch loaders, as its tutorial for torch users has it."""

from __future__ import annotations

from typing import Any

from ..clock import Clock
from ..definition import Work
from ..ours import LR, MAX_GRAD_NORM, WEIGHT_DECAY
from ..workloads import Workload
from . import images, text_data
from .freezing import stage_of, train_only
from .loaders import loaders


def whole(work: Work, data: Workload, clock: Clock) -> None:
    """A whole run, one ``fit`` a stage; evaluates after every epoch where the row does."""
    network = images.model(data) if data.shape.is_image else text_data.model(data)
    train, validation = loaders(work, data, network, order=None)
    learner = _learner(network, train, validation if work.evaluates else [])
    clock.loaded()
    for stage in range(len(work.stages) or 1):
        if work.stages:
            train_only(network, stage_of(work, stage * work.epochs))
        with learner.no_bar(), learner.no_logging():
            learner.fit(work.epochs, LR)
    clock.finished()


def _learner(network: Any, train: Any, validation: Any) -> Any:
    """Its own AdamW, its own clipping; the forward takes the first of a pair."""
    from functools import partial

    import torch.nn.functional as F
    from fastai.callback.training import GradientClip
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import Adam
    from torch import nn

    from .torch_loop import device

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, inputs: Any) -> Any:
            output = self.network(**inputs) if isinstance(inputs, dict) else self.network(inputs)
            return getattr(output, "logits", output)

    return Learner(
        DataLoaders(train, validation, device=device()),
        Classifier(),
        loss_func=F.cross_entropy,
        opt_func=partial(Adam, decouple_wd=True),
        wd=WEIGHT_DECAY,
        cbs=[GradientClip(MAX_GRAD_NORM)],
        train_bn=False,
    )
