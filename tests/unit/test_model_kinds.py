"""What a model is for, as its card has it: read off the model and the labels, whatever the task says of itself."""

from __future__ import annotations

import pytest

from finetune.config.schema import UNIONS
from finetune.model_cards.card import _TASKS
from finetune.tasks.masked_language import MaskedLanguage
from finetune.training.finishing import kind_of
from tests.integration import test_multi_label_runs as several
from tests.integration.test_gradients import regression_task
from tests.integration.test_question_answering_runs import task as answers_task
from tests.runs import image_task, masked_task, text_task, token_task

MADE = {
    "text_classification": text_task,
    "text_regression": regression_task,
    "text_multi_label": several.text_task,
    "image_classification": image_task,
    "image_multi_label": several.image_task,
    "masked_language": masked_task,
    "token_classification": token_task,
    "question_answering": answers_task,
}


@pytest.mark.parametrize("name", [task.name for task in UNIONS["task"] if "base" not in task.__dataclass_fields__])
def test_every_task_is_told_by_its_model_and_labels(tmp_path, name):
    """So no name is looked at: a task around it, or a user's own with such a model, is told alike."""
    task = MADE[name](tmp_path)
    assert task.name == name and name in _TASKS
    assert kind_of(task.load_model(), task.load_split("validation")) == name


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("image_classification", lambda folder: image_task(folder, family="timm-vit")),
        ("image_multi_label", lambda folder: several.image_task(folder, model="timm")),
        ("masked_language", lambda folder: MaskedLanguage(model="minilm", data="pydocs", max_length=16)),
    ],
)
def test_other_libraries_and_models_are_told_as_well(tmp_path, name, task):
    made = task(tmp_path)
    assert kind_of(made.load_model(), made.load_split("validation")) == name
