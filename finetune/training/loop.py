"""The loop. Read it from top to bottom: nothing runs that is not written here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from ..checkpoints.log import Log
from ..choices import listed
from ..data.loading import updates, weighted_batch
from ..data.sampling import MicroBatch, Sampler, Tokens, cut
from ..data.store import Draws
from ..durations import DurationText, due_steps
from ..errors import ConfigError
from ..evaluation import evaluate
from ..plans import Plan, Setting
from ..policies import Stopping, best_evaluation
from ..progress import Evaluation, Progress
from ..randomness import seed_everything
from ..tracking import Bar, Lines, Silent, log_record
from .bad_updates import settle
from .facts import evaluation_steps
from .garbage import collected_between
from .gpu_ways import gradients_of
from .gradients import Gradients
from .memory import evaluated, redo_smaller, told_of_memory
from .modes import set_modes, set_rates, set_trainable
from .placement import Placement
from .prefix_cache import PrefixCache
from .prepare import Prepared
from .remembering import remember
from .saving import Saver
from .signals import StopRequests, stop_error
from .stalls import StallWatch
from .state import Losses, RunState
from .update import Pending, Trained, UpdateStats, num_unread, update

if TYPE_CHECKING:
    from torch import Tensor

    from ..data.store import Batch


class Unread(NamedTuple):
    """An update whose figures are not read yet."""

    pending: Pending
    lr: float  # the highest
    remembered: dict[str, Tensor]  # by the task, before it


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
    prefix: PrefixCache
    tokens: Tokens = "padded"  # what a micro-batch in tokens counts
    stopping: Stopping | None = None  # beside the run's own early stopping
    watch: StallWatch = field(default_factory=StallWatch)
    unread: deque[Unread] = field(default_factory=deque)
    is_stale: bool = False  # what was set up for the phase: weights were put back, or micro-batches are smaller now

    @property
    def micro_batch(self) -> MicroBatch:
        """How much one forward takes from here on."""
        return self.prepared.micro_batch.halved(self.state.halvings)


class Entered(NamedTuple):
    """A phase under way: what is set up once when it begins."""

    phase: int
    wrapped: nn.Module
    trained: Trained
    batches: Generator[list[Batch], None, None]
    gradients: Gradients

    def close(self) -> None:
        """End what makes its batches, and let go of what was recorded for it."""
        self.gradients.close()
        self.batches.close()


def train(run: Training, *, stop_at: int | None = None) -> None:
    """Train from where ``run.state`` stands to the end of the run, or to an early or asked-for stop.

    Args:
        run: The run; its state, weights and optimizer are advanced.
        stop_at: Save and raise as if a signal had come at this step; for tests of resuming.

    Raises:
        DivergedError: A loss or gradient is not finite; nothing of that update was applied.
        ConfigError: One example does not fit in memory.
        PreemptedError, InterruptedRunError: A signal came; a checkpoint was saved.
        StorageError: Checkpoints cannot be written.
    """
    prepared, placement, state = run.prepared, run.placement, run.state
    config, plan = prepared.config, prepared.plan
    evaluates_at = set(evaluation_steps(config, plan))
    saves_at, logs_at = _due(config.checkpoint.every, plan), _due(config.log_every, plan)
    events = evaluates_at | saves_at | logs_at | {stop_at}
    run.requests.defer()
    began = time.monotonic() - state.seconds
    _catch_up(run, evaluates_at)
    stage, entered = plan.stage(plan.at(state.step, state.evaluations)), None
    # A policy that lets a run go on after a bad update must hear of it before the next.
    unread = num_unread(run.optimizer, placement) if config.non_finite.name == "stop" else 0
    with collected_between() as collect, run.watch, ExitStack() as ending:
        while state.step < plan.total_steps and not state.stopped_early:
            progress = plan.at(state.step, state.evaluations)._replace(remembered=state.remembered, seed=config.seed)
            if state.step == stage.end or state.step in evaluates_at:
                stage = plan.stage(progress)
            if entered is None or run.is_stale or entered.phase != stage.phase:
                entered = _enter(run, stage.phase, ending)
            setting = plan.setting(progress, stage)
            set_rates(run.optimizer, setting)
            seed_everything(config.seed, "step", state.step, placement.ranks.index)
            remembered = state.remembered
            pending = _update(run, entered, progress, unread=unread)
            run.unread.append(Unread(pending, max(setting.lrs.values()), remembered))
            state.step += 1
            state.seconds = time.monotonic() - began
            stats = _read(run, leave=0 if state.step in events or state.step == stage.end else unread)
            if state.step <= progress.step:  # an update lacked memory
                continue
            if stats is not None and state.step in logs_at:
                _log(run, stats, setting)
            _heed(run, stats, is_told=state.step == stop_at)
            if run.is_stale:  # before an evaluation reads with it
                entered = _enter(run, stage.phase, ending)
            improved = state.step in evaluates_at and _evaluate(run, stage.phase)
            if improved or state.step in saves_at or state.stopped_early:
                run.saver.save(state, final=state.step == plan.total_steps or state.stopped_early)
            collect(state.step)
    stop_if_asked(run)


def _due(every: DurationText, plan: Plan) -> set[int]:
    """The steps after which something is due; the last one is always."""
    return {*due_steps(every, steps_per_epoch=plan.steps_per_epoch, total_steps=plan.total_steps), plan.total_steps}


def _enter(run: Training, phase: int, ending: ExitStack) -> Entered:
    """Set a phase up, from where the run stands, in place of what ``ending`` holds."""
    prepared, placement = run.prepared, run.placement
    ending.close()  # what makes the batches of the phase before
    run.is_stale = False
    set_trainable(prepared.forward, run.optimizer, prepared.plan.phases[phase].rates, unused=prepared.unused)
    set_modes(prepared.forward, prepared.blocks)
    wrapped = placement.wrap(prepared.forward)
    run.prefix.enter(
        phase,
        wrapped,
        progress=prepared.plan.at(run.state.step, run.state.evaluations),
        is_stopping=lambda: any(_asked(run)),
    )
    stop_if_asked(run)  # during its pass, which is then not made
    batches = updates(
        run.prefix.store_for(phase, "train"),
        run_cuts(run),
        steps=range(run.state.step, prepared.plan.total_steps),
        workers=prepared.config.workers,
        device=placement.device,
    )
    trained = Trained(run.optimizer)
    gradients = gradients_of(
        phase,
        trained=trained,
        forward=prepared.forward,
        config=prepared.config,
        plan=prepared.plan,
        micro_batch=run.micro_batch,
        placement=placement,
    )
    entered = Entered(phase, wrapped, trained, batches, gradients)
    ending.callback(entered.close)
    return entered


def run_cuts(run: Training) -> Callable[[int], list[Draws]]:
    """This rank's draws of a step, micro-batch by micro-batch."""
    train, ranks, limit = run.prepared.train, run.placement.ranks, run.micro_batch

    def cuts(step: int) -> list[Draws]:
        draws = run.sampler.draws(step)
        return cut(draws, train.lengths, num_ranks=ranks.count, micro_batch=limit, tokens=run.tokens)[ranks.index]

    return cuts


