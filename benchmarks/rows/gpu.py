"""One GPU, bf16. Never claimed without a measurement: skipped where there is no CUDA device."""

from __future__ import annotations

from .. import ours
from ..definition import OURS, Contender, Row, Target, Work
from ..peers import timm_loop, trainer

_ours = Contender(name=OURS, run=ours.steps)
_default = Contender(name="Trainer, bf16", run=trainer.steps)

ROWS = (
    Row(
        name="gpu-bert-base",
        title="one GPU, BERT-base, batch 32, SST-2 lengths, bf16",
        work=Work(shape="bert-base", warmup_steps=30, timed_steps=200, precision="bf16"),
        contenders=(_ours, _default),
        targets=(Target(against="Trainer, bf16", kind="times", must=4.0, aim=6.0),),
        gate=True,
        needs_cuda=True,
    ),
    Row(
        name="gpu-bert-base-16k",
        title="one GPU, BERT-base, 16 k useful tokens per update, bf16: share of the matmul peak",
        work=Work(shape="bert-base", batch_size=1228, warmup_steps=10, timed_steps=40, precision="bf16"),
        contenders=(_ours,),
        targets=(Target(against=OURS, kind="least", must=0.35, aim=0.45),),
        value="share_of_peak",
        unit="share",
        needs_cuda=True,
    ),
    Row(
        name="gpu-vit-b",
        title="one GPU, ViT-B/16 full fine-tune, batch 64, bf16",
        work=Work(shape="vit-b", batch_size=64, warmup_steps=10, timed_steps=40, precision="bf16"),
        contenders=(_ours, Contender(name="timm", run=timm_loop.steps)),
        targets=(Target(against="timm", kind="times", must=1.5, aim=2.0),),
        gate=True,
        needs_cuda=True,
    ),
    Row(
        name="gpu-vit-b-peak",
        title="the same: share of the matmul peak",
        work=Work(shape="vit-b", batch_size=64, warmup_steps=10, timed_steps=40, precision="bf16"),
        takes_from="gpu-vit-b",
        targets=(Target(against=OURS, kind="least", must=0.35, aim=0.45),),
        value="share_of_peak",
        unit="share",
        needs_cuda=True,
    ),
)
