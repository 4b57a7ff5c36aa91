"""Everything trains: padding, the last layer, the loop."""

from __future__ import annotations

from functools import partial

from .. import ours
from ..definition import OURS, Contender, Row, Target, Work
from ..peers import accelerate_loop, lightning_module, trainer

_ours = Contender(name=OURS, run=ours.steps, quick=True)
_default = Contender(name="Trainer, default", run=trainer.steps, quick=True)
_best = Contender(name="Trainer, best flags", run=trainer.grouped_steps, quick=True)

MINILM = Work(shape="minilm", warmup_steps=3, timed_steps=16)

ROWS = (
    Row(
        name="minilm-sst2",
        title="full fine-tune, MiniLM-L6, SST-2 lengths, batch 32",
        work=MINILM,
        contenders=(
            _ours,
            _default,
            _best,
            Contender(name="accelerate loop", run=accelerate_loop.steps),
            Contender(name="Lightning", run=lightning_module.steps, needs="lightning"),
        ),
        targets=(
            Target(against="Trainer, default", kind="times", must=2.6, aim=3.6),
            Target(against="Trainer, best flags", kind="times", must=1.3, aim=1.6),
        ),
        gate=True,
        quick=True,
    ),
    Row(
        name="minilm-memory",
        title="peak memory above the loaded model, the row above",
        work=MINILM,
        takes_from="minilm-sst2",
        targets=(Target(against="Trainer, default", kind="share", must=0.65, aim=0.5),),
        value="memory",
        unit="bytes",
        quick=True,
    ),
    Row(
        name="bert-base-sst2",
        title="full fine-tune, BERT-base-shaped, SST-2 lengths, batch 32",
        work=Work(shape="bert-base", warmup_steps=1, timed_steps=5),
        contenders=(_ours, _default),
        targets=(Target(against="Trainer, default", kind="times", must=2.3, aim=3.0),),
        gate=True,
    ),
    Row(
        name="bert-base-pad128",
        title="the same, against texts padded to 128",
        work=Work(shape="bert-base", warmup_steps=1, timed_steps=2),
        contenders=(
            _ours,
            Contender(name="Trainer, padded to 128", run=partial(trainer.steps, padding="max_length")),
        ),
        targets=(Target(against="Trainer, padded to 128", kind="times", must=7.0, aim=9.5),),
        note="`run_glue.py` pads to 128 by default. Two updates a round: one of them takes ten seconds.",
    ),
    Row(
        name="minilm-rte",
        title="full fine-tune, MiniLM-L6, RTE lengths, batch 32",
        work=Work(shape="minilm", lengths="rte", max_length=512, warmup_steps=1, timed_steps=6),
        contenders=(_ours, _default),
        targets=(Target(against="Trainer, default", kind="times", must=2.0, aim=2.6),),
        gate=True,
    ),
    Row(
        name="minilm-agnews",
        title="full fine-tune, MiniLM-L6, AG News lengths, batch 32",
        work=Work(shape="minilm", lengths="agnews", max_length=512, warmup_steps=1, timed_steps=8),
        contenders=(_ours, _default),
        targets=(Target(against="Trainer, default", kind="times", must=2.0, aim=2.6),),
        gate=True,
    ),
    Row(
        name="minilm-lora",
        title="LoRA r=8, all linear layers, MiniLM-L6, SST-2 lengths",
        work=Work(shape="minilm", lora_rank=8, warmup_steps=3, timed_steps=14),
        contenders=(
            _ours,
            Contender(name="PEFT + Trainer", run=trainer.steps),
            Contender(
                name="own full fine-tune",
                run=ours.steps,
                work=Work(shape="minilm", warmup_steps=3, timed_steps=14),
            ),
        ),
        targets=(
            Target(against="PEFT + Trainer", kind="times", must=2.6, aim=3.5),
            Target(against="own full fine-tune", kind="times", must=1.3, aim=1.4),
        ),
        gate=True,
    ),
    Row(
        name="minilm-16k",
        title="share of the matmul peak, full fine-tune, MiniLM-L6, 16 k useful tokens per update",
        work=Work(shape="minilm", batch_size=1228, warmup_steps=1, timed_steps=2),
        contenders=(_ours,),
        targets=(Target(against=OURS, kind="least", must=0.65, aim=0.8),),
        value="share_of_peak",
        unit="share",
    ),
    Row(
        name="smoke",
        title="two updates of a tiny model: does the program work",
        work=Work(shape="bert-nano", batch_size=4, warmup_steps=1, timed_steps=2, validation=4),
        contenders=(_ours, _default),
        targets=(Target(against="Trainer, default", kind="times", must=0.001),),
        gate=True,
        default=False,
    ),
)
