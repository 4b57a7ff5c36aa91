"""What the tasks that go by the loss of each example do with it, step by step; and the data map."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from finetune.config.dumping import dump
from finetune.config.resolving import resolve
from finetune.config.validation import build, plain
from finetune.data.loading import weighted_batch
from finetune.data.store import Draws
from finetune.errors import ConfigError
from finetune.losses import self_paced_weights, super_loss
from finetune.progress import Progress
from finetune.run_config import RunConfig
from finetune.tasks.base import Output, Seen, Task
from finetune.tasks.data_map import DataMap
from finetune.tasks.growing_length import GrowingLength
from finetune.tasks.recent_losses import share_below, with_latest
from finetune.tasks.selective_backprop import SelectiveBackprop, uniform
from finetune.tasks.self_paced import SelfPaced
from finetune.tasks.super_loss import SuperLoss
from finetune.tasks.wrapping import replaced
from tests.runs import image_task, text_task

KINDS = {"super_loss": SuperLoss, "self_paced": SelfPaced, "selective_backprop": SelectiveBackprop}
WRAPPERS = {**KINDS, "data_map": DataMap}


class Given:
    """A task whose losses and logits are given."""

    name = "given"
    metrics = ("accuracy",)

    def __init__(self, losses, logits=None):
        self.losses = torch.as_tensor(losses, dtype=torch.float64)
        self.logits = torch.zeros(len(self.losses), 2) if logits is None else logits

    def load_model(self): ...

    def splits(self): ...

    def load_split(self, name): ...

    def score(self, predictions): ...

    def forward(self, model, batch, progress):
        return Output(self.losses, torch.ones_like(self.losses), self.logits, notes={"given": self.losses})


def at(step: int, remembered=None) -> Progress:
    return Progress(step, total_steps=10, steps_per_epoch=5, remembered=remembered or {})


def forward(task, progress, *, training: bool = True, index=None):
    count = len(task.base.losses)
    batch = {"index": torch.arange(count) if index is None else index, "labels": torch.zeros(count, dtype=torch.int64)}
    return task.forward(nn.Identity().train(training), batch, progress)


def shown(notes, index=None, num_examples: int = 6) -> Seen:
    notes = {name: torch.as_tensor(values, dtype=torch.float64) for name, values in notes.items()}
    index = torch.arange(len(next(iter(notes.values())))) if index is None else torch.tensor(index)
    return Seen(index, notes, num_examples)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_an_evaluation_is_that_of_the_task_inside(kind):
    task = WRAPPERS[kind](base=Given([1.0, 2.0]))
    remembered = {f"{kind}.average": torch.tensor(1.0), f"{kind}.recent": torch.ones(2)}
    found = forward(task, at(6, remembered), training=False)
    assert torch.equal(found.losses, task.base.losses) and set(found.notes) == {"given"}


@pytest.mark.parametrize("kind", WRAPPERS)
def test_the_first_update_is_plain_and_noted(kind):
    task = WRAPPERS[kind](base=Given([1.0, 2.0]))
    found = forward(task, at(0))
    assert torch.equal(found.losses, task.base.losses) and found.weights.tolist() == [1.0, 1.0]
    assert {name.partition(".")[0] for name in found.notes} == {"given", kind}


def test_super_loss_goes_by_the_average_of_the_updates_before():
    task = SuperLoss(base=Given([1.0, 2.0]), regularisation=0.5, smoothing=0.8)
    first = task.updated({}, shown({"super_loss.losses": [1.0, 3.0]}), at(0))
    assert first["super_loss.average"].item() == 2.0
    second = task.updated(first, shown({"super_loss.losses": [0.0, 1.0]}), at(1))
    assert second["super_loss.average"].item() == pytest.approx(0.8 * 2.0 + 0.2 * 0.5)
    assert first["super_loss.average"].item() == 2.0  # nothing is changed in place
    found = forward(task, at(2, second)).losses
    torch.testing.assert_close(found, super_loss(task.base.losses, threshold=1.7, regularisation=0.5))


def test_self_paced_weights_rise_to_all():
    task = SelfPaced(base=Given([0.5, 1.5, 4.0]), weights="linear", start=0.5, until="80%")
    assert [task.share(at(step)) for step in (0, 2, 4, 8, 9)] == [0.5, 0.625, 0.75, 1.0, 1.0]
    recent = {"self_paced.recent": torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0], dtype=torch.float64)}
    found = forward(task, at(0, recent)).losses  # the median is 2
    assert found.tolist() == [0.5 * 0.75, 1.5 * 0.25, 0.0]
    later = forward(task, at(4, recent)).losses  # the third quartile is 3
    torch.testing.assert_close(
        later, task.base.losses * self_paced_weights(task.base.losses, threshold=3.0, kind="linear")
    )
    plain = forward(task, at(8, recent))
    assert plain.losses is task.base.losses and set(plain.notes) == {"given"}


@pytest.mark.parametrize("kind", ["hard", "linear", "logarithmic", "logistic"])
def test_losses_of_nothing_weigh_as_easy_ones(kind):
    task = SelfPaced(base=Given([0.0, 0.0]), weights=kind)
    found = forward(task, at(0, {"self_paced.recent": torch.zeros(4, dtype=torch.float64)}))
    assert found.losses.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("task", "name"), [(SelfPaced, "self_paced"), (SelectiveBackprop, "selective_backprop")])
def test_the_last_losses_are_remembered_until_the_end(task, name):
    made = task(base=Given([1.0]), memory=5, until="80%")
    remembered = {}
    for step in range(10):
        losses = [step + 0.1, step + 0.2]
        remembered = made.updated(remembered, shown({f"{name}.losses": losses}), at(step)) if step < 8 else remembered
    assert remembered[f"{name}.recent"].tolist() == [5.2, 6.1, 6.2, 7.1, 7.2]
    assert made.updated(remembered, shown({"other": [1.0]}), at(8)) == {}


def test_the_rank_of_a_loss_is_the_share_that_it_is_not_below():
    recent = torch.tensor([1.0, 4.0, 2.0, 2.0])
    assert share_below(recent, torch.tensor([0.5, 1.0, 2.0, 3.0, 9.0])).tolist() == [0, 0.25, 0.75, 0.75, 1]
    assert with_latest({}, "x", recent, most=3).tolist() == [4.0, 2.0, 2.0]


def test_selective_backprop_keeps_its_share_and_the_largest_losses_mostly():
    count = 4000
    losses = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for keep in (0.25, 0.5, 0.8):
        task = SelectiveBackprop(base=Given(losses), keep=keep)
        found = forward(task, at(5, {"selective_backprop.recent": losses}))
        assert found.weights.mean().item() == pytest.approx(keep, abs=0.03)
        assert torch.equal(found.losses, losses)
        kept = found.weights > 0
        tenths = [kept[(losses >= low / 10) & (losses < (low + 1) / 10)].double().mean() for low in range(10)]
        expected = [((low + 0.5) / 10) ** (1 / keep - 1) for low in range(10)]
        assert [float(share) for share in tenths] == pytest.approx(expected, abs=0.09)


def test_selective_backprop_acts_in_its_part_of_the_run_alone():
    losses = torch.linspace(0, 1, 50, dtype=torch.float64)
    task = SelectiveBackprop(base=Given(losses), start="50%", until="90%")
    recent = {"selective_backprop.recent": losses}
    drops = [bool((forward(task, at(step, recent)).weights == 0).any()) for step in range(10)]
    assert drops == [False] * 5 + [True] * 4 + [False]


def test_what_is_kept_depends_on_seed_step_and_example_and_not_on_the_cut():
    losses = torch.linspace(0, 1, 60, dtype=torch.float64)
    recent = {"selective_backprop.recent": losses}
    whole = forward(SelectiveBackprop(base=Given(losses)), at(5, recent)).weights
    order = torch.randperm(60, generator=torch.Generator().manual_seed(3))
    parts = [
        forward(SelectiveBackprop(base=Given(losses[part])), at(5, recent), index=part).weights
        for part in order.split(7)
    ]
    assert torch.equal(torch.cat(parts), whole[order])
    for other in (at(6, recent), at(5, recent)._replace(seed=1)):
        assert not torch.equal(whole, forward(SelectiveBackprop(base=Given(losses)), other).weights)


def splitmix(state: int) -> float:
    """One output of SplitMix64 after its state was advanced, as its authors wrote it, in Python's integers."""
    mask = 2**64 - 1
    state &= mask
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return ((state ^ (state >> 31)) >> 11) / 2**53


