"""Runs of tasks that remember: they resume, do not depend on how updates are cut, and leave a data map."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from finetune.checkpoints.reading import newest_good
from finetune.curricula import Curriculum
from finetune.errors import ConfigError
from finetune.optimizers import SGD, AdamW
from finetune.policies import Checkpointing
from finetune.precision import Precision
from finetune.randomness import keyed
from finetune.schedules import Constant
from finetune.strategies import Freeze, GradualUnfreeze
from finetune.tasks.class_losses import CrossEntropy, Focal
from finetune.tasks.data_map import DataMap
from finetune.tasks.selective_backprop import SelectiveBackprop
from finetune.tasks.self_paced import SelfPaced
from finetune.tasks.super_loss import SuperLoss
from finetune.training import plan_run
from tests import tiny_data
from tests.integration.test_resume import check
from tests.runs import Exact, assert_close, config, digest, image_task, replaced, run, text_task, weights

LAST = Checkpointing(keep_best=0)
# Each acts within the ten updates of ``run``.
KINDS = {
    "super_loss": lambda task: SuperLoss(base=task, regularisation=0.1),
    "self_paced": lambda task: SelfPaced(base=task, start=0.3, until="100%", weights="linear"),
    "selective_backprop": lambda task: SelectiveBackprop(base=task, start="2 steps", until="100%", memory=12),
    "data_map": lambda task: DataMap(base=task),
    "two": lambda task: DataMap(base=SelectiveBackprop(base=task, start="2 steps")),
}


def uneven_task(folder, *, rare: int = 5):
    """``text_task`` with few examples of its second class."""
    task = text_task(folder)
    rows = [row for row in tiny_data.examples(60)]
    kept = [row for row in rows if row[1] == "negative"][:21] + [row for row in rows if row[1] == "positive"][:rare]
    tiny_data._write(folder / "uneven.csv", ("text", "label", "words"), kept)
    return replaced(task, data=replaced(task.data, train=str(folder / "uneven.csv")))


@pytest.mark.parametrize(("kind", "stop"), [("super_loss", 1), *((kind, 6) for kind in KINDS)])
def test_a_resumed_run_ends_where_a_whole_one_does(tmp_path, kind, stop):
    """Bit for bit, what is remembered included: ``check`` compares every file of tensors."""
    task = KINDS[kind](text_task(tmp_path / "files"))
    check(task, tmp_path, stop, strategy=GradualUnfreeze(over="60%"), micro_batch="4 examples")
    saved = newest_good(tmp_path / "cut" / "checkpoints").tensors["remembered"]
    assert {name.partition(".")[0] for name in saved} >= {"data_map" if kind == "two" else kind}
    if "data_map" in KINDS[kind](None).name:
        maps = [(tmp_path / part / "data_map.safetensors").read_bytes() for part in ("whole", "cut")]
        assert maps[0] == maps[1]


@pytest.mark.parametrize("kind", KINDS)
def test_how_an_update_is_cut_changes_nothing(tmp_path, kind):
    task = KINDS[kind](Exact(text_task(tmp_path)))
    settings = {"optimizer": SGD(lr=0.1), "checkpoint": LAST}
    results = [run(task, micro_batch=f"{count} examples", **settings) for count in (8, 3)]
    assert_close(*(weights(result.model) for result in results))
    assert_close(*(result.state.remembered for result in results))
    plain = run(Exact(text_task(tmp_path)), **settings)
    is_same = digest(weights(plain.model)) == digest(weights(results[0].model))
    assert is_same == (kind == "data_map")  # which only looks on


@pytest.mark.parametrize("kind", KINDS)
def test_one_task_serves_two_runs(tmp_path, kind):
    """What a run remembers is the run's: a second one begins with nothing."""
    task = KINDS[kind](text_task(tmp_path))
    first, second = run(task, checkpoint=LAST), run(task, checkpoint=LAST)
    assert digest(weights(first.model)) == digest(weights(second.model))
    assert first.state.remembered.keys() == second.state.remembered.keys()


def test_the_loss_of_evaluations_is_that_of_the_task_inside(tmp_path):
    task = text_task(tmp_path)
    settings = {"optimizer": AdamW(lr=1e-30), "length": "2 steps"}
    expected = run(task, **settings).metrics["validation"]["loss"]
    for kind in KINDS:
        assert run(KINDS[kind](task), **settings).metrics["validation"]["loss"] == expected


def test_a_task_that_remembers_nothing_leaves_nothing(tmp_path):
    result = run(text_task(tmp_path), output_dir=str(tmp_path / "run"), length="2 steps")
    assert result.state.remembered == {}
    assert set(newest_good(tmp_path / "run" / "checkpoints").tensors) == {"model", "optimizer"}
    assert not list((tmp_path / "run").glob("data_map*"))


