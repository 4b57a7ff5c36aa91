"""Data, model and plan of a run, checked and put together; nothing is trained and nothing is written."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from torch import nn

from ..curricula import Curriculum
from ..data.sampling import MicroBatch, Sampler, cut
from ..data.store import Store
from ..durations import Duration, due_steps
from ..encoders import Forward
from ..errors import ConfigError, DataError
from ..layers import layer_groups, plain_name, trunk_blocks
from ..metrics import direction
from ..models.loaded import LoadedModel
from ..plan_document import RunFacts, describe
from ..plans import Plan, make_plan, plan_warnings
from ..randomness import keyed
from ..run_config import RunConfig
from .micro_batches import resolve_micro_batch
from .placement import Placement
from .probe import probe

_SAMPLED_UPDATES = 100  # of which the plan counts micro-batches


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
    with keyed(config.seed, "init"):
        loaded = task.load_model()
        model = _adapted(config, loaded)
    steps_per_epoch = -(-len(train) // config.batch_size)
    new = _names_of(model, loaded.new)
    plan = make_plan(
        config.strategy,
        layers=layer_groups(model, new=loaded.new),
        new=new,
        schedule=config.schedule,
        optimizer=config.optimizer,
        total_steps=_total_steps(config, steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
    )
    forward = Forward(model)
    trained = {name for group in plan.groups if group.name in plan.trained() for name in group.parameters}
    with keyed(config.seed, "probe"):
        seen = probe(forward, train, task=task, progress=plan.at(0), planned=trained)
    micro_text = resolve_micro_batch(
        config.micro_batch, device=placement.device, num_parameters=_count(model), store=train
    )
    micro_batch = MicroBatch(micro_text)
    facts = RunFacts(
        library=loaded.library,
        num_examples=len(train),
        num_ranks=placement.ranks.count,
        micro_batch=micro_text,
        micro_batches=_micro_batch_range(config, plan, train, micro_batch, placement.ranks.count),
        precision=placement.precision,
        device=_device_name(placement.device),
        sizes={name: tuple(parameter.shape) for name, parameter in model.named_parameters() if _is_own(name)},
        new=new,
        visible=_visible(config, plan, len(train)),
        evaluations=evaluation_steps(config, plan),
        data=train.fingerprint + validation.fingerprint,
        activations=_activation_bytes(seen.activation_bytes, micro_batch, train, config.batch_size),
        warnings=[*plan_warnings(plan), *_unused_warnings(seen.unused), *_metric_warnings(config)],
    )
    document = describe(plan, config, facts)
    document["identity"]["frozen_weights"] = _fingerprint(model, without=trained)
    return Prepared(
        config=config,
        train=train,
        validation=validation,
        loaded=loaded,
        forward=forward,
        blocks=trunk_blocks(model),
        plan=plan,
        micro_batch=micro_batch,
        unused=seen.unused,
        saved_names=(*sorted(trained), *_buffers(model)),
        metric=metric,
        sign=sign,
        document=document,
    )


def evaluation_steps(config: RunConfig, plan: Plan) -> list[int]:
    """The steps after which the run evaluates; its end is always one."""
    due = due_steps(config.evaluate_every, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
    return due if due and due[-1] == plan.total_steps else [*due, plan.total_steps]


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
            return ranking[: _num_visible(curriculum, plan, step, len(train), config.batch_size)]

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


def _num_visible(curriculum: Curriculum, plan: Plan, step: int, num_examples: int, batch_size: int) -> int:
    return curriculum.num_visible(plan.at(step), num_examples=num_examples, batch_size=batch_size)


def _adapted(config: RunConfig, loaded: LoadedModel) -> nn.Module:
    try:
        return config.strategy.adapt(loaded.module, loaded.new)
    except ValueError as error:
        raise ConfigError(str(error)) from None


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
    return [name for name, _ in model.named_parameters() if _is_own(name) and plain_name(name) in wanted]


def _is_own(name: str) -> bool:
    """Not one of the frozen originals that PEFT keeps beside a module it copied."""
    return ".original_module." not in name


def _buffers(model: nn.Module) -> list[str]:
    """Names of persistent buffers."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return sorted(name for name in model.state_dict() if name not in parameters and _is_own(name))


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _micro_batch_range(
    config: RunConfig, plan: Plan, train: Store, micro_batch: MicroBatch, num_ranks: int
) -> tuple[int, int]:
    """Fewest and most micro-batches of an update on one rank, over the first updates in random order."""
    sampler = Sampler(
        len(train), batch_size=config.batch_size, seed=config.seed, order=config.order, lengths=train.lengths
    )
    counts = [
        len(cut(sampler.draws(step), train.lengths, num_ranks=num_ranks, micro_batch=micro_batch)[0])
        for step in range(min(plan.total_steps, _SAMPLED_UPDATES))
    ]
    return min(counts), max(counts)


def _activation_bytes(per_example: int, micro_batch: MicroBatch, train: Store, batch_size: int) -> int:
    """What a micro-batch of the longest examples keeps for backward."""
    most = min(batch_size, len(train))
    if micro_batch.unit == "tokens":
        most = min(most, max(1, micro_batch.amount // int(train.lengths.max())))
    else:
        most = min(most, micro_batch.amount)
    return per_example * most


def _visible(config: RunConfig, plan: Plan, num_examples: int) -> list[tuple[int, float, int]]:
    """A curriculum at eleven points of its course."""
    curriculum = config.curriculum
    if curriculum is None:
        return []
    until = min(plan.total_steps, plan.at(0).steps(curriculum.until))
    steps = sorted({round(until * tenth / 10) for tenth in range(11)})
    return [
        (
            step,
            curriculum.share(plan.at(step)),
            _num_visible(curriculum, plan, step, num_examples, config.batch_size),
        )
        for step in steps
    ]


def _unused_warnings(unused: tuple[str, ...]) -> list[str]:
    if not unused:
        return []
    shown = ", ".join(unused[:4]) + (f" and {len(unused) - 4} more" if len(unused) > 4 else "")
    return [f"planned, but they never receive a gradient, because the forward does not use them: {shown}"]


def _metric_warnings(config: RunConfig) -> list[str]:
    if config.early_stopping is None or config.checkpoint.keep_best:
        return []
    return ["early_stopping with checkpoint.keep_best: 0 ends with the last weights, which are not the best"]


def _fingerprint(model: nn.Module, *, without: set[str]) -> str:
    """Names the weights that never train, which a checkpoint therefore leaves out."""
    digest = xxhash.xxh3_128()
    for name, parameter in model.named_parameters():
        if name not in without:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
