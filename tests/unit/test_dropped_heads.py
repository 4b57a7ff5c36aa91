"""A checkpoint's head that is not taken: ``plan`` says why, and does not call it missing."""

from __future__ import annotations

import pytest

from finetune.cli.plan_tables import print_plan
from finetune.models.labels import Labels
from finetune.strategies import LoRA
from finetune.training import plan_run
from tests.runs import config, image_task, replaced, text_task
from tests.tiny_models import save_image_folder, save_text_folder, save_timm_folder


def said(capsys, task, **settings) -> list[str]:
    """What the plan prints of new weights."""
    print_plan(plan_run(config(task, **settings)), title="x")
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("* new")]


def test_a_head_of_another_number_of_classes(tmp_path, capsys):
    task = text_task(tmp_path)
    assert said(capsys, task) == ["* new in head (not in the checkpoint): classifier.weight, classifier.bias"]
    task = replaced(task, model=str(save_text_folder(tmp_path / "three", head=True)))
    expected = (
        "* new in head (drawn anew: 3 classes in the checkpoint, 2 in the data): classifier.weight, classifier.bias"
    )
    assert said(capsys, task) == [expected]
    assert said(capsys, task, strategy=LoRA(rank=2)) == [expected]
    (line,) = said(capsys, replaced(task, weights="scratch"))
    assert line.startswith("* new in head (not in the checkpoint): ")


@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_a_head_of_other_classes(tmp_path, capsys, library):
    save, prefix = (save_image_folder, "") if library == "transformers" else (save_timm_folder, "timm:")
    own = {"head": True} if library == "transformers" else {}
    task = replaced(image_task(tmp_path), model=f"{prefix}{save(tmp_path / 'other', **own)}")
    (line,) = said(capsys, task)
    assert line.startswith("* new in head (drawn anew: other classes in the checkpoint, or another task): ")


def test_a_head_for_another_task():
    assert Labels(("score",), "regression").other_than(1) == "the checkpoint's is for another task"