def test_a_task_knows_the_seed_of_the_run_it_trains_in(tmp_path):
    """What it draws by itself goes by it, as the order and dropout do."""
    seeds = set()

    @dataclass(frozen=True)
    class Watched:
        task: Any

        def __getattr__(self, name):
            return getattr(self.task, name)

        def forward(self, model, batch, progress):
            if model.training and progress.step:
                seeds.add(progress.seed)
            return self.task.forward(model, batch, progress)

    for seed in (7, 8):
        run(Watched(text_task(tmp_path)), seed=seed, length="3 steps", checkpoint=LAST)
    assert seeds == {7, 8}


def test_an_update_that_is_skipped_is_not_remembered(tmp_path):
    """fp16 begins with a scale that overflows: nothing of such an update is seen."""
    precision = Precision(name="fp16", emulate="yes", initial_scale=2.0**24, interval=100, max=2.0**24)
    result = run(DataMap(base=text_task(tmp_path)), precision=precision, checkpoint=LAST, optimizer=AdamW(lr=1e-6))
    skipped = result.state.scaler.skipped
    assert 0 < skipped < 10
    applied = int(result.state.remembered["data_map.times"].sum())
    updates = [8, 8, 8, 2] * 3  # an epoch of 26 in updates of 8
    assert applied == sum(updates[skipped:10])


def test_the_data_map_is_what_a_look_at_every_update_gives(tmp_path):
    """Without dropout, against the probabilities that the forward itself gave."""
    kept: dict[int, list[tuple[float, bool]]] = {index: [] for index in range(26)}

    @dataclass(frozen=True)
    class Watched:
        task: Any
        name = "watched"

        def __getattr__(self, name):
            return getattr(self.task, name)

        def forward(self, model, batch, progress):
            output = self.task.forward(model, batch, progress)
            if model.training and torch.is_grad_enabled() and watching:
                for index, row, label in zip(
                    batch["index"], output.logits.detach().softmax(1), batch["labels"], strict=True
                ):
                    kept[int(index)].append((float(row[label]), bool(row.argmax() == label)))
            return output

    task = Exact(text_task(tmp_path))
    watching = False
    plan_run(config(DataMap(base=Watched(task))))
    watching = True
    result = run(
        DataMap(base=Watched(task)), output_dir=str(tmp_path / "run"), length="3 epochs", micro_batch="3 examples"
    )
    probed = kept[int(np.argmax(task.load_split("train").lengths))]
    del probed[:3]  # of the trial before training, which runs the longest example once, and twice together
    assert {len(course) for course in kept.values()} == {3}
    with safe_open(tmp_path / "run" / "data_map.safetensors", framework="pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        data = file.metadata()["data"]
    assert data == task.load_split("train").fingerprint
    document = json.loads((tmp_path / "run" / "data_map.json").read_text())
    assert document["data"] == data and document["num_examples"] == 26 and set(document["tensors"]) == set(found)
    for index, course in kept.items():
        values = [value for value, _ in course]
        rights = [right for _, right in course]
        assert found["confidence"][index].item() == pytest.approx(np.mean(values), rel=1e-6)
        assert found["variability"][index].item() == pytest.approx(np.std(values), rel=1e-5, abs=1e-7)
        assert found["correctness"][index].item() == pytest.approx(np.mean(rights))
        events = sum(before and not after for before, after in zip(rights, rights[1:], strict=False))
        assert found["forgetting"][index].item() == (events if any(rights) else 3)
    assert all(tensor.dtype == torch.float32 for tensor in found.values())
    assert result.folder is not None


def test_a_later_run_goes_by_the_data_map(tmp_path):
    from finetune.curricula import DataMapScore

    task = text_task(tmp_path)
    run(DataMap(base=task), output_dir=str(tmp_path / "first"), length="3 epochs")
    curriculum = Curriculum(difficulty=DataMapScore(run=str(tmp_path / "first"), measure="confidence"))
    assert run(task, curriculum=curriculum).state.step == 10


@pytest.mark.parametrize("strategy", [Freeze(), GradualUnfreeze(over="60%")])
def test_weights_by_loss_use_kept_activations(tmp_path, strategy):
    """The inputs stay as they are, so a frozen prefix is still computed once."""
    task = SuperLoss(base=text_task(tmp_path))
    run(task, strategy=strategy, output_dir=str(tmp_path / "run"), length="20 steps", checkpoint=LAST)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["prefix_cache"] for line in lines if "prefix_cache" in line] == ["filled"]


# Losses of classes


