"""How a run goes through its model: checked, tried on the longest example, and decided before anything trains."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from torch import nn

from ..cpu_runtime import why_unset
from ..data.sampling import MicroBatch
from ..data.store import Store
from ..encoders import Forward
from ..encoders.vocabulary import UsedRows
from ..models.loaded import LoadedModel
from ..plans import Plan
from ..prefix.deciding import CachePlan
from ..prefix.planning import plan_cache
from ..randomness import keyed
from ..run_config import RunConfig
from ..tasks.l2_sp import unpenalised
from .check_forward import check_forward
from .facts import activation_bytes, evaluation_steps, trained_names
from .gpu_ways import gpu_words, num_updates
from .image_keeping import plan_images
from .micro_batches import resolve_micro_batch
from .placement import Placement
from .probe import Probe, probe
from .ways import choose_rows, decide_recomputing, image_words, take_ways


class Chosen(NamedTuple):
    """The ways of a run."""

    forward: Forward
    micro_batch: str
    seen: Probe
    cached: CachePlan  # what is kept of the frozen layers
    used: UsedRows | None  # rows of the word embedding that train; None: all
    words: dict[str, str]  # of each technique: on, or off and why


def choose(
    config: RunConfig,
    placement: Placement,
    *,
    plan: Plan,
    model: nn.Module,
    loaded: LoadedModel,
    splits: dict[str, Store],
) -> Chosen:
    """Wrap the model, and decide which techniques of ``config.speed`` it takes.

    Args:
        config: Of the run.
        placement: Where it will run; the model is not there yet.
        plan: What trains when.
        model: The classifier, adapted.
        loaded: Where it came from.
        splits: All that the run reads.
    """
    train, trained = splits["train"], trained_names(plan)
    forward = Forward(model, config.speed)
    check_forward(forward, train)
    words = take_ways(forward, train, config.speed)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    micro_batch = resolve_micro_batch(
        config.micro_batch, device=placement.device, num_parameters=num_parameters, store=train
    )
    seen = _probed(config, forward, train, plan=plan, trained=trained)
    kept = activation_bytes(seen, MicroBatch(micro_batch), train, config.batch_size)
    updated = sum(parameter.numel() for name, parameter in model.named_parameters() if name in trained)
    needed = kept + 4 * (num_parameters + 3 * updated)  # fp32 weights; gradients and two moments
    words["activation_checkpointing"] = decide_recomputing(
        forward, config.speed, needed=needed, device=placement.device
    )
    if words["activation_checkpointing"].startswith("on"):
        seen = _probed(config, forward, train, plan=plan, trained=trained)
    words |= gpu_words(
        forward, config=config, lasts=num_updates(plan), micro_batch=MicroBatch(micro_batch), placement=placement
    )
    used, words["used_vocabulary"] = choose_rows(
        forward,
        list(splits.values()),
        trained=trained,
        config=config,
        special=getattr(loaded.processor, "all_special_ids", ()),
        is_sharded=placement.is_sharded,
    )
    unset = why_unset(placement.device.type, config.speed.cpu_runtime)
    words["cpu_runtime"] = "on" if unset is None else f"idle: {unset}"
    evaluations = evaluation_steps(config, plan)
    read = {name: splits[name] for name in ("train", "validation")}
    cached = plan_cache(
        forward, plan, read, speed=config.speed, evaluations=evaluations, num_ranks=placement.ranks.count
    )
    images = plan_images(read, plan, evaluations=evaluations, cached=cached, speed=config.speed)
    words |= image_words(images)
    return Chosen(forward, micro_batch, seen, cached, used, words)


def _probed(config: RunConfig, forward: Forward, train: Store, *, plan: Plan, trained: Collection[str]) -> Probe:
    with keyed(config.seed, "probe"):
        return probe(forward, train, task=unpenalised(config.task), progress=plan.at(0), planned=trained)