def _update(run: Training, entered: Entered, progress: Progress, *, unread: int) -> Pending:
    """The next update, which the task may remember."""
    run.watch.moved()
    prepared, placement, state = run.prepared, run.placement, run.state
    config = prepared.config
    store = run.prefix.store_for(entered.phase, "train")
    with told_of_memory(run):
        pending = update(
            entered.wrapped,
            run.optimizer,
            next(entered.batches),
            trained=entered.trained,
            task=config.task,
            progress=progress,
            placement=placement,
            batch_size=config.batch_size,
            loss_scale=state.scaler.scale,
            max_grad_norm=config.max_grad_norm,
            flags=run.requests.flags(),
            unread=unread,
            gradients=entered.gradients,
            # FSDP2 gathers weights block by block: a rank that leaves in the middle has no place to come back to.
            filler=None if placement.is_sharded else lambda: weighted_batch(store, []),
        )
    remember(
        state,
        pending,
        task=config.task,
        progress=progress,
        placement=placement,
        num_examples=len(prepared.train),
        is_read=not unread,
    )
    return pending


def _read(run: Training, *, leave: int) -> UpdateStats | None:
    """Read the figures of updates under way, but for the last ``leave``; returns the newest of those read.

    Where one of them lacked memory, the clock stands at it again, and nothing of those under way was applied.
    """
    stats = None
    while len(run.unread) > leave:
        pending, lr, remembered = run.unread.popleft()
        stats = pending.read()
        if stats.lacks_memory:
            redo_smaller(run, stats.step)
            run.state.remembered = remembered
            run.unread.clear()
            return None
        if settle(run, stats):
            total, count = run.state.losses
            run.state.losses = Losses(total + stats.loss, count + 1)
        run.shown.update(stats.step + 1, loss=stats.loss, lr=lr)
    return stats