@pytest.mark.parametrize("micro_batch", ["26 examples", "4 examples"])
@pytest.mark.parametrize("asked", [{"positive": 0.02, "negative": 0.01}, {"positive": 7.0}, "balanced"])
def test_class_weights_are_those_of_torch_over_the_whole_update(tmp_path, asked, micro_batch):
    """One SGD step of lr 1 moves each weight by the gradient of ``CrossEntropyLoss(weight)`` on all 26 examples.

    Weights whose sum is below 1 among them: their mean is divided by that sum too.
    """
    from finetune.data.store import Draw
    from finetune.encoders import padded

    task = Exact(replaced(uneven_task(tmp_path), loss=CrossEntropy(class_weights=asked)))
    with keyed(42, "init"):
        model = task.load_model().module
    store = task.load_split("train")
    batch = padded(store.batch([Draw(0, 0, index) for index in range(26)]), pad_id=0)
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    values = {"balanced": [26 / 42, 26 / 10]}.get(str(asked))
    values = values or [asked.get("negative", 1.0), asked["positive"]]
    weight = torch.tensor(values, dtype=torch.float64)
    torch.nn.functional.cross_entropy(logits, batch["labels"], weight=weight).backward()
    expected = {name: p.detach() - p.grad for name, p in model.named_parameters() if p.grad is not None}
    settings = {"optimizer": SGD(lr=1.0, momentum=0.0), "schedule": Constant(), "max_grad_norm": 0}
    result = run(task, batch_size=26, length="1 steps", micro_batch=micro_batch, **settings)
    found = weights(result.model)
    assert_close({name: found[name] for name in expected}, expected)


@pytest.mark.parametrize("loss", [Focal(), CrossEntropy(label_smoothing=0.1), Focal(class_weights="balanced")])
def test_a_loss_resumes_and_is_cut_like_any_other(tmp_path, loss):
    task = replaced(uneven_task(tmp_path), loss=loss)
    check(task, tmp_path, 4)
    settings = {"optimizer": SGD(lr=0.1), "checkpoint": LAST}
    cuts = [weights(run(Exact(task), micro_batch=f"{count} examples", **settings).model) for count in (8, 3)]
    assert_close(*cuts)


def test_the_loss_of_an_evaluation_is_cross_entropy(tmp_path):
    settings = {"optimizer": AdamW(lr=1e-30), "length": "1 steps"}
    plain = run(uneven_task(tmp_path), **settings).metrics["validation"]["loss"]
    other = replaced(uneven_task(tmp_path), loss=Focal(gamma=3.0, class_weights="balanced"))
    assert run(other, **settings).metrics["validation"]["loss"] == plain


def test_balanced_order_resumes_and_goes_with_a_curriculum(tmp_path):
    task = uneven_task(tmp_path)
    check(task, tmp_path / "plain", 5, order="balanced")
    check(task, tmp_path / "course", 5, order="balanced", curriculum=Curriculum(start=0.5, until="80%"))


@pytest.mark.parametrize("loader", [0, 2])
def test_balanced_order_with_random_views(tmp_path, loader):
    check(image_task(tmp_path, augment="light"), tmp_path, 5, order="balanced", workers=loader)


def test_what_cannot_be_is_refused_by_plan_and_run_alike(tmp_path):
    from tests.integration.test_gradients import regression_task

    regression = regression_task(tmp_path / "regression")
    text = text_task(tmp_path)
    wrong = replaced(text, loss=CrossEntropy(class_weights={"postive": 2.0}))
    for task, settings, match in (
        (regression, {"order": "balanced"}, "order: balanced"),
        (DataMap(base=regression), {}, "data_map is of examples with one class each"),
        (wrong, {}, "'postive' is no class .*did you mean 'positive'"),
    ):
        with pytest.raises(ConfigError, match=match):
            plan_run(config(task, **settings))
        with pytest.raises(ConfigError, match=match):
            run(task, **settings)


def test_the_plan_warns_of_what_has_no_effect(tmp_path):
    def warned(task, **settings):
        return " ".join(plan_run(config(task, **settings))["warnings"])

    even, uneven = text_task(tmp_path), uneven_task(tmp_path)
    weighed = CrossEntropy(class_weights="balanced")
    assert "all classes weigh the same" in warned(replaced(even, loss=weighed))
    assert "one of them is enough" in warned(replaced(uneven, loss=weighed), order="balanced")
    assert "class" not in warned(replaced(uneven, loss=weighed))
    assert "after the end of the run" in warned(SelfPaced(base=even, until="50 steps"))
    assert "two epochs" in warned(DataMap(base=even), length="5 steps")


def test_the_plan_names_them(tmp_path):
    task = text_task(tmp_path)
    document = plan_run(config(SuperLoss(base=task)))
    assert document["task"] == "super_loss" and document["model"] == task.model
    assert document["identity"]["task"]["base"]["loss"]["name"] == "cross_entropy"
    changed = plan_run(config(SuperLoss(base=task, regularisation=2.0)))
    assert changed["digest"] != document["digest"]