def test_the_hash_is_splitmix64():
    from finetune.randomness import seed_for

    index = torch.tensor([0, 1, 2, 77, 2**40])
    expected = [splitmix(i * 0x9E3779B97F4A7C15 + seed_for(7, "selective_backprop", 12)) for i in index.tolist()]
    assert uniform(index, 12, seed=7).tolist() == expected


def test_the_hash_is_uniform():
    values = torch.cat([uniform(torch.arange(1000), step, seed=0) for step in range(40)]).numpy()
    assert 0 <= values.min() and values.max() < 1
    counts = np.histogram(values, bins=20, range=(0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 44  # chi-square of 19 degrees, 0.1 %
    rows = values.reshape(40, 1000)
    assert abs(np.corrcoef(rows[:, :-1].ravel(), rows[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(rows[:-1].ravel(), rows[1:].ravel())[0, 1]) < 0.02


def test_a_data_map_by_hand():
    """Example 0 is right, wrong, right; 1 wrong, wrong, wrong; 2 wrong, right, right; 3 is seen once; 5 never."""
    task = DataMap(base=Given([1.0]))
    courses = {0: [0.9, 0.3, 0.6], 1: [0.1, 0.2, 0.3], 2: [0.4, 0.8, 0.9]}
    right = {0: [1, 0, 1], 1: [0, 0, 0], 2: [0, 1, 1]}
    remembered = {}
    for epoch in range(3):
        index = [0, 1, 2, *([3, 4, 4] if epoch == 1 else [])]
        notes = {
            "data_map.probability": [courses[i][epoch] for i in (0, 1, 2)] + ([0.7, 0.5, 0.5] if epoch == 1 else [])
        }
        notes["data_map.correct"] = [right[i][epoch] for i in (0, 1, 2)] + ([1, 1, 0] if epoch == 1 else [])
        remembered = task.updated(remembered, shown(notes, index), at(epoch))
    found = {name: tensor.tolist() for name, tensor in task.records(remembered)["data_map"].items()}
    expected = {
        "confidence": [*(np.mean(courses[i]) for i in range(3)), 0.7, 0.5],
        "variability": [*(np.std(courses[i]) for i in range(3)), 0.0, 0.0],
        "correctness": [2 / 3, 0, 2 / 3, 1, 0.5],
        "forgetting": [1, 3, 0, 0, 0],
    }
    for name, values in expected.items():
        assert found[name][:5] == pytest.approx(values, abs=1e-6), name
        assert math.isnan(found[name][5])
    assert task.records({}) == {}


def test_a_data_map_notes_the_probability_of_the_label():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    task = DataMap(base=Given([1.0, 1.0, 1.0], logits))
    notes = forward(task, at(0)).notes
    assert notes["data_map.probability"].tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.e), 0.5])
    assert notes["data_map.correct"].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("labels", [torch.zeros(2), torch.zeros(2, 3, dtype=torch.int64)])
def test_a_data_map_of_what_has_no_class_is_refused(labels):
    task = DataMap(base=Given([1.0, 1.0]))
    with pytest.raises(ConfigError, match="data_map is of examples with one class each, which given"):
        task.forward(nn.Identity().train(), {"index": torch.arange(2), "labels": labels}, at(0))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_of_parts_of_examples_are_refused(kind):
    task = KINDS[kind](base=Given([1.0, 2.0, 3.0]))
    with pytest.raises(ConfigError, match=f"{kind} goes by the loss of each example, and given has losses of parts"):
        forward(task, at(0), index=torch.arange(2))


@pytest.mark.parametrize("inside", KINDS)
@pytest.mark.parametrize("outside", KINDS)
def test_only_one_of_them_weighs_examples(outside, inside):
    with pytest.raises(ValueError, match=f"{outside} cannot be around {inside}"):
        KINDS[outside](base=DataMap(base=KINDS[inside](base=Given([1.0]))))


def test_a_data_map_is_drawn_once():
    with pytest.raises(ValueError, match="data_map cannot be around data_map"):
        DataMap(base=SuperLoss(base=DataMap(base=Given([1.0]))))


@pytest.mark.parametrize("is_map_outside", [True, False])
def test_a_map_and_a_weight_remember_side_by_side(is_map_outside):
    base = Given([1.0, 2.0])
    task = DataMap(base=SuperLoss(base=base)) if is_map_outside else SuperLoss(base=DataMap(base=base))
    batch = {"index": torch.arange(2), "labels": torch.zeros(2, dtype=torch.int64)}
    notes = task.forward(nn.Identity().train(), batch, at(0)).notes
    assert {name.partition(".")[0] for name in notes} == {"given", "super_loss", "data_map"}
    remembered = task.updated({}, shown(notes), at(0))
    assert {name.partition(".")[0] for name in remembered} == {"super_loss", "data_map"}
    assert task.updated(remembered, shown(notes), at(1))["data_map.times"].tolist() == [2, 2, 0, 0, 0, 0]
    assert list(task.records(remembered)) == ["data_map"]


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (SelfPaced(base=Given([1.0]), until="50%"), None),
        (SelfPaced(base=Given([1.0]), until="0 steps"), "over before self_paced knows a loss"),
        (SelfPaced(base=Given([1.0]), until="12 steps"), "after the end of the run"),
        (SelectiveBackprop(base=Given([1.0])), None),
        (SelectiveBackprop(base=Given([1.0]), start="10 steps", until="100%"), "drops nothing"),
        (SelectiveBackprop(base=Given([1.0]), start="8 steps", until="50%"), "drops nothing"),
        (DataMap(base=SelfPaced(base=Given([1.0]), until="0 steps")), "over before"),
        (SuperLoss(base=Given([1.0])), None),
    ],
)
def test_what_has_no_effect_is_told(task, told):
    found = task.without_effect(at(0))
    assert (told is None and not found) or (len(found) == 1 and told in found[0])


