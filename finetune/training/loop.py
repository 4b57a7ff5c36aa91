"""The loop. Read it from top to bottom: nothing runs that is not written here."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..checkpoints.log import Log
from ..choices import listed
from ..data.loading import updates
from ..data.sampling import Sampler, cut
from ..data.store import Draw
from ..durations import DurationText, due_steps
from ..errors import ConfigError, DivergedError
from ..evaluation import evaluate
from ..plans import Plan
from ..policies import best_evaluation
from ..progress import Evaluation
from ..randomness import seed_everything
from ..tracking import Bar, Lines, Silent, log_record
from .facts import evaluation_steps
from .modes import set_modes, set_rates, set_trainable
from .placement import Placement
from .prepare import Prepared
from .saving import Saver
from .signals import StopRequests, stop_error
from .state import RunState
from .update import UpdateStats, update


@dataclass
class Training:
    """A run that trains: what ``train`` works on."""

    prepared: Prepared
    placement: Placement
    optimizer: torch.optim.Optimizer
    sampler: Sampler
    saver: Saver
    state: RunState
    shown: Bar | Lines | Silent
    requests: StopRequests
    log: Log | None  # on rank 0 of a run that has a folder


def train(run: Training, *, stop_at: int | None = None) -> None:
    """Train from where ``run.state`` stands to the end of the run, or to an early or asked-for stop.

    Args:
        run: The run; its state, weights and optimizer are advanced.
        stop_at: Save and raise as if a signal had come at this step; for tests of resuming.

    Raises:
        DivergedError: A loss or gradient is not finite; nothing of that update was applied.
        PreemptedError, InterruptedRunError: A signal came; a checkpoint was saved.
        StorageError: Checkpoints cannot be written.
    """
    prepared, placement, state = run.prepared, run.placement, run.state
    config, plan = prepared.config, prepared.plan
    evaluates_at = set(evaluation_steps(config, plan))
    saves_at, logs_at = _due(config.checkpoint.every, plan), _due(config.log_every, plan)
    run.requests.defer()
    phase, wrapped, began = None, None, time.monotonic() - state.seconds
    _catch_up(run, evaluates_at)
    batches = updates(prepared.train, run_cuts(run), steps=range(state.step, plan.total_steps), workers=config.workers)
    with closing(batches):
        while state.step < plan.total_steps and not state.stopped_early:
            progress = plan.at(state.step, state.evaluations)
            if plan.phase(progress) != phase:
                phase = plan.phase(progress)
                set_trainable(prepared.forward, run.optimizer, plan.phases[phase].rates, unused=prepared.unused)
                set_modes(prepared.forward, prepared.blocks)
                wrapped = placement.wrap(prepared.forward)
            lrs = set_rates(run.optimizer, plan, progress)
            seed_everything(config.seed, "step", state.step, placement.ranks.index)
            assert wrapped is not None
            stats = update(
                wrapped,
                run.optimizer,
                next(batches),
                task=config.task,
                progress=progress,
                placement=placement,
                batch_size=config.batch_size,
                loss_scale=state.scaler.scale,
                max_grad_norm=config.max_grad_norm,
                flags=run.requests.flags(),
            )
            _settle(run, stats)
            state.step += 1
            state.seconds = time.monotonic() - began
            state.losses.append(stats.loss)
            run.shown.update(state.step, loss=stats.loss, lr=max(lrs.values()))
            if state.step in logs_at:
                _log(run, stats, lrs=lrs)
                state.losses.clear()
            stopping = [stats.flags[0], stats.flags[1] + (state.step == stop_at)]
            if any(stopping):
                _stop(run, stopping)
            improved = state.step in evaluates_at and _evaluate(run)
            if state.step in evaluates_at:
                set_modes(prepared.forward, prepared.blocks)
            if improved or state.step in saves_at or state.stopped_early:
                run.saver.save(state, final=state.step == plan.total_steps or state.stopped_early)
    _stop_if_asked(run)


def _due(every: DurationText, plan: Plan) -> set[int]:
    """The steps after which something is due; the last one is always."""
    return {*due_steps(every, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps), plan.total_steps}


def run_cuts(run: Training) -> Any:
    """This rank's draws of a step, micro-batch by micro-batch."""
    train, ranks = run.prepared.train, run.placement.ranks

    def cuts(step: int) -> list[list[Draw]]:
        draws = run.sampler.draws(step)
        return cut(draws, train.lengths, num_ranks=ranks.count, micro_batch=run.prepared.micro_batch)[ranks.index]

    return cuts


