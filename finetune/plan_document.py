"""What ``finetune plan`` prints and ``plan.json`` stores: the plan of a run as plain data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from .durations import Duration
from .optimizers import base_lr, is_decayed
from .plan_curves import SettingAt, curve, flat, plateau, settings_of, stretches
from .plans import Plan
from .run_config import RunConfig, as_plain
from .strategies.base import Plateau

# A resumed run must agree on these; the others change no result (or, as micro_batch, only the last bits).
_IDENTITY = (
    "task strategy schedule curriculum optimizer length batch_size order precision max_grad_norm metric "
    "evaluate_every early_stopping seed"
).split()


@dataclass(frozen=True)
class RunFacts:
    """What a plan is about, beyond strategy and schedule; filled in by whoever loaded data and model."""

    library: str
    num_examples: int
    num_ranks: int
    micro_batch: str
    micro_batches: tuple[int, int]  # fewest and most per update and rank
    precision: str
    device: str
    sizes: Mapping[str, tuple[int, ...]]  # shape of every parameter
    new: Sequence[str]
    visible: Sequence[tuple[int, float, int]]  # (from step, share, examples); empty without a curriculum
    evaluations: Sequence[int]  # steps after which the run evaluates
    data: str  # fingerprint of training and validation split
    frozen_weights: str  # fingerprint of what never trains, and is therefore in no checkpoint
    activations: int  # bytes kept for backward by one micro-batch
    warnings: Sequence[str]
    ways: Mapping[str, str] = field(default_factory=dict)  # each technique of speed: on, or off and why
    is_sharded: bool = False  # weights are cut over processes
    used_rows: str = ""  # which rows of the word embedding train, and what the others hold; empty: all train
    num_updated: Mapping[str, int] = field(default_factory=dict)  # of a parameter of which only a part is updated
    cached: Mapping[str, Any] = field(default_factory=dict)  # what is kept of the frozen layers, and where
    held: int = 0  # bytes of weights that are kept as they were at the start
    difficulty: Mapping[str, Any] = field(default_factory=dict)  # what a curriculum ranks by; empty without one
    dropped: Mapping[str, str] = field(default_factory=dict)  # new weights that the checkpoint has, and why not taken
    cut: Mapping[str, Any] = field(default_factory=dict)  # what the length limit leaves out of training texts


def describe(plan: Plan, config: RunConfig, facts: RunFacts) -> dict[str, Any]:
    """The JSON document of a plan: groups, phases, curves, memory and warnings."""
    planned = {name for group in plan.groups if group.name in plan.trained() for name in group.parameters}
    counts = {name: _count(shape) for name, shape in facts.sizes.items()}
    trained = sum(counts[name] for name in planned)
    setting = settings_of(plan)
    groups = _groups(plan, facts, counts, setting)
    points = curve(plan, setting, peaks={part["peak_at"] for group in groups for part in group["trains"]})
    steps = [point["step"] for point in points]
    document = {
        "task": getattr(config.task, "name", type(config.task).__name__),
        "wraps": _wraps(config.task),
        "loss": as_plain(getattr(config.task, "loss", None)),
        "model": getattr(config.task, "model", ""),
        "library": facts.library,
        "total_steps": plan.total_steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "batch_size": config.batch_size,
        "num_examples": facts.num_examples,
        "cut": dict(facts.cut),
        "num_ranks": facts.num_ranks,
        "micro_batch": facts.micro_batch,
        "micro_batches_per_step": {"min": facts.micro_batches[0], "max": facts.micro_batches[1]},
        "precision": facts.precision,
        "device": facts.device,
        "optimizer": as_plain(config.optimizer),
        "schedule": as_plain(config.schedule),
        "strategy": as_plain(config.strategy),
        "groups": groups,
        "dropped": dict(facts.dropped),
        "phases": _phases(plan, facts.evaluations),
        "num_trained": trained,
        "num_frozen": sum(counts.values()) - trained,
        "num_parameters": sum(counts.values()),
        "curve": points,
        "plateau": plateau(plan, facts.evaluations, setting, steps=steps),
        "curriculum": _curriculum(facts),
        "difficulty": {key: facts.difficulty[key] for key in facts.difficulty if key != "spread"} or None,
        "evaluations": list(facts.evaluations),
        "speed": dict(facts.ways),
        "cached": dict(facts.cached),
        "memory": _memory(plan, config, facts, counts),
        "warnings": list(facts.warnings),
        "data": facts.data,
        "identity": identity(plan, config, facts),
    }
    document["digest"] = digest(document["identity"])
    return document


def identity(plan: Plan, config: RunConfig, facts: RunFacts) -> dict[str, Any]:
    """What must be equal for a checkpoint to be continued."""
    values = {key: value for key, value in as_plain(config).items() if key in _IDENTITY}
    values["precision"] = {**values["precision"], "name": facts.precision}
    values["new"] = list(facts.new)
    values["data"] = {"fingerprint": facts.data, "num_examples": facts.num_examples}
    values["frozen_weights"] = facts.frozen_weights
    values["used_vocabulary"] = facts.used_rows
    values["groups"] = {group.name: len(group.parameters) for group in plan.groups}
    found: dict[str, Any] = canonical(json.loads(json.dumps(values)))
    return found


def canonical(value: Any) -> Any:
    """Plain values in one spelling, so that what means the same is equal: ``"1 steps"`` as ``"1 step"``, 1.0 as 1."""
    if isinstance(value, Mapping):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if isinstance(value, str):
        with suppress(ValueError):
            return str(Duration.parse(value))
    return int(value) if isinstance(value, float) and value.is_integer() else value


def digest(document: Mapping[str, Any]) -> str:
    """A short name for equal content: BLAKE2b of the canonical JSON, 16 hex digits."""
    return hashlib.blake2b(json.dumps(document, sort_keys=True).encode(), digest_size=8).hexdigest()


def differences(before: Any, now: Any, path: str = "") -> list[str]:
    """Lines ``path: before -> now`` for everything in which two plain documents differ, other spellings apart."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        keys = list(dict.fromkeys([*before, *now]))
        return [
            line
            for key in keys
            for line in differences(
                before.get(key, "(absent)"), now.get(key, "(absent)"), f"{path}.{key}" if path else key
            )
        ]
    return [] if canonical(before) == canonical(now) else [f"{path}: {json.dumps(before)} -> {json.dumps(now)}"]


