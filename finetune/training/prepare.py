"""Data, model and plan of a run, checked and put together; nothing is trained and nothing is written."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from ..data.rows import Fault
from ..data.sampling import MicroBatch, Sampler, check_order
from ..data.store import Store, is_labelled
from ..durations import Duration
from ..encoders import Forward
from ..encoders.vocabulary import UsedRows
from ..errors import ConfigError, DataError
from ..layers import layer_groups, plain_name, trunk_blocks
from ..metrics import direction
from ..models.loaded import LoadedModel
from ..plan_document import describe
from ..plans import Plan, make_plan
from ..prefix.deciding import CachePlan
from ..progress import Progress
from ..randomness import keyed
from ..run_config import RunConfig
from ..strategies.chains import renewed
from ..tasks.wrapping import told_inside
from .choosing import choose
from .difficulty import Difficulty, checked_difficulty, data_difficulty
from .facts import facts_of, is_own, trained_names
from .placement import Placement
from .relative_gradients import with_measured
from .start_weights import check_start
from .ways import keep_tokens

_MOST_STEPS = 100_000_000
_MOST_EVALUATIONS = 100_000  # each is listed in the plan


class Prepared(NamedTuple):
    """A run that is ready to train."""

    config: RunConfig
    train: Store
    validation: Store
    test: Store | None  # one to be scored at the end
    loaded: LoadedModel
    forward: Forward
    blocks: tuple[nn.Module, ...]
    plan: Plan
    micro_batch: MicroBatch
    unused: tuple[str, ...]  # planned, and not reached by the forward
    saved_names: tuple[str, ...]  # of parameters that train in some phase, and of buffers
    metric: str
    sign: int  # 1 where a higher metric is better, -1 where a lower one is
    cached: CachePlan  # what is kept of the frozen layers
    used_rows: UsedRows | None  # of the word embedding, that train; None: all
    difficulty: Difficulty | None  # what a curriculum ranks by; None without one
    skipped: dict[str, tuple[Fault, ...]]  # rows that were left out, of the splits that have such
    document: dict[str, Any]  # what ``finetune plan`` prints


def prepare(config: RunConfig, placement: Placement) -> Prepared:
    """Load and check what the run needs, data before the model.

    Raises:
        DataError: Data that does not fit the task.
        ConfigError: A strategy that does not fit the model, or a schedule that does not fit the length.
        ModelError: A model that cannot be loaded.
        LaunchError: A course of several phases under FSDP1.
    """
    with told_inside(config.task):
        metric, sign = _metric(config)
        check_start(config, placement)
        splits = _splits(config)
        difficulty = data_difficulty(config, splits["train"], placement)
        config, loaded, model = _loaded(config, splits["train"], placement)
    new = _names_of(model, (*loaded.new, *renewed(config.strategy, model)))
    plan = _planned(config, model, loaded, new=new, num_examples=len(splits["train"]), placement=placement)
    chosen = choose(config, placement, plan=plan, model=model, loaded=loaded, splits=splits)
    difficulty = checked_difficulty(difficulty, config, plan, splits["train"], placement=placement, chosen=chosen)
    facts = facts_of(
        config,
        plan,
        splits["train"],
        splits["validation"],
        model=model,
        loaded=loaded,
        placement=placement,
        micro_batch=chosen.micro_batch,
        new=new,
        seen=chosen.seen,
        cached=chosen.cached,
        ways=chosen.words,
        used=chosen.used,
        tokens=chosen.forward.tokens,
        difficulty=difficulty,
    )
    return Prepared(
        config=config,
        train=splits["train"],
        validation=splits["validation"],
        test=splits.get("test"),
        loaded=loaded,
        forward=chosen.forward,
        blocks=trunk_blocks(model),
        plan=plan,
        micro_batch=MicroBatch(chosen.micro_batch),
        unused=chosen.seen.unused,
        saved_names=(*sorted(trained_names(plan)), *_buffers(model)),
        metric=metric,
        sign=sign,
        cached=chosen.cached,
        used_rows=chosen.used,
        difficulty=difficulty,
        skipped={name: found for name, store in splits.items() if (found := getattr(store, "skipped", ()))},
        document=describe(plan, config, facts),
    )


def _splits(config: RunConfig) -> dict[str, Store]:
    """All splits that there are; their faults belong before the training, not after."""
    keep_tokens(config.task, config.speed)
    splits = {name: config.task.load_split(name) for name in ("train", "validation")}
    if not all(map(len, splits.values())):
        raise DataError("task.data: training and validation need at least one example each")
    check_order(config.order, splits["train"].labels)
    if "test" in config.task.splits():
        test = config.task.load_split("test")
        if is_labelled(test) or not is_labelled(splits["train"]):  # a task of the user's own has names of its own
            return {**splits, "test": test}
        warnings.warn("task.data: the test split has no labels, so this run does not score it", stacklevel=2)
    return splits


def _loaded(config: RunConfig, train: Store, placement: Placement) -> tuple[RunConfig, LoadedModel, nn.Module]:
    """The model, and adapted; before, the strategy of the run is told what it asks of it."""
    steps_per_epoch = -(-len(train) // config.batch_size)
    progress = Progress(0, _total_steps(config, steps_per_epoch), steps_per_epoch)
    with keyed(config.seed, "init"):
        loaded = config.task.load_model()
        config = with_measured(config, loaded, train, progress=progress, placement=placement)
        return config, loaded, _adapted(config, loaded)


def _planned(
    config: RunConfig,
    model: nn.Module,
    loaded: LoadedModel,
    *,
    new: list[str],
    num_examples: int,
    placement: Placement,
) -> Plan:
    steps_per_epoch = -(-num_examples // config.batch_size)
    plan = make_plan(
        config.strategy,
        layers=layer_groups(model, new=loaded.new),
        new=new,
        schedule=config.schedule,
        optimizer=config.optimizer,
        total_steps=_total_steps(config, steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
    )
    placement.check_phases(len(plan.phases))
    return plan


def sampler_of(prepared: Prepared, difficulty: np.ndarray | None) -> Sampler:
    """The draws of every update.

    Args:
        prepared: The run.
        difficulty: (examples,), for a curriculum; None without one.
    """
    config, plan, train = prepared.config, prepared.plan, prepared.train
    visible = None
    if config.curriculum is not None:
        assert difficulty is not None
        course = config.curriculum.course(difficulty, seed=config.seed, batch_size=config.batch_size)

        def visible(step: int) -> np.ndarray:
            return course.visible(plan.at(step))

    return Sampler(
        len(train),
        batch_size=config.batch_size,
        seed=config.seed,
        order=config.order,
        lengths=train.lengths,
        labels=train.labels,
        visible=visible,
    )


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
    if total > _MOST_STEPS:
        raise ConfigError(f"length: {config.length!r} is {total:,} steps, expected at most {_MOST_STEPS:,}; give less")
    every = Duration.parse(config.evaluate_every).steps(steps_per_epoch=steps_per_epoch, total_steps=total)
    if (times := total // max(1, every)) > _MOST_EVALUATIONS:
        raise ConfigError(
            f"evaluate_every: {config.evaluate_every!r} is {times:,} evaluations in {config.length!r}, expected at "
            f"most {_MOST_EVALUATIONS:,}; evaluate less often, or give a shorter length"
        )
    return total


def _names_of(model: nn.Module, new: tuple[str, ...]) -> list[str]:
    """The new weights under the names they have in the adapted model."""
    wanted = set(new)
    return [name for name, _ in model.named_parameters() if is_own(name) and plain_name(name) in wanted]


def _buffers(model: nn.Module) -> list[str]:
    """Names of persistent buffers."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return sorted(name for name in model.state_dict() if name not in parameters and is_own(name))
