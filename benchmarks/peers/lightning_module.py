"""Lightning's ``Trainer`` over a module as its documentation writes one."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

from ..clock import Clock
from ..definition import Work
from ..ours import LOG_EVERY, LR, MAX_GRAD_NORM, WARMUP, WEIGHT_DECAY, drawn
from ..workloads import Workload
from . import images, text_data
from .freezing import train_only
from .loaders import loaders


def steps(work: Work, data: Workload, clock: Clock) -> None:
    """The same updates as ours in the same order."""
    _run(work, data, clock, order=[index for update in drawn(work) for index in update])


def whole(work: Work, data: Workload, clock: Clock) -> None:
    """A whole run, shuffled; evaluates after every epoch where the row does."""
    _run(work, data, clock, order=None)
    clock.finished()


def _run(work: Work, data: Workload, clock: Clock, *, order: list[int] | None) -> None:
    import logging

    import lightning

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    network = images.model(data) if data.shape.is_image else text_data.model(data)
    if work.stages:
        train_only(network, work.stages[0])
    train, validation = loaders(work, data, network, order=order)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=work.total_epochs,
            gradient_clip_val=MAX_GRAD_NORM,
            log_every_n_steps=LOG_EVERY,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if work.evaluates else 0,
        )
        module = _module(network, clock, total=work.total_epochs * len(train))
        clock.loaded()
        trainer.fit(module, train, validation if work.evaluates else None)


def _module(network: Any, clock: Clock, *, total: int) -> Any:
    import lightning
    import torch
    import torch.nn.functional as F
    from transformers import get_linear_schedule_with_warmup

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def loss(self, batch: Any) -> Any:
            inputs, labels = batch
            output = self.network(**inputs) if isinstance(inputs, dict) else self.network(inputs)
            return F.cross_entropy(getattr(output, "logits", output), labels)

        def training_step(self, batch: Any, number: int) -> Any:
            clock.tick(self.global_step)
            loss = self.loss(batch)
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, number: int) -> None:
            self.log("validation_loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
            optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=WEIGHT_DECAY)
            schedule = get_linear_schedule_with_warmup(optimizer, int(total * WARMUP), total)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    return Classifier()