def _wraps(task: Any) -> list[dict[str, Any]]:
    """The settings of each task around a task, from the outermost to the one that holds the data."""
    found = []
    while base := getattr(task, "__dict__", {}).get("base"):
        found.append({key: value for key, value in as_plain(task).items() if key != "base"})
        task = base
    return [*found, {"name": getattr(task, "name", type(task).__name__)}] if found else []


def _curriculum(facts: RunFacts) -> list[dict[str, Any]] | None:
    """What may be drawn from a step on; with its lowest, median and highest difficulty, where these are known."""
    spread = facts.difficulty.get("spread") or [None] * len(facts.visible)
    return [
        {"step": step, "share": share, "visible": count} | ({"difficulty": found} if found else {})
        for (step, share, count), found in zip(facts.visible, spread, strict=True)
    ] or None


def _count(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _groups(plan: Plan, facts: RunFacts, counts: Mapping[str, int], setting: SettingAt) -> list[dict[str, Any]]:
    new = set(facts.new)
    return [
        {
            "name": group.name,
            "num_parameters": sum(counts[name] for name in group.parameters),
            "num_decayed": sum(counts[name] for name in group.parameters if _decayed(plan, name, facts)),
            "new": [name for name in group.parameters if name in new],
            "base_lr": base_lr(plan.optimizer, group.name),
            "trains": stretches(plan, group.name, setting),
        }
        for group in plan.groups
    ]


def _decayed(plan: Plan, name: str, facts: RunFacts) -> bool:
    import torch

    return plan.optimizer.weight_decay > 0 and is_decayed(name, torch.empty(facts.sizes[name], device="meta"))


def _phases(plan: Plan, evaluations: Sequence[int]) -> list[dict[str, Any]]:
    found = []
    soonest = plan.starts(plan.at(plan.total_steps, flat(plan, evaluations)))
    starts = [min(start, plan.total_steps) for start in plan.starts(plan.at(0))]
    ends = [*starts[1:], plan.total_steps]
    for number in plan.reachable():
        phase, start, end = plan.phases[number], starts[number], ends[number]
        if isinstance(phase.start, Plateau):
            count = phase.start.patience
            when = f"when {count} evaluations did not improve, at latest step {start}"
        else:
            when = f"step {start}"
        earliest = min(soonest[number], start)
        trains = list(phase.rates)
        found.append({"from": start, "earliest": earliest, "to": end, "starts": when, "trains": trains})
    return found


def _memory(plan: Plan, config: RunConfig, facts: RunFacts, counts: Mapping[str, int]) -> dict[str, int]:
    """Expected bytes on one device: fp32 weights, gradients and optimizer state of what trains, kept activations."""
    held = {**counts, **facts.num_updated}
    by_group = {group.name: sum(held[name] for name in group.parameters) for group in plan.groups}
    at_once = max((sum(by_group[name] for name in phase.rates) for phase in plan.phases), default=0)
    ever = sum(by_group[name] for name in plan.trained())
    moments = 2 if getattr(config.optimizer, "betas", None) else 1 if getattr(config.optimizer, "momentum", 0) else 0
    copies = config.speed.async_save != "off" and config.output_dir is not None and not facts.is_sharded
    memory = {
        "weights": 4 * sum(counts.values()),
        "gradients": 4 * at_once,
        "optimizer": 4 * moments * ever,
        "activations": facts.activations,
    }
    if facts.held:
        memory["start"] = facts.held
    if copies and facts.device == "cpu":  # else it lies beside the device, in the memory of the host
        memory["snapshot"] = 4 * (1 + moments) * ever  # of a checkpoint that is being written
    if facts.cached.get("where") == "memory":
        memory["prefix_cache"] = facts.cached["bytes"]
    return memory | {"total": sum(memory.values())}
