"""What the tasks that wrap a task give a model, step by step, in training and in evaluation."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from finetune.cached_arrays import ArrayCache
from finetune.config.dumping import dump
from finetune.config.resolving import resolve
from finetune.config.validation import build, plain
from finetune.data.loading import weighted_batch
from finetune.data.store import Draws
from finetune.encoders import Forward
from finetune.errors import ConfigError
from finetune.progress import Progress
from finetune.run_config import RunConfig
from finetune.speed import PLAIN
from finetune.tasks.base import Task
from finetune.tasks.data_map import DataMap
from finetune.tasks.growing_length import GrowingLength
from finetune.tasks.images import ImageClassification
from finetune.tasks.patch_dropout import PatchDropout
from finetune.tasks.progressive import ProgressiveResolution
from finetune.tasks.text import KeepsTokens
from finetune.tasks.wrapping import replaced, told_inside
from tests import tiny_models
from tests.runs import image_task, text_task

SMALL = {"sizes": (8, 12), "until": ("40%", "6 steps")}


class Seen(nn.Module):
    """Keeps the batch that it was called with."""

    def forward(self, batch):
        self.batch = batch
        return torch.zeros(len(batch["labels"]), 3)


def at(step: int) -> Progress:
    return Progress(step, total_steps=10, steps_per_epoch=5)


def seen(task, batch, step: int, *, training: bool = True):
    model = Seen().train(training)
    task.forward(model, batch, at(step))
    return model.batch


def batch_of(task, count: int = 4):
    return weighted_batch(task.load_split("train"), Draws(np.arange(count)))


def family_task(folder, family: str) -> ImageClassification:
    """The task of ``image_task`` on another tiny model."""
    task = image_task(folder)
    if family.startswith("timm-"):
        return replaced(task, model=f"timm:{tiny_models.save_timm_folder(folder / family, family)}")
    return replaced(task, model=str(tiny_models.save_image_folder(folder / family, family)))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: GrowingLength(base=None, until="50%"), []),
        (lambda: GrowingLength(base=None, until="100%"), []),
        (lambda: GrowingLength(base=None, until="4%"), ["4% is no update"]),
        (lambda: GrowingLength(base=None, until="11 steps"), ["11 steps is after the end"]),
        (lambda: ProgressiveResolution(base=None, **SMALL), []),
        (lambda: ProgressiveResolution(base=None, sizes=(8, 12), until=("50%", "5 steps")), ["made at 12 pixels"]),
        (
            lambda: ProgressiveResolution(base=None, sizes=(8, 10, 12), until=("50%", "2 steps", "4 steps")),
            ["made at 10 pixels", "made at 12 pixels"],
        ),
        (lambda: ProgressiveResolution(base=None, sizes=(8,), until=("0 steps",)), ["made at 8 pixels"]),
        (lambda: ProgressiveResolution(base=None, sizes=(8,), until=("100%",)), ["no update of this run at full"]),
        (
            lambda: ProgressiveResolution(base=None, sizes=(8, 12), until=("10 steps", "3 epochs")),
            ["made at 12 pixels", "no update of this run at full"],
        ),
    ],
)
def test_what_has_no_effect_is_told(make, told):
    found = make().without_effect(at(0))
    assert len(found) == len(told) and all(words in line for words, line in zip(told, found, strict=True))


def test_a_length_that_grows_until_no_duration_is_refused():
    with pytest.raises(ValueError, match="'half' is not a duration"):
        GrowingLength(base=None, until="half")


def test_images_grow_over_the_run_and_are_whole_in_evaluation(tmp_path):
    task = ProgressiveResolution(base=image_task(tmp_path), **SMALL)
    batch = batch_of(task)
    sides = [seen(task, batch, step)["pixel_values"].shape[-1] for step in range(10)]
    assert sides == [8] * 4 + [12] * 2 + [16] * 4
    assert seen(task, batch, 6) is batch and all(seen(task, batch, step, training=False) is batch for step in (0, 5))
    small = seen(task, batch, 0)
    assert {name for name in batch if small[name] is not batch[name]} == {"pixel_values"}
    means = [images["pixel_values"].mean(dim=(2, 3)) for images in (small, batch)]
    torch.testing.assert_close(*means, rtol=0.0, atol=0.05)  # it is the same picture


@pytest.mark.parametrize("family", ["vit", "deit", "dinov2", "timm-vit", "timm-deit"])
def test_models_take_each_size_and_full_size_as_before(tmp_path, family):
    base = family_task(tmp_path, family)
    task = ProgressiveResolution(base=base, **SMALL)
    batch = batch_of(task)
    torch.manual_seed(0)
    before = base.load_model().module
    torch.manual_seed(0)
    after = task.load_model().module
    assert before.state_dict().keys() == after.state_dict().keys()
    forward = Forward(after).eval()
    with torch.no_grad():
        assert torch.equal(forward(batch), Forward(before).eval()(batch))
        for step in (0, 4):
            small = seen(task, batch, step)
            torch.testing.assert_close(forward(small), forward.plain(small))
            assert not torch.allclose(forward(small), forward(batch))


def test_a_model_that_takes_one_size_is_refused_with_the_size(tmp_path):
    task = family_task(tmp_path, "timm-vit")
    with pytest.raises(ConfigError, match="does not take images of 10 pixels"):
        ProgressiveResolution(base=task, sizes=(8, 10), until=("1 step", "2 steps")).load_model()
    with pytest.raises(ConfigError, match="16 is not smaller than the 16 pixels"):
        ProgressiveResolution(base=task, sizes=(16,), until=("1 step",)).load_split("train")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"sizes": (8,)}, "2 ends for 1 sizes"),
        ({"sizes": (), "until": ()}, "0 ends for 0 sizes"),
        ({"sizes": (12, 8)}, "do not grow"),
        ({"sizes": (8, 12), "until": ("50%", "50%")}, "do not follow"),
    ],
)
def test_a_course_that_goes_nowhere_is_refused(tmp_path, fields, match):
    with pytest.raises(ValueError, match=match):
        ProgressiveResolution(base=image_task(tmp_path), **fields)


@pytest.mark.parametrize(("family", "num_prefix"), [("vit", 1), ("deit", 2), ("dinov2", 1), ("timm-vit", 1)])
def test_patches_are_dropped_in_training_only_and_class_tokens_stay(tmp_path, family, num_prefix):
    task = PatchDropout(base=family_task(tmp_path, family), share=0.75)
    batch = batch_of(task)
    assert seen(task, batch, 0, training=False) is batch
    forward = Forward(task.load_model().module).eval()
    assert forward.family is not None
    for name, parameter in forward.named_parameters():  # zeros at first, and then patches look alike
        if "pos" in name:
            nn.init.normal_(parameter)
    part = seen(task, batch, 0)
    with torch.no_grad():
        whole = forward.family.embed(batch, None)
        torch.manual_seed(0)
        kept = forward.family.embed(part, None)
        torch.manual_seed(0)
        assert torch.equal(kept, forward.family.embed(part, None))
        assert not torch.equal(kept, forward.family.embed(part, None))
    assert kept.shape[1] == num_prefix + (whole.shape[1] - num_prefix) // 4
    assert torch.equal(kept[:, :num_prefix], whole[:, :num_prefix])
    places = [[_place(row, image) for row in mine] for mine, image in zip(kept, whole, strict=True)]
    assert all(len(set(mine)) == len(mine) for mine in places) and len(set(map(tuple, places))) == 4


def _place(row, image) -> int:
    """The one token of an image that is this row."""
    (found,) = torch.nonzero((image == row).all(dim=1)).flatten().tolist()
    return found


def test_patches_of_a_model_that_cannot_be_entered_are_not_silently_kept(tmp_path):
    task = PatchDropout(base=family_task(tmp_path, "timm-dinov3"))
    batch = batch_of(task)
    with pytest.raises(ConfigError, match="patches cannot be dropped from this model: Eva is not among"):
        task.forward(Forward(task.load_model().module).train(), batch, at(0))


def test_texts_grow_to_their_length_and_keep_their_separator(tmp_path):
    base = text_task(tmp_path)
    task = GrowingLength(base=base, start=4, until="60%")
    batch = batch_of(task, 8)
    batch["token_type_ids"] = torch.arange(len(batch["input_ids"]))
    assert [task.length(at(step)) for step in range(8)] == [4, 8, 13, 18, 22, 27, None, None]
    assert seen(task, batch, 6) is batch and seen(task, batch, 0, training=False) is batch
    short = seen(task, batch, 0)
    texts, whole = (each["input_ids"].split(each["lengths"].tolist()) for each in (short, batch))
    assert max(map(len, whole)) > 4 and short["lengths"].tolist() == [min(4, len(text)) for text in whole]
    for text, full in zip(texts, whole, strict=True):
        assert text.tolist() == [*full[: len(text) - 1].tolist(), full[-1].item()] and text[-1] == 3  # [SEP]
    assert torch.equal(short["labels"], batch["labels"])
    assert torch.equal(batch["input_ids"][short["token_type_ids"]], short["input_ids"])
    nothing = weighted_batch(task.load_split("train"), [])
    assert seen(task, nothing, 0)["lengths"].tolist() == [4]


@pytest.mark.parametrize("speed", [None, PLAIN])
def test_what_is_cut_is_what_the_model_sees(tmp_path, speed):
    task = GrowingLength(base=text_task(tmp_path), start=4)
    batch = batch_of(task, 5)
    model = task.load_model().module.eval()
    forward = Forward(model) if speed is None else Forward(model, speed)
    forward.training = True  # and its parts are not: no dropout
    with torch.no_grad():
        found = task.forward(forward, batch, at(0)).logits
        for number, length in enumerate(batch["lengths"].tolist()):
            start = int(batch["lengths"][:number].sum())
            own = batch["input_ids"][start : start + length]
            cut = torch.cat([own[:3], own[-1:]]) if length > 4 else own
            torch.testing.assert_close(found[number], model(input_ids=cut[None]).logits[0], rtol=1e-4, atol=1e-5)


def test_length_that_cannot_grow_or_be_cut_is_refused(tmp_path):
    task = GrowingLength(base=text_task(tmp_path), start=32)
    with pytest.raises(ConfigError, match="at most 32 tokens"):
        task.load_split("train")
    rectangle = {"input_ids": torch.ones(2, 9), "attention_mask": torch.ones(2, 9), "labels": torch.zeros(2)}
    with pytest.raises(ConfigError, match="rectangles"):
        seen(GrowingLength(base=text_task(tmp_path), start=4), rectangle, 0)


def wrapped(folder):
    return [
        ProgressiveResolution(base=image_task(folder), **SMALL),
        PatchDropout(base=ProgressiveResolution(base=image_task(folder), **SMALL), share=0.25),
        GrowingLength(base=text_task(folder), start=4),
    ]


TEXT_FAULT = "task.max_length: 128 tokens. Set task.max_length=64, or task.data.text; task.start is the wrapper's"


@pytest.mark.parametrize(
    ("depth", "told"),
    [
        (0, TEXT_FAULT),
        (1, TEXT_FAULT.replace("task.max", "task.base.max").replace("task.data", "task.base.data")),
        (
            2,
            TEXT_FAULT.replace("task.max", "task.base.base.max")
            .replace("task.data", "task.base.base.data")
            .replace("task.start", "task.base.start"),
        ),
    ],
)
def test_faults_of_a_task_inside_name_its_own_place(tmp_path, depth, told):
    inner = text_task(tmp_path)
    task = (inner, GrowingLength(base=inner, start=4), DataMap(base=GrowingLength(base=inner, start=4)))[depth]
    with pytest.raises(ConfigError) as caught, told_inside(task):
        raise ConfigError(TEXT_FAULT)
    assert str(caught.value) == told


@pytest.mark.parametrize("number", range(3))
def test_a_wrapper_is_a_task_that_says_the_rest_as_its_base_does(tmp_path, number):
    task = wrapped(tmp_path)[number]
    assert isinstance(task, Task) and copy.deepcopy(task) == task
    assert task.metrics == task.base.metrics and task.id2label == task.base.id2label and task.model == task.base.model
    assert replaced(task, model="another").model == "another" and replaced(task, model="another") != task
    assert getattr(task, "no_such", None) is None
    kept = {key: value for key, value in batch_of(task).items() if key in ("pixel_values", "input_ids")}
    hidden = {key: value for key, value in batch_of(task).items() if key not in kept}
    with pytest.raises(ValueError, match="from (phase to phase|step to step)|each time"):
        seen(task, hidden, 0)


def test_tokens_of_the_task_inside_are_kept(tmp_path):
    task = GrowingLength(base=text_task(tmp_path), start=4)
    assert isinstance(task, KeepsTokens)
    task.keep_tokens_in(ArrayCache(tmp_path / "cache", max_bytes=10**6))
    assert "fewer than" in task.load_split("train").kept
    assert not isinstance(PatchDropout(base=image_task(tmp_path)), KeepsTokens)


@pytest.mark.parametrize("number", range(3))
def test_they_are_written_and_read_as_yaml(tmp_path, number):
    config = RunConfig(wrapped(tmp_path)[number])
    assert build(RunConfig, plain(config), path="", faults=[], spelling={}) == config
    (tmp_path / "run.yaml").write_text(dump(config))
    assert resolve(None, [tmp_path / "run.yaml"], []) == config


def test_yaml_that_is_wrong_says_where(tmp_path):
    text = "task: {name: progressive_resolution, sizes: [8], until: [soon], base: {name: lora, rank: 2}}"
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(None, [tmp_path / "run.yaml"], [])
    assert "task.until" in str(caught.value) and "task.base.name" in str(caught.value)
    assert "image_classification" in str(caught.value) and "text_classification" not in str(caught.value)