def test_a_map_of_a_single_epoch_is_told():
    (found,) = DataMap(base=Given([1.0])).without_effect(Progress(0, 9, 5))
    assert "two epochs" in found


def test_a_part_of_the_run_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="until: '40%' is not after start, '50%'"):
        SelectiveBackprop(base=Given([1.0]), until="40%")


def wrapped(folder):
    return [
        SuperLoss(base=text_task(folder)),
        SelfPaced(base=image_task(folder), weights="logistic"),
        SelectiveBackprop(base=GrowingLength(base=text_task(folder), start=4), keep=0.25),
        DataMap(base=SuperLoss(base=text_task(folder))),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_wrapper_is_a_task_that_says_the_rest_as_its_base_does(tmp_path, number):
    task = wrapped(tmp_path)[number]
    assert isinstance(task, Task) and copy.deepcopy(task) == task
    assert task.metrics == task.base.metrics and task.id2label == task.base.id2label and task.model == task.base.model
    assert replaced(task, model="another").model == "another"
    assert getattr(task, "no_such", None) is None
    batch = weighted_batch(task.load_split("train"), Draws(np.arange(4)))
    assert len(batch["index"]) == 4 and len(task.load_split("validation")) == 21


@pytest.mark.parametrize("number", range(4))
def test_they_are_written_and_read_as_yaml(tmp_path, number):
    config = RunConfig(wrapped(tmp_path)[number])
    assert build(RunConfig, plain(config), path="", faults=[], spelling={}) == config
    (tmp_path / "run.yaml").write_text(dump(config))
    assert resolve(None, [tmp_path / "run.yaml"], []) == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{name: super_loss, base: {name: super_loss, base: {}}}", "task.base.name"),
        (
            "{name: self_paced, weights: softly, base: {name: text_classification, model: m, data: sst2}}",
            "task.weights",
        ),
        ("{name: self_paced, start: 1, base: {name: text_classification, model: m, data: sst2}}", "task.start"),
        ("{name: selective_backprop, keep: 0, base: {name: text_classification, model: m, data: sst2}}", "task.keep"),
        ("{name: super_loss, base: {name: lora}}", "task.base.name"),
    ],
)
def test_yaml_that_is_wrong_says_where(tmp_path, text, said):
    (tmp_path / "run.yaml").write_text(f"task: {text}")
    with pytest.raises(ConfigError) as caught:
        resolve(None, [tmp_path / "run.yaml"], [])
    assert said in str(caught.value)
