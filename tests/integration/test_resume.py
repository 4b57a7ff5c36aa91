"""Invariant 4: stop anywhere, go on, and end bit for bit where an uninterrupted run ends, dropout on."""

from __future__ import annotations

import json
import warnings
from itertools import product

import pytest

from finetune.checkpoints.reading import newest_good
from finetune.curricula import Curriculum
from finetune.errors import DivergedError, PreemptedError, RunFolderError
from finetune.optimizers import AdamW
from finetune.policies import Checkpointing, EarlyStopping
from finetune.precision import Precision
from finetune.strategies import Freeze, GradualUnfreeze
from tests.forked import Acting, ended_child
from tests.runs import STRATEGIES, digest, history, image_task, run, text_task

ORDERS = {
    "random": {},
    "bucketed": {"order": "bucketed"},
    # By loss, which is measured before training and kept in the checkpoint; images have no length.
    "curriculum": {"curriculum": Curriculum(difficulty="loss", start=0.4, until="80%")},
    "length": {"curriculum": Curriculum(difficulty="length", start=0.4, until="80%")},
}
# Phase boundaries of this strategy lie at 2, 4 and 6: stops at them and beside them.
UNFREEZE = GradualUnfreeze(over="60%")
STOPS = (1, 2, 3, 4, 5, 6, 7, 9)
CASES = [
    (o, a, w, k) for o, a, w, k in product(("random", "bucketed", "curriculum"), ("none", "light"), (0, 2), (1, 2))
]
# Pairwise over the product: every pair of values of any two factors is in one of these.
PAIRWISE = [
    ("random", "none", 0, 1),
    ("random", "light", 2, 2),
    ("bucketed", "none", 2, 2),
    ("bucketed", "light", 0, 1),
    ("curriculum", "none", 2, 1),
    ("curriculum", "light", 0, 2),
]


def finished(folder):
    """Everything a run came to: weights, moments, state, and its log."""
    found = newest_good(folder / "checkpoints")
    progress = {
        key: value for key, value in found.documents["progress"].items() if key not in ("seconds", "log_offset")
    }
    return found.step, {name: digest(part) for name, part in found.tensors.items()}, progress


def check(task, tmp_path, stop, **settings):
    run(task, output_dir=str(tmp_path / "whole"), **settings)
    with pytest.raises(PreemptedError):
        run(task, output_dir=str(tmp_path / "cut"), stop_at=stop, **settings)
    run(task, output_dir=str(tmp_path / "cut"), existing="resume", **settings)
    assert finished(tmp_path / "cut") == finished(tmp_path / "whole")
    assert history(tmp_path / "cut") == history(tmp_path / "whole")


def settings_of(order, num_micro_batches):
    return {
        "strategy": UNFREEZE,
        "micro_batch": f"{8 // num_micro_batches} examples",
        "evaluate_every": "3 steps",
        "log_every": "2 steps",
        **ORDERS[order],
    }


@pytest.mark.parametrize("stop", STOPS)
def test_resumed_equals_uninterrupted_at_every_phase_boundary(tmp_path, stop):
    check(text_task(tmp_path), tmp_path, stop, **settings_of("random", 1))


@pytest.mark.parametrize(("order", "augment", "workers", "num_micro_batches"), PAIRWISE)
def test_resumed_equals_uninterrupted(tmp_path, order, augment, workers, num_micro_batches):
    task = image_task(tmp_path, augment=augment)
    check(task, tmp_path, 5, workers=workers, **settings_of(order, num_micro_batches))


@pytest.mark.drill
@pytest.mark.parametrize("stop", range(1, 10))
@pytest.mark.parametrize(("order", "augment", "workers", "num_micro_batches"), CASES)
def test_resumed_equals_uninterrupted_in_every_combination(tmp_path, order, augment, workers, num_micro_batches, stop):
    task = image_task(tmp_path, augment=augment)
    check(task, tmp_path, stop, workers=workers, **settings_of(order, num_micro_batches))


@pytest.mark.parametrize("strategy", ["full", "discriminative", "lora", "freeze"])
def test_resumed_equals_uninterrupted_with_every_strategy(tmp_path, strategy):
    check(text_task(tmp_path), tmp_path, 4, strategy=STRATEGIES[strategy], evaluate_every="4 steps")


@pytest.mark.parametrize("order", ["curriculum", "length"])
def test_resumed_equals_uninterrupted_within_a_curriculum(tmp_path, order):
    """The starting model's losses are in the checkpoint: the resumed run cannot measure them again."""
    check(text_task(tmp_path), tmp_path, 5, **settings_of(order, 1))


