"""The facts of a run that its plan is printed with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
import xxhash
from torch import nn

from ..data.sampling import MicroBatch, Sampler, Tokens, cut
from ..data.store import Store
from ..durations import due_steps
from ..encoders.vocabulary import UsedRows
from ..models.loaded import LoadedModel
from ..plan_checks import plan_warnings
from ..plan_document import RunFacts
from ..plans import Plan
from ..policies import NonFinite
from ..precision import Precision
from ..prefix.deciding import CachePlan
from ..run_config import RunConfig
from ..strategies.chains import without_effect
from .course_facts import course_facts
from .difficulty import Difficulty
from .modes import is_batch_norm
from .placement import Placement
from .probe import Probe
from .schedule_checks import schedule_warnings
from .setting_checks import setting_warnings
from .start_weights import held_bytes, holds_start, start_warnings
from .task_checks import task_warnings

_SAMPLED_UPDATES = 100  # of which the plan counts micro-batches


def facts_of(
    config: RunConfig,
    plan: Plan,
    train: Store,
    validation: Store,
    *,
    model: nn.Module,
    loaded: LoadedModel,
    placement: Placement,
    micro_batch: str,
    new: Sequence[str],
    seen: Probe,
    cached: CachePlan,
    ways: Mapping[str, str],
    used: UsedRows | None,
    tokens: Tokens,
    difficulty: Difficulty | None,
) -> RunFacts:
    """What ``describe`` needs to know of data, model and machine."""
    parsed = MicroBatch(micro_batch)
    course = course_facts(config, plan, difficulty, num_examples=len(train), is_head_new=bool(loaded.new))
    return RunFacts(
        library=loaded.library,
        num_examples=len(train),
        num_ranks=placement.ranks.count,
        micro_batch=micro_batch,
        micro_batches=_micro_batch_range(config, plan, train, parsed, num_ranks=placement.ranks.count, tokens=tokens),
        precision=placement.precision,
        device=_device_name(placement.device),
        sizes={name: tuple(parameter.shape) for name, parameter in model.named_parameters() if is_own(name)},
        new=new,
        dropped=loaded.dropped,
        visible=course.visible,
        evaluations=evaluation_steps(config, plan),
        data=train.fingerprint + validation.fingerprint,
        frozen_weights=_fingerprint(model, without=() if holds_start(config) else trained_names(plan)),
        activations=activation_bytes(seen, parsed, train, config.batch_size),
        warnings=[
            *plan_warnings(plan, evaluation_steps(config, plan)),
            *_unused_warnings(seen.unused),
            *_batch_norm_warnings(model),
            *_without_effect(config, plan, placement.precision, train.lengths),
            *course.warnings,
        ],
        cached=cached.document(),
        cut=cut_of(train),
        ways={**ways, **course.ways},
        is_sharded=placement.is_sharded,
        used_rows=used.digest if used is not None else "",
        held=held_bytes(config, model),
        difficulty=course.difficulty,
        num_updated=_num_updated(model, used),
    )


def cut_of(train: Store) -> dict[str, float]:
    """What the length limit leaves out of the training texts; nothing where none is cut."""
    count = getattr(train, "num_cut", 0)
    return {"num_texts": count, "share_of_tokens": getattr(train, "share_left_out", 0.0)} if count else {}


def _num_updated(model: nn.Module, used: UsedRows | None) -> dict[str, int]:
    """Numbers that are trained of a table of which only some rows are: those in use, and the row that only decays."""
    if used is None:
        return {}
    return {used.name: (len(used.ids) + 1) * model.get_parameter(used.name).shape[1]}


def trained_names(plan: Plan) -> set[str]:
    """The parameters that train in some phase that the run reaches."""
    trained = plan.trained()
    return {name for group in plan.groups if group.name in trained for name in group.parameters}


def is_own(name: str) -> bool:
    """Not one of the frozen originals that PEFT keeps beside a module it copied."""
    return ".original_module." not in name


def evaluation_steps(config: RunConfig, plan: Plan) -> list[int]:
    """The steps after which the run evaluates; its end is always one."""
    due = due_steps(config.evaluate_every, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
    return due if due and due[-1] == plan.total_steps else [*due, plan.total_steps]


def _micro_batch_range(
    config: RunConfig, plan: Plan, train: Store, micro_batch: MicroBatch, *, num_ranks: int, tokens: Tokens
) -> tuple[int, int]:
    """Fewest and most micro-batches of an update on one rank, over the first updates in random order."""
    sampler = Sampler(
        len(train),
        batch_size=config.batch_size,
        seed=config.seed,
        order=config.order,
        lengths=train.lengths,
        labels=train.labels,
    )
    counts = [
        len(cut(sampler.draws(step), train.lengths, num_ranks=num_ranks, micro_batch=micro_batch, tokens=tokens)[0])
        for step in range(min(plan.total_steps, _SAMPLED_UPDATES))
    ]
    return min(counts), max(counts)


def activation_bytes(seen: Probe, micro_batch: MicroBatch, train: Store, batch_size: int) -> int:
    """What a micro-batch of the longest examples keeps for backward."""
    most = min(batch_size, len(train))
    if micro_batch.unit == "tokens":
        most = min(most, max(1, micro_batch.amount // int(train.lengths.max())))
    else:
        most = min(most, micro_batch.amount)
    return seen.per_batch + seen.per_example * most


def _batch_norm_warnings(model: nn.Module) -> list[str]:
    count = sum(is_batch_norm(module) for module in model.modules())
    return [f"{count} batch norms keep the checkpoint's statistics; their scales and shifts train"] if count else []


def _unused_warnings(unused: tuple[str, ...]) -> list[str]:
    if not unused:
        return []
    shown = ", ".join(unused[:4]) + (f" and {len(unused) - 4} more" if len(unused) > 4 else "")
    return [f"planned, but they never receive a gradient, because the forward does not use them: {shown}"]


def _without_effect(config: RunConfig, plan: Plan, precision: str, lengths: np.ndarray) -> list[str]:
    """Options that are set and change nothing, or less than they say."""
    found = []
    if config.early_stopping is not None and not config.checkpoint.keep_best:
        found.append("early_stopping with checkpoint.keep_best: 0 ends with the last weights, which are not the best")
    every = config.checkpoint.keep_every
    if every is not None and not due_steps(every, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps):
        found.append(f"checkpoint.keep_every: {every}: without effect, as the run is shorter")
    scaler = ("initial_scale", "growth", "backoff", "interval", "min", "max")
    plain = Precision()
    changed = [name for name in scaler if getattr(config.precision, name) != getattr(plain, name)]
    if changed and precision != "fp16":
        found.append(f"precision.{', precision.'.join(changed)}: without effect, as the run computes in {precision}")
    if config.order == "bucketed" and int(lengths.min()) == int(lengths.max()):
        found.append("order: bucketed: without effect, as all examples have one length")
    if config.optimizer.head_lr is not None and "head" not in plan.trained():
        found.append("optimizer.head_lr: without effect, as the head never trains")
    stopping = config.early_stopping
    if stopping is not None and stopping.patience >= len(evaluation_steps(config, plan)):
        found.append(f"early_stopping.patience: {stopping.patience} cannot be reached in this run's evaluations")
    found += _about_bad_updates(config, plan)
    found += without_effect(config.strategy, plan.trained())
    found += schedule_warnings(config, plan, evaluation_steps(config, plan))
    found += task_warnings(config, plan)
    found += setting_warnings(config, plan, num_examples=len(lengths))
    found += start_warnings(config)
    return found


def _about_bad_updates(config: RunConfig, plan: Plan) -> list[str]:
    """Where the policy for them does not do what it says."""
    policy = config.non_finite
    if policy.name == "stop" and policy.at_most != NonFinite().at_most:
        return [f"non_finite.at_most: {policy.at_most}: without effect, as non_finite.name: stop allows none"]
    if policy.name != "rollback":
        return []
    if config.output_dir is None:
        return ["non_finite.name: rollback: nothing is saved without output_dir, so the first bad update ends the run"]
    due = due_steps(config.checkpoint.every, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps)
    first = min([*due, *evaluation_steps(config, plan)])
    return [f"non_finite.name: rollback: a bad update before the first checkpoint (step {first}) ends the run"]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _fingerprint(model: nn.Module, *, without: Collection[str]) -> str:
    """Names the weights that a run depends on and a checkpoint leaves out, such as those that never train."""
    digest = xxhash.xxh3_128()
    for name, parameter in model.named_parameters():
        if name not in without:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
