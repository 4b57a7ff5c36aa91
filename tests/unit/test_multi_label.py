"""Several labels an example: loss, scores and weights against torch, scikit-learn and hand-made numbers."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch

from finetune import ImageMultiLabel, RunConfig, TextClassification, TextMultiLabel
from finetune.config import dump, resolve
from finetune.encoders import Forward
from finetune.errors import ConfigError, DataError
from finetune.losses import binary_cross_entropy
from finetune.metrics import External, as_evaluate, available, compute
from finetune.models import load_image_classifier, load_text_classifier
from finetune.tasks.base import Task
from tests.runs import without_dropout
from tests.tiny_models import save_text_folder, save_timm_folder
from tests.unit.test_tasks import START, batch_of

NAMES = ("cat", "dog", "run")
ROWS = [("a dog runs", ["run", "dog"]), ("the cat", ["cat"]), ("here", []), ("cat and dog", ["cat", "dog"])]


@pytest.fixture
def split():
    draw = np.random.default_rng(3)
    labels = draw.random((60, 5)) < 0.3
    labels[0] = False
    labels[:, 4] = False  # of which no example is
    return draw.normal(size=(60, 5)), labels


def task_on(folder, *, rows=ROWS, model="bert", **options) -> TextMultiLabel:
    if not (folder / "bert").exists():
        save_text_folder(folder / "bert")
    path = folder / "train.jsonl"
    path.write_text("\n".join(json.dumps({"text": text, "labels": labels}) for text, labels in rows))
    data = {"train": str(path), "validation": str(path), "text": "text", "label": "labels"}
    return TextMultiLabel(**{"model": str(folder / model), "data": data, "max_length": 16} | options)


def test_the_loss_of_an_item_is_torchs_mean_over_its_labels():
    draw = torch.Generator().manual_seed(5)
    logits = torch.randn(7, 4, generator=draw, dtype=torch.float64) * 5
    labels = torch.rand(7, 4, generator=draw) < 0.4
    for weights in (None, torch.tensor([1.0, 2.0, 0.5, 9.0], dtype=torch.float64)):
        found = binary_cross_entropy(logits, labels, positive_weights=weights)
        assert found.shape == (7,)
        expected = torch.nn.BCEWithLogitsLoss(pos_weight=weights)(logits, labels.double())
        torch.testing.assert_close(found.mean(), expected)
    assert binary_cross_entropy(torch.zeros(1, 2), torch.tensor([[True, False]])).item() == pytest.approx(math.log(2))


def test_focal_loss_of_labels_by_hand():
    """p = 0.9 where the label is there, and 0.1 where it is not: 0.01 of the term each; 0.81 where it is wrong."""
    logits = torch.tensor([[9.0, 1 / 9, 1 / 9]], dtype=torch.float64).log()
    labels, right, wrong = torch.tensor([[True, False, True]]), -math.log(0.9), -math.log(0.1)
    found = binary_cross_entropy(logits, labels, gamma=2.0)
    assert found.item() == pytest.approx((2 * 0.01 * right + 0.81 * wrong) / 3)
    weights = torch.tensor([5.0, 5.0, 7.0])
    found = binary_cross_entropy(logits, labels, positive_weights=weights, gamma=2.0)
    assert found.item() == pytest.approx((0.01 * (5 + 1) * right + 0.81 * 7 * wrong) / 3)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_of_what_is_certain_has_a_slope(gamma):
    logits = torch.tensor([[200.0, -200.0, 200.0]], requires_grad=True)
    binary_cross_entropy(logits, torch.tensor([[True, False, False]]), gamma=gamma).sum().backward()
    assert logits.grad.tolist()[0] == pytest.approx([0.0, 0.0, 1 / 3])


def test_the_loss_does_not_overflow_in_half_precision():
    logits = torch.tensor([[300.0, -300.0]], dtype=torch.float16)
    assert binary_cross_entropy(logits, torch.tensor([[False, True]])).tolist() == [300.0]


def test_scores_equal_scikit_learn(split):
    logits, labels = split
    given = 1 / (1 + np.exp(-logits)) > 0.5
    expected = {
        "f1_micro": oracle.f1_score(labels, given, average="micro"),
        "f1_macro": oracle.f1_score(labels, given, average="macro", zero_division=0),
        "f1_samples": oracle.f1_score(labels, given, average="samples", zero_division=0),
        "precision_micro": oracle.precision_score(labels, given, average="micro"),
        "recall_micro": oracle.recall_score(labels, given, average="micro"),
        "subset_accuracy": oracle.accuracy_score(labels, given),
        "hamming_loss": oracle.hamming_loss(labels, given),
        "mean_average_precision": oracle.average_precision_score(labels[:, :4], logits[:, :4], average="macro"),
        "roc_auc_macro": oracle.roc_auc_score(labels[:, :4], logits[:, :4], average="macro"),
        "ranking_average_precision": oracle.label_ranking_average_precision_score(labels, logits),
        "ranking_loss": oracle.label_ranking_loss(labels, logits),
    }
    assert set(expected) == set(available("multi_label"))
    assert compute(list(expected), logits=logits, labels=labels) == pytest.approx(expected, abs=1e-12)


def test_scores_by_hand():
    """Two examples, three labels: {a, b} given {a}, and {c} given {b, c}."""
    labels = np.array([[True, True, False], [False, False, True]])
    logits = np.array([[2.0, -1.0, -2.0], [-3.0, 1.0, 0.5]])
    found = compute(available("multi_label"), logits=logits, labels=labels)
    assert found == pytest.approx(
        {
            "f1_micro": 2 * 2 / (2 * 2 + 1 + 1),
            "f1_macro": (1 + 0 + 1) / 3,
            "f1_samples": (2 / 3 + 2 / 3) / 2,
            "precision_micro": 2 / 3,
            "recall_micro": 2 / 3,
            "subset_accuracy": 0.0,
            "hamming_loss": 2 / 6,
            "mean_average_precision": (1 + 1 / 2 + 1) / 3,  # of b the example without it ranks first
            "roc_auc_macro": (1 + 0 + 1) / 3,
            "ranking_average_precision": (1 + 1 / 2) / 2,
            "ranking_loss": (0 + 1 / 2) / 2,
        }
    )


def test_the_threshold_is_one_half_and_exclusive():
    labels, at, above = np.array([[True, False]] * 2), np.zeros((2, 2)), np.full((2, 2), 1e-9)
    assert compute(["recall_micro"], logits=at, labels=labels) == {"recall_micro": 0.0}
    assert compute(["recall_micro"], logits=above, labels=labels) == {"recall_micro": 1.0}


@pytest.mark.parametrize("name", ["mean_average_precision", "roc_auc_macro"])
def test_what_no_label_defines_is_nan(name):
    with pytest.warns(UserWarning, match=name):
        assert math.isnan(compute([name], logits=np.zeros((3, 2)), labels=np.zeros((3, 2), bool))[name])


def test_metrics_of_another_kind_are_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ConfigError, match="'accuracy' is for classification, and this task is multi_label"):
        TextMultiLabel(model="none", data="pydocs", metrics=("accuracy",)).load_split("train")
    with pytest.raises(ConfigError, match="'f1_micro' is for multi_label, and this task is classification"):
        TextClassification(model="none", data="pydocs", metrics=("f1_micro",)).load_split("train")
    with pytest.raises(ConfigError, match="'f1_micro' is for multi_label, and the labels are of a classification"):
        compute(["f1_micro"], logits=np.zeros((2, 2)), labels=np.array([0, 1]))


def test_faces_for_evaluate_equal_ours(split):
    logits, labels = split
    given, probabilities = (logits > 0).astype(int), 1 / (1 + np.exp(-logits))
    ours = compute(["f1_micro", "ranking_loss"], logits=logits, labels=labels)
    face, ranking = as_evaluate("f1_micro"), as_evaluate("ranking_loss")
    assert face.compute(predictions=given, references=labels.astype(int))["f1_micro"] == ours["f1_micro"]
    found = ranking.compute(predictions=probabilities, references=labels.astype(int))
    assert found["ranking_loss"] == pytest.approx(ours["ranking_loss"])
    foreign = External(face, key="f1_micro", direction="maximize")
    assert compute([foreign], logits=logits, labels=labels) == {"f1_micro": ours["f1_micro"]}


def test_from_file_to_loss(tmp_path):
    task = task_on(tmp_path)
    assert isinstance(task, Task)
    store, loaded = task.load_split("train"), task.load_model()
    assert task.id2label == dict(enumerate(NAMES)) == loaded.module.config.id2label
    assert loaded.module.config.problem_type == "multi_label_classification"
    assert loaded.new == ("classifier.weight", "classifier.bias")
    batch = batch_of(store, 0, 2, 3)
    assert batch["labels"].tolist() == [[False, True, True], [False] * 3, [True, True, False]]
    output = task.forward(Forward(loaded.module.eval()), batch, START)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        output.logits, batch["labels"].float(), reduction="none"
    )
    torch.testing.assert_close(output.losses, expected.mean(1))
    assert output.logits.shape == (3, 3) and output.weights is batch["weights"]
    del batch["labels"], batch["weights"]
    assert task.forward(Forward(loaded.module), batch, START)[:2] == (None, None)


def test_weights_count_in_training_only(tmp_path):
    rows = [*ROWS, ("x", ["dog"]), ("y", ["dog"])]  # cat 2 of 6, dog 4, run 1
    balanced = task_on(tmp_path, rows=rows, positive_weights="balanced")
    assert balanced.weights_of_labels == (2.0, 0.5, 5.0)
    assert task_on(tmp_path, rows=rows).weights_of_labels is None
    chosen = dataclasses.replace(balanced, positive_weights={"run": 3})
    assert chosen.weights_of_labels == (1.0, 1.0, 3.0)
    batch, model = batch_of(chosen.load_split("train"), 0), Forward(chosen.load_model().module)
    model.eval()
    output = chosen.forward(model, batch, START)
    plain = binary_cross_entropy(output.logits, batch["labels"])
    torch.testing.assert_close(output.losses, plain)
    without_dropout(model).train()
    probability = output.logits[0, 2].sigmoid()
    torch.testing.assert_close(chosen.forward(model, batch, START).losses, plain - 2 * probability.log() / 3)
    focal = dataclasses.replace(chosen, positive_weights="none", focal_gamma=1.5)
    output = focal.forward(model, batch, START)
    expected = binary_cross_entropy(output.logits, batch["labels"], gamma=1.5)
    torch.testing.assert_close(output.losses, expected)
    assert (output.losses < plain).all()
    torch.testing.assert_close(focal.forward(model.eval(), batch, START).losses, plain)


@pytest.mark.parametrize(
    ("weights", "words"),
    [("even", "got 'even'"), ({}, "got {}"), ({"run": 0}, "got {'run': 0}"), ({"run": True}, "numbers above 0")],
)
def test_weights_that_are_none_are_refused(weights, words):
    for kind in (TextMultiLabel, ImageMultiLabel):
        with pytest.raises(ValueError, match=f"positive_weights: .*{words}"):
            kind(model="m", data="pydocs", positive_weights=weights)


def test_a_weight_for_what_is_no_label_is_refused_with_the_data(tmp_path):
    with pytest.raises(ConfigError, match=r"task\.positive_weights: 'dogs' is no label.*did you mean 'dog'"):
        task_on(tmp_path, positive_weights={"dogs": 2.0}).load_split("train")


def test_a_head_is_kept_only_where_it_gives_labels_in_the_same_way(tmp_path):
    from transformers import AutoConfig

    task = task_on(tmp_path)
    folder = tmp_path / "saved"
    loaded = task.load_model()
    loaded.module.save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    again = dataclasses.replace(task, model=str(folder)).load_model()
    assert again.new == () and torch.equal(again.module.classifier.weight, loaded.module.classifier.weight)
    labels = dict(enumerate(NAMES))
    assert load_text_classifier(str(folder), num_labels=3, id2label=labels).new == loaded.new
    for before in ("single_label_classification", None):
        other = AutoConfig.from_pretrained(folder)
        other.problem_type = before
        other.save_pretrained(folder)
        kept = load_text_classifier(str(folder), num_labels=3, id2label=labels)
        new = load_text_classifier(str(folder), num_labels=3, id2label=labels, problem="multi_label")
        assert kept.new == () and new.new == loaded.new


def test_timm_has_no_kind_of_problem(tmp_path):
    source = f"timm:{save_timm_folder(tmp_path / 'timm', labels=NAMES)}"
    assert load_image_classifier(source, id2label=dict(enumerate(NAMES)), problem="multi_label").new == ()


def test_a_checkpoint_that_knows_the_labels_keeps_their_order(tmp_path):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    task = task_on(tmp_path)
    asked = AutoConfig.from_pretrained(tmp_path / "bert")
    asked.id2label, asked.problem_type = dict(enumerate(reversed(NAMES))), "multi_label_classification"
    asked.label2id = {name: number for number, name in asked.id2label.items()}
    AutoModelForSequenceClassification.from_config(asked).save_pretrained(tmp_path / "bert")
    known = dataclasses.replace(task)
    assert known.id2label == dict(enumerate(reversed(NAMES))) and known.load_model().new == ()
    assert (known.load_split("train").labels == task_on(tmp_path / "other").load_split("train").labels[:, ::-1]).all()


def test_a_configuration_says_it(tmp_path):
    recipe = RunConfig(TextClassification(model="m", data="pydocs"))
    path = tmp_path / "mine.yaml"
    path.write_text(
        "task:\n  name: text_multi_label\n  model: m\n  positive_weights: {a: 2}\n  truncation: tail\n"
        "  data: {train: a.csv, text: t, label: [a, b]}\n"
    )
    found = resolve(recipe, [path], [])
    assert found.task.data.label == ("a", "b") and found.task.positive_weights == {"a": 2}
    stored = tmp_path / "config.yaml"
    stored.write_text(dump(found))
    assert resolve(None, [stored], []) == found
    with pytest.raises(ConfigError, match=r"positive_weights .*: got .even.; expected one of"):
        resolve(found, [], ["task.positive_weights=even"])


def test_one_class_a_row_is_refused(tmp_path):
    task = task_on(tmp_path, rows=[("a", "x"), ("b", "y")])
    with pytest.raises(DataError, match="holds text .* Say what stands between them"):
        task.load_split("train")