def test_scaler_and_early_stopping_go_on(tmp_path):
    precision = Precision(name="fp16", emulate="yes", initial_scale=2.0**24, interval=2, max=2.0**24)
    settings = {"precision": precision, "early_stopping": EarlyStopping(patience=2), "evaluate_every": "2 steps"}
    check(text_task(tmp_path), tmp_path, 3, optimizer=AdamW(lr=1e-6), **settings)


def test_retention_keeps_the_best_and_the_last(tmp_path):
    policy = Checkpointing(every="1 steps", keep_last=2, keep_best=1)
    result = run(text_task(tmp_path), output_dir=str(tmp_path / "run"), checkpoint=policy, evaluate_every="2 steps")
    kept = sorted(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert kept == sorted({9, 10, result.best["step"]})


def test_another_plan_is_refused_with_a_diff(tmp_path):
    task = text_task(tmp_path)
    with pytest.raises(PreemptedError):
        run(task, output_dir=str(tmp_path / "run"), stop_at=4)
    with pytest.raises(RunFolderError) as error:
        run(task, output_dir=str(tmp_path / "run"), existing="resume", strategy=Freeze(), seed=7)
    assert 'strategy.name: "full" -> "freeze"' in str(error.value)
    assert "seed: 42 -> 7" in str(error.value)


def test_changed_data_is_refused(tmp_path):
    task = text_task(tmp_path)
    with pytest.raises(PreemptedError):
        run(task, output_dir=str(tmp_path / "run"), stop_at=4)
    train = tmp_path / "train-26.csv"
    train.write_text(train.read_text().replace("good", "fine").replace("film", "song"))
    with pytest.raises(RunFolderError, match="data.fingerprint"):
        run(text_task(tmp_path), output_dir=str(tmp_path / "run"), existing="resume")


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(tmp_path):
    task = text_task(tmp_path)
    policy = Checkpointing(every="2 steps", keep_last=3)
    run(task, output_dir=str(tmp_path / "whole"), checkpoint=policy)
    with pytest.raises(PreemptedError):
        run(task, output_dir=str(tmp_path / "cut"), checkpoint=policy, stop_at=5)
    weights = tmp_path / "cut" / "checkpoints" / "step-000005" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run(task, output_dir=str(tmp_path / "cut"), checkpoint=policy, existing="resume")
    assert any("step-000005" in str(warning.message) for warning in caught)
    assert finished(tmp_path / "cut") == finished(tmp_path / "whole")


def test_what_a_resume_changes_stands_in_the_folder(tmp_path):
    """Some settings may change under way, as they change no result."""
    task, folder = text_task(tmp_path), tmp_path / "run"
    with pytest.raises(PreemptedError):
        run(task, output_dir=str(folder), stop_at=5)
    run(task, output_dir=str(folder), existing="resume", log_every="1 steps", checkpoint=Checkpointing(keep_last=7))
    stored = json.loads((folder / "config.yaml").read_text())
    assert stored["log_every"] == "1 steps" and stored["checkpoint"]["keep_last"] == 7


def test_finished_run_is_not_run_again(tmp_path):
    task = text_task(tmp_path)
    run(task, output_dir=str(tmp_path / "run"))
    before = history(tmp_path / "run")
    with pytest.raises(RunFolderError, match="finished"):
        run(task, output_dir=str(tmp_path / "run"), existing="resume")
    assert history(tmp_path / "run") == before


def test_a_run_that_ends_while_the_model_is_loaded_is_not_ended_again(tmp_path):
    """Both processes find it unfinished, and the slower one gets the lock when the other is through."""
    task, folder = text_task(tmp_path), tmp_path / "run"
    with pytest.raises(PreemptedError):
        run(Acting(task), output_dir=str(folder), stop_at=8)
    left = []

    class Slow(Acting):
        def load_model(self):
            assert ended_child(lambda: run(Acting(task), output_dir=str(folder), existing="resume")).code == 0
            left.append((folder / "log.jsonl").read_bytes())
            return self.task.load_model()

    with pytest.raises(RunFolderError, match="holds a finished run"):
        run(Slow(task), output_dir=str(folder), existing="resume")
    assert [(folder / "log.jsonl").read_bytes()] == left


def test_diverging_run_keeps_its_last_good_checkpoint(tmp_path):
    policy = Checkpointing(every="2 steps")
    with pytest.raises(DivergedError, match="examples are"):
        run(text_task(tmp_path), output_dir=str(tmp_path / "run"), checkpoint=policy, optimizer=AdamW(lr=1e30))
    assert history(tmp_path / "run")[-1]["ended"] == "diverged"
    assert newest_good(tmp_path / "run" / "checkpoints") is not None
