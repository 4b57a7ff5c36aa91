"""Which of the ways of a GPU a phase takes beyond the plain one: compiled blocks, recorded steps."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.sampling import MicroBatch
from ..encoders import Forward
from ..plans import Plan
from ..run_config import RunConfig
from ..tasks.images import ImageClassification
from ..tasks.text import TextClassification, TextRegression
from .cuda_graphs import Recordings
from .gradients import Gradients
from .placement import Placement
from .update import Trained

# Estimates, on the safe side: a phase should not take longer for them. Compiling blocks takes about ten seconds and
# may save milliseconds an update; a recording takes three updates and saves most of each later one of its shape.
_PAYS_COMPILING = 5_000  # updates of a phase
_PAYS_RECORDING = 100
# Their forward is the same in every step, so that a recording of one step stands for any other.
_TIMELESS = (TextClassification, TextRegression, ImageClassification)


def gradients_of(
    phase: int,
    *,
    trained: Trained,
    forward: Forward,
    config: RunConfig,
    plan: Plan,
    micro_batch: MicroBatch,
    placement: Placement,
) -> Gradients:
    """What computes the gradients of a phase's updates; the same for the same plan, wherever the run stands."""
    words = gpu_words(
        forward, config=config, lasts=[num_updates(plan)[phase]], micro_batch=micro_batch, placement=placement
    )
    compiled = recordings = None
    if words["compile"].startswith("on"):
        from ..encoders.compiling import CompiledBlocks

        assert forward.family is not None
        compiled = CompiledBlocks(forward.family.blocks)
    if words["cuda_graphs"].startswith("on"):
        recordings = Recordings(trained.parameters, device=placement.device)
    return Gradients(trained, batch_size=config.batch_size, compiled=compiled, recordings=recordings)


def num_updates(plan: Plan) -> list[int]:
    """How many updates each phase has where plateaus come as late as they may."""
    starts = plan.starts(plan.at(0))
    ends = [*starts[1:], plan.total_steps]
    return [max(0, min(end, plan.total_steps) - start) for start, end in zip(starts, ends, strict=True)]


def gpu_words(
    forward: Forward,
    *,
    config: RunConfig,
    lasts: Sequence[int],
    micro_batch: MicroBatch,
    placement: Placement,
) -> dict[str, str]:
    """Of each technique for a GPU: ``on``, ``off`` or ``idle`` (no gain), and why.

    Args:
        forward: After its walk was checked and recomputing decided.
        config: Of the run.
        lasts: Updates of each phase in question.
        micro_batch: What one forward takes.
        placement: Where it runs.
    """
    speed, longest = config.speed, max(lasts, default=0)
    compiling = recording = _why_not_here(forward, placement)
    if speed.compile == "off":
        compiling = "off: speed.compile is off"
    elif not compiling and speed.compile == "auto" and longest < _PAYS_COMPILING:
        compiling = f"idle: it pays from about {_PAYS_COMPILING:,} updates of a phase on"
    if speed.cuda_graphs == "off":
        recording = "off: speed.cuda_graphs is off"
    elif not recording:
        recording = _why_not_recorded(forward, config=config, longest=longest, micro_batch=micro_batch)
    return {"compile": compiling or "on", "cuda_graphs": recording or "on"}


def _why_not_here(forward: Forward, placement: Placement) -> str:
    if placement.device.type != "cuda":
        return "idle: there is no GPU"
    if placement.ranks.count > 1 or placement.is_sharded:
        return "off: the run has several processes, or a sharded model"
    return f"off: {forward.why_plain}" if forward.family is None else ""


def _why_not_recorded(forward: Forward, *, config: RunConfig, longest: int, micro_batch: MicroBatch) -> str:
    if type(config.task) not in _TIMELESS:
        return f"off: what {type(config.task).__name__} computes may depend on the step"
    if forward.recomputes:
        return "off: activations are computed again"
    if micro_batch.unit == "examples" and micro_batch.amount < config.batch_size:
        return "idle: an update is several micro-batches"
    return f"idle: it pays from about {_PAYS_RECORDING} updates of a phase on" if longest < _PAYS_RECORDING else ""
