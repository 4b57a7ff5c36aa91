"""Part of the model is frozen: what is below the lowest trained block need not be computed twice."""

from __future__ import annotations

from .. import ours
from ..definition import OURS, Contender, Row, Target, Work
from ..peers import accelerate_loop, fastai_learner, lightning_module, trainer

_ours = Contender(name=OURS, run=ours.whole, warms_up=True, quick=True)
_default = Contender(name="Trainer, default", run=trainer.whole, warms_up=True, quick=True)
_fastai = Contender(name="fastai", run=fastai_learner.whole, warms_up=True, needs="fastai")
_lightning = Contender(name="Lightning", run=lightning_module.whole, warms_up=True, needs="lightning")

ROWS = (
    Row(
        name="minilm-frozen",
        title="frozen body, 5 epochs + 5 evaluations, MiniLM-L6, SST-2 lengths",
        work=Work(shape="minilm", examples=256, validation=128, epochs=5, evaluates=True, stages=(0,)),
        contenders=(
            _ours,
            _default,
            Contender(name="accelerate loop", run=accelerate_loop.whole, warms_up=True),
            _lightning,
            _fastai,
        ),
        targets=tuple(
            Target(against=name, kind="times", must=12.0, aim=20.0)
            for name in ("Trainer, default", "accelerate loop", "Lightning", "fastai")
        ),
        gate=True,
        quick=True,
    ),
    Row(
        name="minilm-top2",
        title="top 2 of 12 layers, 5 epochs, MiniLM-L12, SST-2 lengths",
        work=Work(shape="minilm-l12", examples=192, epochs=5, stages=(2,)),
        contenders=(_ours, _default),
        targets=(Target(against="Trainer, default", kind="times", must=5.0, aim=7.9),),
        gate=True,
    ),
    Row(
        name="minilm-gradual",
        title="gradual unfreezing, 4 stages x 3 epochs, MiniLM-L12, SST-2 lengths",
        work=Work(shape="minilm-l12", examples=64, epochs=3, stages=(0, 3, 6, 12)),
        contenders=(_ours, Contender(name="Trainer, unfreezing callback", run=trainer.whole, warms_up=True), _fastai),
        targets=tuple(
            Target(against=name, kind="times", must=2.5, aim=3.5)
            for name in ("Trainer, unfreezing callback", "fastai")
        ),
        gate=True,
        note="The head, then the top 3, 6 and all 12 layers with the embeddings. The callback is given an optimizer "
        "that knows all weights; one that is not trains nothing.",
    ),
)
