"""Images: no padding to save, so what is left is the frozen forward, and little else."""

from __future__ import annotations

from .. import ours
from ..definition import OURS, Contender, Row, Target, Work
from ..peers import fastai_learner, lightning_module, timm_loop, trainer

ROWS = (
    Row(
        name="vit-frozen",
        title="frozen ViT-S/16, 5 epochs, no augmentation",
        work=Work(shape="vit-s", examples=64, validation=4, epochs=5, stages=(0,)),
        contenders=(
            Contender(name=OURS, run=ours.whole, warms_up=True),
            Contender(name="timm", run=timm_loop.whole, warms_up=True),
            Contender(name="Trainer, default", run=trainer.whole, warms_up=True),
            Contender(name="fastai", run=fastai_learner.whole, warms_up=True, needs="fastai"),
            Contender(name="Lightning", run=lightning_module.whole, warms_up=True, needs="lightning"),
        ),
        targets=tuple(
            Target(against=name, kind="times", must=4.3, aim=4.6)
            for name in ("timm", "Trainer, default", "fastai", "Lightning")
        ),
        gate=True,
        note="Ours also evaluates 4 validation images, inside its time.",
    ),
    Row(
        name="vit-full",
        title="plain ViT-S/16 full fine-tune, batch 32",
        work=Work(shape="vit-s", warmup_steps=1, timed_steps=2, validation=4),
        contenders=(
            Contender(name=OURS, run=ours.steps),
            Contender(name="timm", run=timm_loop.steps),
            Contender(name="Trainer, default", run=trainer.steps),
        ),
        targets=tuple(
            Target(against=name, kind="times", must=1.05, aim=1.15) for name in ("timm", "Trainer, default")
        ),
        gate=True,
        note="Compute-bound: every contender does the same matrix products, so little can be gained.",
    ),
)
