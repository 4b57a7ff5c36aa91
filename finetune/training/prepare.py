"""Data, model and plan of a run, checked and put together; nothing is trained and nothing is written."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import nn

from ..curricula import Curriculum
from ..data.sampling import MicroBatch, Sampler
from ..data.store import Store
from ..durations import Duration
from ..encoders import Forward
from ..errors import ConfigError, DataError
from ..layers import layer_groups, plain_name, trunk_blocks
from ..metrics import direction
from ..models.loaded import LoadedModel
from ..plan_document import describe
from ..plans import Plan, make_plan
from ..randomness import keyed
from ..run_config import RunConfig
from .facts import facts_of, is_own, num_visible, trained_names
from .micro_batches import resolve_micro_batch
from .placement import Placement
from .probe import probe


class Prepared(NamedTuple):
    """A run that is ready to train."""

    config: RunConfig
    train: Store
    validation: Store
    loaded: LoadedModel
    forward: Forward
    blocks: tuple[nn.Module, ...]
    plan: Plan
    micro_batch: MicroBatch
    unused: tuple[str, ...]  # planned, and not reached by the forward
    saved_names: tuple[str, ...]  # of parameters that train in some phase, and of buffers
    metric: str
    sign: int  # 1 where a higher metric is better, -1 where a lower one is
    document: dict[str, Any]  # what ``finetune plan`` prints


def prepare(config: RunConfig, placement: Placement) -> Prepared:
    """Load and check what the run needs, data before the model.

    Raises:
        DataError: Data that does not fit the task.
        ConfigError: A strategy that does not fit the model, or a schedule that does not fit the length.
        ModelError: A model that cannot be loaded.
    """
    task = config.task
    metric, sign = _metric(config)
    train, validation = task.load_split("train"), task.load_split("validation")
    if not len(train) or not len(validation):
        raise DataError("task.data: training and validation need at least one example each")
    if config.curriculum is not None:
        difficulty_of(config.curriculum, train)
    if "test" in task.splits():
        task.load_split("test")  # its faults belong before the training, not after
    with keyed(config.seed, "init"):
        loaded = task.load_model()
        model = _adapted(config, loaded)
    new = _names_of(model, loaded.new)
    plan = _planned(config, model, loaded, new=new, num_examples=len(train))
    forward = Forward(model)
    trained = trained_names(plan)
    with keyed(config.seed, "probe"):
        seen = probe(forward, train, task=task, progress=plan.at(0), planned=trained)
    micro_text = resolve_micro_batch(
        config.micro_batch, device=placement.device, num_parameters=_count(model), store=train
    )
    facts = facts_of(
        config,
        plan,
        train,
        validation,
        model=model,
        loaded=loaded,
        placement=placement,
        micro_batch=micro_text,
        new=new,
        seen=seen,
    )
    return Prepared(
        config=config,
        train=train,
        validation=validation,
        loaded=loaded,
        forward=forward,
        blocks=trunk_blocks(model),
        plan=plan,
        micro_batch=MicroBatch(micro_text),
        unused=seen.unused,
        saved_names=(*sorted(trained), *_buffers(model)),
        metric=metric,
        sign=sign,
        document=describe(plan, config, facts),
    )


def _planned(config: RunConfig, model: nn.Module, loaded: LoadedModel, *, new: list[str], num_examples: int) -> Plan:
    steps_per_epoch = -(-num_examples // config.batch_size)
    return make_plan(
        config.strategy,
        layers=layer_groups(model, new=loaded.new),
        new=new,
        schedule=config.schedule,
        optimizer=config.optimizer,
        total_steps=_total_steps(config, steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
    )


def sampler_of(prepared: Prepared, difficulty: np.ndarray | None) -> Sampler:
    """The draws of every update.

    Args:
        prepared: The run.
        difficulty: (examples,), for a curriculum; None without one.
    """
    config, plan, train = prepared.config, prepared.plan, prepared.train
    curriculum = config.curriculum
    visible = None
    if curriculum is not None:
        assert difficulty is not None
        ranking = curriculum.ranking(difficulty, seed=config.seed)

        def visible(step: int) -> np.ndarray:
            return ranking[: num_visible(curriculum, plan, step, len(train), config.batch_size)]

    return Sampler(
        len(train),
        batch_size=config.batch_size,
        seed=config.seed,
        order=config.order,
        lengths=train.lengths,
        visible=visible,
    )


def difficulty_of(curriculum: Curriculum, train: Store) -> np.ndarray | None:
    """The difficulty that the data itself gives; None where the starting model must be asked.

    Raises:
        DataError: No such column, or one that is not of numbers.
    """
    if curriculum.difficulty == "loss":
        return None
    if curriculum.difficulty == "length" and int(train.lengths.min()) == int(train.lengths.max()):
        raise ConfigError(
            "curriculum.difficulty: 'length' tells nothing apart here, as all examples have one length (images always "
            "do); use 'loss' or a numeric column"
        )
    if curriculum.difficulty == "length":
        return train.lengths.astype(np.float64)
    column = train.column(curriculum.difficulty)
    try:
        return np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"curriculum.difficulty: the column {curriculum.difficulty!r} is not of numbers; "
            "use 'length', 'loss', or a numeric column"
        ) from None


def _adapted(config: RunConfig, loaded: LoadedModel) -> nn.Module:
    try:
        model = config.strategy.adapt(loaded.module, loaded.new)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if hasattr(model, "peft_config") and getattr(config.task, "weights", "") == "scratch":
        raise ConfigError(
            "strategy: adapters are saved without their base, and with task.weights: scratch nobody could make "
            "it again; use task.weights: pretrained, or the strategy full"
        )
    return model


def _metric(config: RunConfig) -> tuple[str, int]:
    """The metric that decides, and its sign."""
    offered = [str(getattr(metric, "name", metric)) for metric in getattr(config.task, "metrics", ())]
    if not config.metric and not offered:
        raise ConfigError("metric: this task names no metrics; say which value decides, e.g. 'loss'")
    name = config.metric or offered[0]
    if offered and name not in (*offered, "loss"):
        raise ConfigError(f"metric: {name!r} is not among task.metrics ({', '.join(offered)}) and not 'loss'; add it")
    return name, -1 if name == "loss" or direction(name) == "minimize" else 1


def _total_steps(config: RunConfig, steps_per_epoch: int) -> int:
    total = Duration.parse(config.length).steps(steps_per_epoch=steps_per_epoch, total_steps=0)
    if total < 1:
        raise ConfigError(f"length: {config.length!r} is less than one update; an epoch is {steps_per_epoch} steps")
    return total


def _names_of(model: nn.Module, new: tuple[str, ...]) -> list[str]:
    """The new weights under the names they have in the adapted model."""
    wanted = set(new)
    return [name for name, _ in model.named_parameters() if is_own(name) and plain_name(name) in wanted]


def _buffers(model: nn.Module) -> list[str]:
    """Names of persistent buffers."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return sorted(name for name in model.state_dict() if name not in parameters and is_own(name))


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
