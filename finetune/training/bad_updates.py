"""What is done about an update that is not finite: a smaller loss scale, what the run's policy says, or the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..encoders import PREFIX
from ..errors import DivergedError
from .sharding import local
from .update import UpdateStats

if TYPE_CHECKING:
    from .loop import Training


def settle(run: Training, stats: UpdateStats) -> bool:
    """Take note of an update; every rank calls it, with the same figures, and does the same.

    Returns:
        Whether its loss belongs to the log's mean: not where the policy left the update out.

    Raises:
        DivergedError: The run ends here; on every rank.
        StorageError: A rollback found no checkpoint that can be read.
    """
    state, precision = run.state, run.prepared.config.precision
    is_fp16 = run.placement.precision == "fp16"
    # The scale multiplies gradients alone: a loss that is not finite would be so under any scale.
    is_overflow = not stats.is_finite and math.isfinite(stats.loss) and state.scaler.scale > precision.min
    if is_fp16 and (stats.is_finite or is_overflow):
        state.scaler = precision.after_update(state.scaler, finite=stats.is_finite)
    elif not stats.is_finite:
        _leave_out(run, stats)
        return False
    if stats.is_finite:
        state.not_finite = state.not_finite._replace(in_a_row=0)
    return True


def _leave_out(run: Training, stats: UpdateStats) -> None:
    """Go on as the policy says, or end the run."""
    state, policy = run.state, run.prepared.config.non_finite
    left_out = state.not_finite
    state.not_finite = left_out._replace(num_updates=left_out.num_updates + 1, in_a_row=left_out.in_a_row + 1)
    weight = _first_bad_weight(run)
    if policy.name == "stop":
        raise _diverged(run, stats, weight, "")
    if policy.name == "skip" and weight:
        raise _diverged(run, stats, weight, "non_finite: skip cannot mend a weight. ")
    count, unit = (
        (state.not_finite.in_a_row, "updates in a row")
        if policy.name == "skip"
        else (state.not_finite.num_updates, "updates")
    )
    if count > policy.at_most:
        raise _diverged(run, stats, weight, f"{count} {unit}, and non_finite.at_most is {policy.at_most}. ")
    record: dict[str, Any] = {"update": stats.step, "loss": stats.loss, "grad_norm": stats.grad_norm}
    record |= {"weight": weight} if weight else {"gradient": stats.first_bad}
    record |= {"examples": _drawn(run, stats), "not_finite": _suspects(run, stats)}
    done = "skipped"
    if policy.name == "rollback":
        step = run.saver.reload()
        if step is None:
            raise _diverged(run, stats, weight, "There is no checkpoint to go back to. ")
        run.prefix.let_go()  # what it holds may be of layers that have trained since then
        run.is_stale = True
        record["back_to_step"], done = step, f"weights and moments are those of step {step} again"
    run.shown.line(f"update {stats.step}: loss {stats.loss:g}, gradient norm {stats.grad_norm:g}; {done}")
    if run.log is not None:
        run.log.append({"step": stats.step + 1, "bad_update": record})


def _diverged(run: Training, stats: UpdateStats, weight: str, why: str) -> DivergedError:
    """Every rank calls it: it gathers."""
    precision, saved = run.prepared.config.precision, run.saver.last_saved
    at_floor = run.placement.precision == "fp16" and run.state.scaler.scale <= precision.min
    scale = f" with the loss scale at its minimum {precision.min:g}" if at_floor else ""
    bad = f"The weight {weight} is not finite. " if weight else ""
    if not weight and stats.first_bad:
        bad = f"The first gradient that is not finite is that of {stats.first_bad}. "
    drawn, suspects = _drawn(run, stats), _suspects(run, stats)
    which = f"; the loss is not finite on {suspects if suspects != drawn else 'any of them'}" if suspects else ""
    remedy = "start again with a lower optimizer.lr"
    if saved is not None and run.prepared.config.non_finite.name == "stop":
        policy = "rollback" if weight else "skip"  # which mends no weight
        remedy = f"go on from step {saved} with --resume and non_finite: {policy}, or {remedy}"
    return DivergedError(
        f"update {stats.step}: loss {stats.loss:g}, gradient norm {stats.grad_norm:g}{scale}. Nothing of it was "
        f"applied. {why}{bad}Its training examples are {drawn}{which}. Check them, or {remedy}."
    )


def _drawn(run: Training, stats: UpdateStats) -> list[int]:
    return sorted(draw.index for draw in run.sampler.draws(stats.step))


def _suspects(run: Training, stats: UpdateStats) -> list[int]:
    """The examples of any rank whose loss is not finite."""
    found: list[int] = run.placement.ranks.rows(np.array(stats.suspects, dtype=np.int64)).tolist()
    return sorted(found)


def _first_bad_weight(run: Training) -> str:
    """The first weight that is not finite on some rank; none where all are."""
    named = dict(run.prepared.forward.named_parameters())
    spoiled = [not bool(torch.isfinite(local(parameter.detach())).all()) for parameter in named.values()]
    total = run.placement.ranks.sum(torch.tensor(spoiled, dtype=torch.int64)).tolist()
    return next((name.removeprefix(PREFIX) for name, count in zip(named, total, strict=True) if count), "")
