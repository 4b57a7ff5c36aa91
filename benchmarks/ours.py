"""Our side: ``finetune.fit`` as a user calls it, on files, with a clock around the task."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .clock import Clock
from .definition import Work
from .workloads import Workload

if TYPE_CHECKING:
    from torch import nn

    from finetune.layers import LayerGroup
    from finetune.strategies.base import Phase

LR = 2e-5
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
WARMUP = 0.1  # of the run, then linear to 0
SEED = 0
LOG_EVERY = 10
_NEVER = "1000000 steps"


class Clocked:
    """A task that tells a clock when its model is loaded and when each update begins."""

    def __init__(self, task: Any, clock: Clock) -> None:
        self._task, self._clock = task, clock

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._task, name)

    def load_model(self) -> Any:
        """As the task does."""
        loaded = self._task.load_model()
        self._clock.loaded()
        return loaded

    def splits(self) -> tuple[str, ...]:
        """As the task does."""
        return self._task.splits()

    def load_split(self, name: str) -> Any:
        """As the task does."""
        return self._task.load_split(name)

    def forward(self, model: nn.Module, batch: Any, progress: Any) -> Any:
        """As the task does; a forward without gradient is none of an update."""
        import torch

        if torch.is_grad_enabled():
            self._clock.tick(progress.step)
        return self._task.forward(model, batch, progress)

    def score(self, predictions: Any) -> dict[str, float]:
        """As the task does."""
        return self._task.score(predictions)


@dataclass(frozen=True, kw_only=True)
class Stages:
    """A strategy: the head trains, and under it so many blocks from the top in each stage, one after the other.

    Args:
        blocks: For each stage; all of them take the embeddings along.
        epochs: Of each stage.
    """

    blocks: tuple[int, ...]
    epochs: int

    def adapt(self, model: nn.Module, new: Collection[str]) -> nn.Module:
        """The model itself."""
        return model

    def groups(self, layers: Sequence[LayerGroup], new: Collection[str]) -> tuple[LayerGroup, ...]:
        """The layer groups."""
        return tuple(layers)

    def phases(self, groups: Sequence[LayerGroup]) -> tuple[Phase, ...]:
        """One for each stage."""
        from finetune.durations import Duration
        from finetune.strategies.base import Phase, Rate

        names = [group.name for group in groups]
        return tuple(
            Phase(Duration(number * self.epochs, "epochs"), {name: Rate(1.0) for name in trained(names, count)})
            for number, count in enumerate(self.blocks)
        )


def trained(names: Sequence[str], blocks: int) -> list[str]:
    """The layer groups that train: the head, ``blocks`` from the top, and the embeddings under all of them."""
    layers = [name for name in names if name.startswith("layer.")]
    chosen = {"head", *layers[len(layers) - blocks :]} | ({"embeddings"} if blocks == len(layers) else set())
    return [name for name in names if name in chosen]


def task(data: Workload) -> Any:
    """The task as a user writes it."""
    from finetune import ImageClassification, TextClassification

    files = {"train": str(data.train), "validation": str(data.validation)}
    if data.shape.is_image:
        return ImageClassification(model=f"timm:{data.model}", data=files, metrics=("accuracy",))
    columns = {"text": "text", "label": "label"}
    return TextClassification(
        model=str(data.model), data={**files, **columns}, max_length=data.work.max_length, metrics=("accuracy",)
    )


def strategy(work: Work) -> Any:
    """Of the row's stages and adapters."""
    from finetune import Freeze, Full, LoRA

    if work.lora_rank:
        return LoRA(rank=work.lora_rank, alpha=2 * work.lora_rank)
    if not work.stages:
        return Full()
    if len(work.stages) == 1:  # what a user writes for it
        return Freeze(trainable=("head", *(f"layer.-{number + 1}" for number in range(work.stages[0]))))
    return Stages(blocks=work.stages, epochs=work.epochs)


def arguments(work: Work, speed: Any = None) -> dict[str, Any]:
    """What ``fit`` is given for any row."""
    from finetune import AdamW, Checkpointing, Precision, Speed, WarmupLinear

    every = f"{work.saves_every} steps" if work.saves_every else _NEVER
    return {
        "strategy": strategy(work),
        "schedule": WarmupLinear(warmup=f"{WARMUP:.0%}"),
        "optimizer": AdamW(lr=LR, weight_decay=WEIGHT_DECAY),
        "length": f"{work.total_epochs} epochs",
        "batch_size": work.batch_size,
        "max_grad_norm": MAX_GRAD_NORM,
        "precision": Precision(name=work.precision),
        "evaluate_every": "1 epoch" if work.evaluates else _NEVER,
        "checkpoint": Checkpointing(every=every, keep_last=1, keep_best=0),
        "log_every": f"{LOG_EVERY} steps",
        "seed": SEED,
        "speed": Speed() if speed is None else speed,
        "show": "nothing",
    }


def steps(work: Work, data: Workload, clock: Clock, *, speed: Any = None) -> None:
    """One epoch with a run folder, so that it logs; its only checkpoint comes after the window."""
    from finetune import fit

    with tempfile.TemporaryDirectory() as folder:
        fit(Clocked(task(data), clock), **arguments(work, speed), output_dir=str(Path(folder) / "run"))


def whole(work: Work, data: Workload, clock: Clock, *, speed: Any = None) -> dict[str, float]:
    """A whole run without a run folder: from the loaded model to the result, caches and all evaluations included."""
    from finetune import fit

    fit(Clocked(task(data), clock), **arguments(work, speed))
    clock.finished()
    return later_epochs(work, clock)


def later_epochs(work: Work, clock: Clock) -> dict[str, float]:
    """Seconds of the first epoch, with all that comes before it, and the mean of those after it."""
    starts = [clock.ticks.get(number * work.steps_per_epoch) for number in range(1, work.total_epochs)]
    known = [start for start in starts if start is not None]
    if len(known) < 2:
        return {}
    return {"first_epoch": known[0] - clock.began, "later_epoch": (known[-1] - known[0]) / (len(known) - 1)}


def drawn(work: Work) -> list[list[int]]:
    """The training examples of each update of a run, in our order: peers are given the same one."""
    from finetune.data.sampling import Sampler

    sampler = Sampler(work.num_examples, batch_size=work.batch_size, seed=SEED)
    total = work.total_epochs * sampler.steps_per_epoch
    return [[draw.index for draw in sampler.draws(step)] for step in range(total)]
