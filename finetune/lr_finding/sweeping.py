"""One sweep: the run's own updates, at rates that grow."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from ..data.loading import updates
from ..data.sampling import cut
from ..errors import ConfigError
from ..plans import Setting
from ..randomness import seed_everything
from ..strategies.composition import layer_of
from ..training.fit import optimizer_of
from ..training.modes import set_modes, set_rates, set_trainable
from ..training.prepare import Prepared, sampler_of
from ..training.remembering import remember
from ..training.run_difficulty import run_difficulty
from ..training.sharding import sharded_like
from ..training.state import RunState
from ..training.update import Trained, UpdateStats, update
from .peak import Peak, peak_of
from .sweep import Curve, Ended, Sweep

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..data.store import Batch, Draws
    from ..training.placement import Placement

Tell = Callable[[float, float], None]  # loss and LR of an update


class Updates:
    """A run's updates in their order, without its schedule, evaluations and folder.

    Args:
        prepared: The run; its weights are changed.
        placement: Where it runs.
        num_steps: How many updates will be made.
    """

    def __init__(self, prepared: Prepared, placement: Placement, *, num_steps: int) -> None:
        self._prepared, self._placement = prepared, placement
        self.optimizer = optimizer_of(prepared, placement)
        difficulty = run_difficulty(prepared, placement, kept={})
        self._sampler = sampler_of(prepared, difficulty.values if difficulty else None)
        self._state = RunState(scaler=prepared.config.precision.initial_state(placement.precision))
        self._batches: Generator[list[Batch], None, None] = updates(
            prepared.train,
            self._cuts,
            steps=range(num_steps),
            workers=prepared.config.workers,
            device=placement.device,
        )

    def close(self) -> None:
        """End what makes its batches."""
        self._batches.close()

    def train(self, groups: Collection[str]) -> tuple[nn.Module, Trained]:
        """From here on these groups train."""
        prepared = self._prepared
        set_trainable(prepared.forward, self.optimizer, groups, unused=prepared.unused)
        set_modes(prepared.forward, prepared.blocks)
        return self._placement.wrap(prepared.forward), Trained(self.optimizer)

    def update(self, training: tuple[nn.Module, Trained], setting: Setting) -> UpdateStats:
        """The next one."""
        prepared, placement, state = self._prepared, self._placement, self._state
        config = prepared.config
        wrapped, trained = training
        set_rates(self.optimizer, setting)
        seed_everything(config.seed, "step", state.step, placement.ranks.index)
        # A sweep may be longer than the run, whose clock has an end.
        at = min(state.step, prepared.plan.total_steps - 1)
        progress = prepared.plan.at(at)._replace(remembered=state.remembered, seed=config.seed)
        pending = update(
            wrapped,
            self.optimizer,
            next(self._batches),
            trained=trained,
            task=config.task,
            progress=progress,
            placement=placement,
            batch_size=config.batch_size,
            loss_scale=state.scaler.scale,
            max_grad_norm=config.max_grad_norm,
            flags=(),
        )
        remember(
            state,
            pending,
            task=config.task,
            progress=progress,
            placement=placement,
            num_examples=len(prepared.train),
            is_read=True,
        )
        stats = pending.read()
        if placement.precision == "fp16":
            state.scaler = config.precision.after_update(state.scaler, finite=stats.is_finite)
        state.step += 1
        return stats

    def _cuts(self, step: int) -> list[Draws]:
        """This rank's draws of a step, micro-batch by micro-batch."""
        ranks = self._placement.ranks
        return cut(
            self._sampler.draws(step),
            self._prepared.train.lengths,
            num_ranks=ranks.count,
            micro_batch=self._prepared.micro_batch,
            tokens=self._prepared.forward.tokens,
        )[ranks.index]


def swept(prepared: Prepared, placement: Placement, sweep: Sweep, *, tell: Tell) -> tuple[Curve, Peak]:
    """One repeat; the weights are left where it ended."""
    names = {name: parameter.numel() for name, parameter in prepared.forward.model.named_parameters()}
    peak = peak_of(prepared.plan, names)
    run = Updates(prepared, placement, num_steps=sweep.warm_head + sweep.steps)
    with closing(run):
        if sweep.warm_head:
            _warm_head(run, peak.ratios, sweep)
        lrs, losses = sweep.lrs(), np.zeros(sweep.steps)
        ended: Ended = "reached"
        training = run.train(peak.ratios)
        for at, lr in enumerate(lrs):
            rates = {name: ratio * float(lr) for name, ratio in peak.ratios.items()}
            stats = run.update(training, Setting(rates, peak.momenta))
            overflows = placement.precision == "fp16"  # whose scale then falls, and the next update may be applied
            if not np.isfinite(stats.loss) or not (stats.is_finite or overflows):
                return Curve(prepared.config.seed, lrs[:at], losses[:at], "not finite"), peak
            losses[at] = stats.loss
            tell(stats.loss, float(lr))
            if sweep.has_risen(losses[: at + 1]):
                ended = "rose"
                break
    return Curve(prepared.config.seed, lrs[: at + 1], losses[: at + 1], ended), peak


def _warm_head(run: Updates, trained: Collection[str], sweep: Sweep) -> None:
    """Train the head alone, and let the optimizer forget it.

    Raises:
        ConfigError: The plan trains no head, or nothing else.
    """
    head = {name for name in trained if layer_of(name) == "head"}
    if not head or len(head) == len(trained):
        which = "no head" if not head else "nothing but the head"
        raise ConfigError(f"--warm-head {sweep.warm_head}: without effect, as this plan trains {which}. Leave it out.")
    training = run.train(head)
    for _ in range(sweep.warm_head):
        run.update(training, Setting(dict.fromkeys(head, sweep.warm_head_lr), {}))
    run.optimizer.state.clear()


@contextmanager
def weights_kept(model: nn.Module) -> Iterator[None]:
    """Give a model back as it was: a task may hand out the same one each time."""
    state = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}
    trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    modes = {name: module.training for name, module in model.named_modules()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in _tensors(model).items():
                if name in state:
                    tensor.copy_(sharded_like(state[name], tensor))
        for name, parameter in model.named_parameters():
            parameter.grad = None
            parameter.requires_grad_(trained.get(name, True))
        for name, module in model.named_modules():
            module.training = modes.get(name, module.training)


def _tensors(model: nn.Module) -> Mapping[str, torch.Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
