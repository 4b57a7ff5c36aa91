"""A run as data: every argument of ``fit`` in one frozen object."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge

from .curricula import Curriculum
from .data.sampling import MicroBatch
from .durations import CheckedText, IntervalText, LengthText
from .fields import check_fields
from .optimizers import AdamW, OptimizerConfig
from .policies import Checkpointing, EarlyStopping, NonFinite
from .precision import Precision
from .schedules import Schedule, WarmupLinear
from .speed import Speed
from .strategies.base import Strategy
from .strategies.full import Full
from .tasks.base import Task


def _micro_batch(text: Any) -> str:
    if text != "auto":
        MicroBatch(str(text))
    return str(text)


@dataclass(frozen=True)
class RunConfig:
    """What a recipe returns and a run folder stores; ``fit(**vars(config))`` runs it.

    Args:
        task: Data, model, loss and metrics.
        strategy: Which layers train, when, how fast.
        schedule: Course of the learning rate over the run.
        curriculum: Which examples may be drawn when; None: all, always.
        optimizer: With its base learning rates.
        length: Of the run, in epochs or steps.
        batch_size: Examples per update, over all processes.
        micro_batch: ``auto``, ``"N examples"`` or ``"N tokens"``: how much one forward takes on one device.
        order: ``random``; ``bucketed``: batches of similar length; or ``balanced``: all classes equally often.
        precision: Number format and loss scaler.
        max_grad_norm: Clips the norm of an update's whole gradient; 0 never clips.
        metric: Decides best and early stopping; ``""``: the task's first metric.
        evaluate_every: Interval; the end of the run is always evaluated.
        checkpoint: When to save and what to keep.
        early_stopping: None: never.
        non_finite: What is done about an update whose loss or gradient is not finite.
        workers: Loader processes.
        log_every: Interval of lines in ``log.jsonl``.
        seed: Of everything random.
        speed: Techniques that make the run fast; exact ones are on.
        output_dir: The run folder; None (in Python only): nothing is written.
    """

    task: Task
    strategy: Strategy = field(default_factory=Full)
    schedule: Schedule = field(default_factory=WarmupLinear)
    curriculum: Curriculum | None = None
    optimizer: OptimizerConfig = field(default_factory=AdamW)
    length: LengthText = "3 epochs"
    batch_size: Annotated[int, Ge(1)] = 32
    micro_batch: Annotated[str, CheckedText(_micro_batch)] = "auto"
    order: Literal["random", "bucketed", "balanced"] = "random"
    precision: Precision = field(default_factory=Precision)
    max_grad_norm: Annotated[float, Ge(0)] = 1.0
    metric: str = ""
    evaluate_every: IntervalText = "1 epoch"
    checkpoint: Checkpointing = field(default_factory=Checkpointing)
    early_stopping: EarlyStopping | None = None
    non_finite: NonFinite = field(default_factory=NonFinite)
    workers: Annotated[int, Ge(0)] = 0
    log_every: IntervalText = "10 steps"
    seed: Annotated[int, Ge(0)] = 42
    speed: Speed = field(default_factory=Speed)
    output_dir: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if str(self.output_dir or "").startswith("~"):  # which a shell leaves as it is in key=value
            raise ValueError(
                f"output_dir: {self.output_dir!r} would begin with a folder called so; write the path in full"
            )


def as_plain(value: Any) -> Any:
    """``value`` as JSON can hold it: dataclasses become mappings, a user's own object its qualified name."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: as_plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    named = value if hasattr(value, "__qualname__") else type(value)  # a function by its own name
    return f"<{named.__module__}.{named.__qualname__}>"