def _evaluate(run: Training, phase: int) -> bool:
    """Evaluate, decide on early stopping once for all ranks, and say whether this is the best so far."""
    prepared, state = run.prepared, run.state
    metrics = evaluated(
        run,
        lambda: evaluate(
            prepared.forward,
            run.prefix.store_for(phase, "validation"),
            task=prepared.config.task,
            progress=prepared.plan.at(state.step, state.evaluations),
            placement=run.placement,
            micro_batch=run.micro_batch,
            tokens=run.tokens,
            between=lambda: stop_if_asked(run),
        ),
    )
    if prepared.metric not in metrics:
        raise ConfigError(f"metric: the task's score has no {prepared.metric!r}; it has {listed(metrics)}")
    state.metrics[state.step] = metrics
    state.evaluations.append(Evaluation(state.step, prepared.sign * metrics[prepared.metric]))
    asked = [policy for policy in (prepared.config.early_stopping, run.stopping) if policy is not None]
    if any([policy.should_stop(state.evaluations) for policy in asked]):  # a list: each one hears of the evaluation
        state.stopped_early = True
    best = best_evaluation(state.evaluations)
    improved = best is not None and best.step == state.step
    values = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    run.shown.line(f"step {state.step}/{prepared.plan.total_steps}  {values}{'  (best)' if improved else ''}")
    if run.log is not None:
        run.log.append({"step": state.step, "validation": metrics, "best": improved})
    set_modes(prepared.forward, prepared.blocks)
    return improved


def _log(run: Training, stats: UpdateStats, setting: Setting) -> None:
    """Write a line for the updates since the last one."""
    plan, state = run.prepared.plan, run.state
    losses, state.losses = state.losses, Losses()
    if run.log is None:
        return
    run.log.append(
        log_record(
            step=state.step,
            epoch=state.step / plan.steps_per_epoch,
            loss=losses.mean(),
            lrs=setting.lrs,
            grad_norms=stats.grad_norms,
            grad_norm=stats.grad_norm,
            scale=state.scaler.scale if run.placement.precision == "fp16" else None,
            skipped=state.scaler.skipped,
        )
    )


def _catch_up(run: Training, evaluates_at: set[int]) -> None:
    """The evaluation that was due when the run was stopped."""
    if run.state.step in evaluates_at and run.state.step not in run.state.metrics:
        before = run.prepared.plan.at(run.state.step - 1, run.state.evaluations)
        phase = run.prepared.plan.phase(before)
        with ExitStack() as ending:
            _enter(run, phase, ending)  # to read what the phase read, to the last bit
        _evaluate(run, phase)
        run.saver.rotate(run.state)


def stop_if_asked(run: Training) -> None:
    """Outside an update, whose flags were read when it began; every rank asks. What is not saved yet is saved.

    Raises:
        PreemptedError, InterruptedRunError: A signal came to any rank.
    """
    flags = _asked(run)
    if any(flags):
        _stop(run, flags)


def _heed(run: Training, stats: UpdateStats | None, *, is_told: bool) -> None:
    """Stop where a signal had come to any rank when the update began, or the caller says so."""
    flags = [stats.flags[0], stats.flags[1] + is_told] if stats is not None else []
    if any(flags):
        _stop(run, flags)


def _asked(run: Training) -> list[int]:
    """How many ranks were asked to stop: interrupted, pre-empted."""
    run.watch.moved()
    return run.placement.ranks.sum(torch.tensor(run.requests.flags())).tolist()


def _stop(run: Training, flags: list[int]) -> None:
    """Save and end, because a signal came to any rank."""
    _read(run, leave=0)
    run.saver.save(run.state, final=True)
    saved = ", a checkpoint is saved; go on with --resume" if run.saver.last_saved is not None else ""
    error = stop_error(flags, step=run.state.step, saved=saved)
    assert error is not None
    raise error