def _evaluate(run: Training) -> bool:
    """Evaluate, decide on early stopping once for all ranks, and say whether this is the best so far."""
    prepared, state = run.prepared, run.state
    metrics = evaluate(
        prepared.forward,
        prepared.validation,
        task=prepared.config.task,
        progress=prepared.plan.at(state.step, state.evaluations),
        placement=run.placement,
        micro_batch=prepared.micro_batch,
    )
    if prepared.metric not in metrics:
        raise ConfigError(f"metric: the task's score has no {prepared.metric!r}; it has {listed(metrics)}")
    state.metrics[state.step] = metrics
    state.evaluations.append(Evaluation(state.step, prepared.sign * metrics[prepared.metric]))
    stopping = prepared.config.early_stopping
    if stopping is not None and stopping.should_stop(state.evaluations):
        state.stopped_early = True
    best = best_evaluation(state.evaluations)
    improved = best is not None and best.step == state.step
    values = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    run.shown.line(f"step {state.step}/{prepared.plan.total_steps}  {values}{'  (best)' if improved else ''}")
    if run.log is not None:
        run.log.append({"step": state.step, "validation": metrics, "best": improved})
    return improved


def _settle(run: Training, stats: UpdateStats) -> None:
    """What an update whose gradient was not finite means: under fp16 a smaller scale, else the end.

    Raises:
        DivergedError: On every rank.
    """
    state, precision = run.state, run.prepared.config.precision
    is_fp16 = run.placement.precision == "fp16"
    at_floor = is_fp16 and not stats.is_finite and state.scaler.scale <= precision.min
    if is_fp16 and not at_floor:
        state.scaler = precision.after_update(state.scaler, finite=stats.is_finite)
        return
    if stats.is_finite:
        return
    suspects = sorted(run.placement.ranks.rows(np.array(stats.suspects, dtype=np.int64)).tolist())
    drawn = sorted(draw.index for draw in run.sampler.draws(state.step))
    saved = run.saver.last_saved
    why = f" with the loss scale at its minimum {precision.min:g}" if at_floor else ""
    which = f"; the loss is not finite on {suspects}" if suspects else ""
    remedy = f"go on from step {saved}" if saved is not None else "start again"
    raise DivergedError(
        f"update {state.step}: loss {stats.loss:g}, gradient norm {stats.grad_norm:g}{why}. "
        f"Nothing of it was applied. Its training examples are {drawn}{which}. "
        f"Check them, or {remedy} with a lower optimizer.lr."
    )


def _log(run: Training, stats: UpdateStats, *, lrs: dict[str, float]) -> None:
    if run.log is None:
        return
    plan, state = run.prepared.plan, run.state
    run.log.append(
        log_record(
            step=state.step,
            epoch=state.step / plan.steps_per_epoch,
            loss=sum(state.losses) / len(state.losses),
            lrs=lrs,
            grad_norms=stats.grad_norms,
            grad_norm=stats.grad_norm,
            scale=state.scaler.scale if run.placement.precision == "fp16" else None,
            skipped=state.scaler.skipped,
        )
    )


def _catch_up(run: Training, evaluates_at: set[int]) -> None:
    """The evaluation that was due when the run was stopped."""
    if run.state.step in evaluates_at and run.state.step not in run.state.metrics:
        _evaluate(run)
        run.saver.rotate(run.state)


def _stop_if_asked(run: Training) -> None:
    """After the last update, whose flags were read when it began."""
    flags = run.placement.ranks.sum(torch.tensor(run.requests.flags())).tolist()
    if any(flags):
        _stop(run, flags)


def _stop(run: Training, flags: list[int]) -> None:
    """Save and end, because a signal came to any rank."""
    run.saver.save(run.state, final=True)
    saved = ", a checkpoint is saved; go on with --resume" if run.saver.last_saved is not None else ""
    error = stop_error(flags, step=run.state.step, saved=saved)
    assert error is not None
    raise error
