"""Defects in signals, ranks, updates, the order of the data and evaluation."""

from __future__ import annotations

from tests.seeded_defects.defect import Defect

_SIGNALS = "tests/integration/test_signals.py"
_RANKS = "tests/distributed/test_signals_ranks.py"
_UPDATE = "tests/unit/test_update.py"
_BAD = "tests/integration/test_bad_updates.py"
_SAMPLING = "tests/unit/test_sampling.py"
_RESUME = "tests/integration/test_resume.py"
_EVALUATION = "tests/integration/test_evaluation.py"

DEFECTS = [
    Defect(
        "weights that are not finite are saved",
        "finetune/training/saving.py",
        '            if name := not_finite(tensors["model"], weights):\n',
        '            if (name := "") is None:\n',
        "tests/integration/test_non_finite.py::test_spoiled_weights_replace_no_checkpoint[stop]",
    ),
    Defect(
        "a signal ends the run where it stands",
        "finetune/training/signals.py",
        "        if not self._deferred:\n            raise _StopNowError\n",
        "        raise _StopNowError\n",
        f"{_SIGNALS}::test_a_signal_saves_and_stops",
    ),
    Defect(
        "the second interrupt is ignored",
        "finetune/training/signals.py",
        "        if self._interrupts > 1 or ",
        "        if ",
        f"{_SIGNALS}::test_the_second_interrupt_ends_at_once",
    ),
    Defect(
        "each rank decides by itself whether it stops",
        "finetune/training/update.py",
        "    asked = torch.tensor(list(flags), ",
        "    asked = torch.tensor([flag / count for flag in flags], ",
        f"{_RANKS}::test_signals_to_any_ranks_at_any_steps",
    ),
    Defect(
        "a fault of rank 0 stays on rank 0",
        "finetune/training/ranks.py",
        "                own, outcome = error, (None, error)\n",
        "                raise\n",
        "tests/integration/test_reload.py::test_ranks_end_alike_when_none_can_be_read",
    ),
    Defect(
        "the gradient of ranks is averaged, not summed",
        "finetune/training/update.py",
        "        self._averaged = num_ranks / factor\n",
        "        self._averaged = 1 / factor\n",
        "tests/integration/test_gradients.py::test_gradient_is_the_mean_over_the_whole_update",
    ),
    Defect(
        "a loader process outlives its run",
        "finetune/data/loading.py",
        "    die_with_parent(signal.SIGKILL)\n",
        "",
        "tests/integration/test_loaders.py::test_loader_processes_end_with_a_killed_run",
    ),
    Defect(
        "an update that is not finite is applied",
        "finetune/training/update.py",
        "        return self.is_finite and not self.lacks_memory\n",
        "        return not self.lacks_memory\n",
        f"{_UPDATE}::test_a_bad_update_changes_nothing_and_names_its_examples",
    ),
    Defect(
        "an update that is not finite is applied before it is read",
        "finetune/training/update.py",
        "    _step(optimizer, grad_scale=divisor, found_inf=trained.spoiled)\n",
        "    _step(optimizer, grad_scale=divisor, found_inf=None)\n",
        f"{_UPDATE}::test_a_bad_update_changes_nothing_and_names_its_examples",
    ),
    Defect(
        "Adam's count goes on over a skipped update",
        "finetune/training/update.py",
        "    trained.clear()\n    return pending\n",
        "    for held in optimizer.state.values() if unread or not stats.is_applied else ():\n"
        '        held["step"] += 1\n'
        "    trained.clear()\n    return pending\n",
        f"{_BAD}::test_fp16_skips_an_overflow_and_changes_nothing_else",
    ),
    Defect(
        "clipped before it is unscaled",
        "finetune/training/update.py",
        "clip = max(1.0, (stats.grad_norm + _EPSILON) / max_grad_norm)",
        "clip = max(1.0, (stats.grad_norm / stats.unscale + _EPSILON) / max_grad_norm)",
        f"{_UPDATE}::test_the_optimizer_steps_with_the_clipped_mean_gradient",
    ),
    Defect(
        "every rank clips by its own norm",
        "finetune/training/update.py",
        "        return placement.ranks.sum(torch.cat([sums_and_flags, squares]))\n",
        "        return torch.cat([placement.ranks.sum(sums_and_flags), squares])\n",
        "tests/distributed/test_ranks.py::test_clipping_sees_the_gradient_of_all_ranks",
    ),
    Defect(
        "dropout is not keyed by the step",
        "finetune/training/loop.py",
        '            seed_everything(config.seed, "step", state.step, placement.ranks.index)\n',
        "",
        f"{_RESUME}::test_resumed_equals_uninterrupted_with_every_strategy[full]",
    ),
    Defect(
        "a resume begins the data again",
        "finetune/training/loop.py",
        "        steps=range(run.state.step, prepared.plan.total_steps),\n",
        "        steps=range(prepared.plan.total_steps),\n",
        f"{_RESUME}::test_resumed_equals_uninterrupted_with_every_strategy[full]",
    ),
    Defect(
        "all epochs have one order",
        "finetune/data/sampling.py",
        "    def _random(self, epoch: int) -> list[np.ndarray]:\n"
        '        order = generator(self._seed, "order", epoch).permutation(self._num_examples)\n',
        "    def _random(self, epoch: int) -> list[np.ndarray]:\n"
        '        order = generator(self._seed, "order").permutation(self._num_examples)\n',
        f"{_SAMPLING}::test_no_two_epochs_or_seeds_have_the_same_order",
    ),
    Defect(
        "the short update of an epoch is dropped",
        "finetune/data/sampling.py",
        "for start in range(0, len(order), self._batch_size)]\n\n    def _bucketed",
        "for start in range(0, len(order), self._batch_size)][:-1] + [order[:1]]\n\n    def _bucketed",
        f"{_SAMPLING}::test_every_example_exactly_once_per_epoch_across_ranks_and_micro_batches",
    ),
    Defect(
        "ranks run unequally many forwards",
        "finetune/data/sampling.py",
        "for part in share + [empty] * (most - len(share))]",
        "for part in share]",
        f"{_SAMPLING}::test_a_rank_short_of_examples_gets_empty_micro_batches",
    ),
    Defect(
        "random transforms are drawn from the loader process",
        "finetune/data/image_store.py",
        '        rng = generator(draw.seed, "augment")\n',
        '        rng = np.random.default_rng(__import__("os").getpid())\n',
        "tests/unit/test_loading.py::test_the_batches_do_not_depend_on_the_number_of_workers",
    ),
    Defect(
        "an example that only fills up a rank counts",
        "finetune/data/loading.py",
        "    weight = 1.0 if draws else 0.0\n",
        "    weight = 1.0\n",
        "tests/integration/test_gradients.py::test_a_rank_without_examples_adds_nothing",
    ),
    Defect(
        "predictions stay in the order in which they were computed",
        "finetune/evaluation.py",
        "    in_order = rows[_by_example(order, counts)]\n",
        "    in_order = rows\n",
        f"{_EVALUATION}::test_predictions_do_not_depend_on_how_they_are_cut",
    ),
    Defect(
        "a score that is no number is the best",
        "finetune/policies.py",
        "    finite = [evaluation for evaluation in evaluations if not math.isnan(evaluation.score)]\n",
        "    finite = [*evaluations]\n",
        "tests/unit/test_policies.py::test_ties_keep_the_earlier_and_nan_is_never_best",
    ),
]
