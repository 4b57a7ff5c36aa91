"""The facts of a run that its plan is printed with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

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
    parsed, evaluations = MicroBatch(micro_batch), evaluation_steps(config, plan)
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
        evaluations=evaluations,
        data=train.fingerprint + validation.fingerprint,
        frozen_weights=_fingerprint(model, without=() if holds_start(config) else trained_names(plan)),
        activations=activation_bytes(seen, parsed, train, config.batch_size),
        warnings=[
            *plan_warnings(plan, evaluations),
            *_unused_warnings(seen.unused),
            *_batch_norm_warnings(model),
            *setting_warnings(
                config, plan, evaluations=evaluations, precision=placement.precision, lengths=train.lengths
            ),
            *without_effect(config.strategy, plan.trained()),
            *schedule_warnings(config, plan, evaluations),
            *task_warnings(config, plan),
            *start_warnings(config),
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
