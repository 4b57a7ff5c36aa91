"""Whole runs with several labels an example: cut, spread, stopped, saved and opened by the plain libraries."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from finetune import LoRA
from finetune.data.store import Draw
from finetune.errors import PreemptedError
from finetune.hub.reload_check import check_reload
from finetune.model_cards.probe import PROBE
from finetune.optimizers import SGD
from finetune.policies import Checkpointing
from finetune.running import evaluate_folder
from finetune.tasks.growing_length import GrowingLength
from finetune.tasks.patch_dropout import PatchDropout
from finetune.training import plan_run
from tests.distributed.two_ranks import on_ranks
from tests.runs import Exact, assert_close, config, digest, replaced, run, weights
from tests.runs import image_label_task as image_task
from tests.runs import text_label_task as text_task

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # plain PEFT


TASKS = {"text": text_task, "images": image_task}


def trained(task, micro_batch="8 examples"):
    """Plain SGD, so that a gradient K times too large gives weights that are wrong by as much."""
    result = run(task, optimizer=SGD(lr=0.5, momentum=0.0), max_grad_norm=0, length="5 steps", micro_batch=micro_batch)
    return weights(result.model)


@pytest.mark.parametrize("kind", TASKS)
def test_the_gradient_does_not_depend_on_how_an_update_is_cut(tmp_path, kind):
    task = Exact(TASKS[kind](tmp_path, positive_weights="balanced"))
    whole = trained(task)
    assert_close(trained(task, "3 examples"), whole)
    for rank in on_ranks(lambda: trained(task, "2 examples")):
        assert_close(rank, whole)


def test_two_ranks_score_as_one(tmp_path):
    task = text_task(tmp_path)

    def scores():
        return run(Exact(task), length="4 steps", evaluate_every="2 steps").metrics

    expected = scores()
    assert set(expected["validation"]) == {"loss", *task.metrics}
    first, second = on_ranks(scores)
    assert first == second
    for split, values in expected.items():
        assert first[split] == pytest.approx(values)


def test_a_run_learns_and_goes_on_after_a_stop_bit_for_bit(tmp_path):
    task = text_task(tmp_path)
    settings = {"length": "40 steps", "evaluate_every": "20 steps", "checkpoint": Checkpointing(keep_best=0)}
    whole = run(task, **settings, output_dir=str(tmp_path / "whole"))
    learned = evaluate_folder(tmp_path / "whole", split="train")
    assert learned["f1_micro"] > 0.75 and learned["mean_average_precision"] > 0.85 and learned["loss"] < 0.6
    with pytest.raises(PreemptedError):
        run(task, **settings, output_dir=str(tmp_path / "cut"), stop_at=13)
    resumed = run(task, **settings, output_dir=str(tmp_path / "cut"), existing="resume")
    assert digest(weights(resumed.model)) == digest(weights(whole.model))
    assert evaluate_folder(tmp_path / "whole", split="test") == pytest.approx(whole.metrics["test"], rel=1e-5)


def test_a_saved_text_model_answers_in_the_plain_pipeline(tmp_path):
    from transformers import pipeline

    task = text_task(tmp_path)
    result = run(task, length="6 steps", output_dir=str(tmp_path / "run"))
    folder = tmp_path / "run" / "model"
    saved = json.loads((folder / "config.json").read_text())
    assert saved["problem_type"] == "multi_label_classification"
    assert saved["id2label"] == {"0": "good", "1": "dark", "2": "long"}
    store = task.load_split("validation")
    text = store.table.texts()[3][0]
    found = {item["label"]: item["score"] for item in pipeline("text-classification", str(folder))(text, top_k=None)}
    with torch.no_grad():
        ids = store.batch([Draw(0, 0, 3)])["input_ids"][None]
        logits = result.model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0]
    expected = dict(zip(task.id2label.values(), logits.sigmoid().tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)
    card = (folder / "README.md").read_text()
    assert "may give several labels with 3 classes" in card and "top_k=3" in card and "f1_micro" in card
    assert "one of its labels even where none fits" not in card


@pytest.mark.parametrize("model", ["vit", "timm"])
def test_a_saved_image_model_opens_in_its_plain_library(tmp_path, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = image_task(tmp_path, model=model)
    result = run(task, length="6 steps", output_dir=str(tmp_path / "run"))
    assert set(result.metrics["validation"]) == {"loss", *task.metrics}
    picture = sorted((tmp_path / "images" / "validation").rglob("*.png"))[0]
    if model == "timm":
        check_reload(tmp_path / "run" / "model", tmp_path / "run" / PROBE)
        assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["label_names"] == list(
            task.id2label.values()
        )
        return
    from transformers import pipeline

    found = pipeline("image-classification", str(tmp_path / "run" / "model"))(str(picture), top_k=3)
    batch = task.load_split("validation")
    with torch.no_grad():
        logits = result.model.eval()(batch.batch([Draw(0, 0, 0)])["pixel_values"]).logits[0]
    expected = dict(zip(task.id2label.values(), logits.sigmoid().tolist(), strict=True))
    assert {item["label"]: item["score"] for item in found} == pytest.approx(expected, abs=1e-4)


def test_the_snippet_on_the_card_runs(tmp_path, capsys):
    from finetune.model_cards.card import PLACEHOLDER

    run(text_task(tmp_path), length="2 steps", output_dir=str(tmp_path / "run"))
    folder = tmp_path / "run" / "model"
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    exec(compile(code.replace(PLACEHOLDER, str(folder)), "README", "exec"), {})
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("good", "dark", "long"))


def test_adapters_and_wrappers_take_it(tmp_path):
    task = text_task(tmp_path)
    result = run(task, strategy=LoRA(rank=2), length="3 steps", output_dir=str(tmp_path / "run"))
    assert np.isfinite(result.metrics["validation"]["loss"])
    assert evaluate_folder(tmp_path / "run", split="test") == pytest.approx(result.metrics["test"], rel=1e-5)
    grown = run(GrowingLength(base=task, start=8), length="3 steps", output_dir=str(tmp_path / "grown"))
    assert set(grown.metrics["validation"]) == {"loss", *task.metrics}
    assert "may give several labels" in (tmp_path / "grown" / "model" / "README.md").read_text()
    dropped = run(PatchDropout(base=image_task(tmp_path)), length="2 steps")
    assert np.isfinite(dropped.metrics["validation"]["loss"])


def test_plan_and_train_refuse_the_same(tmp_path):
    from finetune.errors import ConfigError

    for change, words in (
        ({"metrics": ("accuracy",)}, "'accuracy' is for classification, and this task is multi_label"),
        ({"positive_weights": {"bad": 2.0}}, "'bad' is no label of this data"),
    ):
        wrong = replaced(text_task(tmp_path), **change)
        with pytest.raises(ConfigError, match=words):
            plan_run(config(wrong))
        with pytest.raises(ConfigError, match=words):
            run(wrong)
    for door in (plan_run, lambda settings: run(**vars(settings))):
        with pytest.raises(ConfigError, match="order: balanced"):
            door(config(text_task(tmp_path), order="balanced"))
