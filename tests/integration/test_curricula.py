"""Curricula in runs: where difficulty comes from, what is kept of it, and what is refused before anything trains."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
import torch

from finetune.cli import main
from finetune.config import dump
from finetune.curricula import Column, Curriculum, DataMapScore, TeacherLoss
from finetune.curricula.difficulties import WORDS
from finetune.curricula.pictures import edge_density, entropy
from finetune.curricula.texts import rarity
from finetune.errors import ConfigError, DataError, ModelError, PreemptedError
from finetune.policies import Checkpointing
from finetune.speed import Speed
from finetune.training import plan_run
from tests.distributed.two_ranks import on_ranks
from tests.integration.test_resume import finished
from tests.runs import (
    Exact,
    assert_close,
    config,
    digest,
    history,
    image_task,
    masked_task,
    replaced,
    run,
    text_task,
    weights,
)

OF_TEXTS = ["length", "rarity", "tf_idf", "words", Column(column="words"), "loss"]
OF_IMAGES = ["edge_density", "entropy", "loss"]


def by(difficulty, **fields):
    """A curriculum that hides some examples in most of a run of 10 updates."""
    return Curriculum(difficulty=difficulty, **{"start": 0.5, "until": "80%", **fields})


def stored(folder):
    """The difficulty that the last checkpoint of a run holds; None where it holds none."""
    from finetune.checkpoints.reading import newest_good, read_checkpoint

    found = read_checkpoint(newest_good(folder / "checkpoints").path).tensors.get("extra", {})
    return found["difficulty"].numpy() if "difficulty" in found else None


def source_of_scores(folder):
    """``measured before training``, or ``read from the cache``, as the log has it."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line["scores"] for line in lines if "scores" in line]


def refused(task, curriculum, **changes):
    """The one message of both."""
    kinds = (ConfigError, DataError, ModelError)
    with pytest.raises(kinds) as planned:
        plan_run(config(task, curriculum=curriculum, **changes))
    with pytest.raises(kinds) as ran:
        run(task, curriculum=curriculum, **changes)
    assert str(planned.value) == str(ran.value) and "\n" not in str(ran.value)
    return str(ran.value)


# Each difficulty, planned and run


def test_every_word_for_a_difficulty_is_among_these():
    words = {word for word in (*OF_TEXTS, *OF_IMAGES) if isinstance(word, str)}
    assert words - {"words"} == set(WORDS)


@pytest.mark.parametrize("difficulty", OF_TEXTS, ids=str)
def test_a_difficulty_of_texts_is_planned_and_run(tmp_path, difficulty):
    task = text_task(tmp_path)
    plan = plan_run(config(task, curriculum=by(difficulty)))
    assert plan["difficulty"]["order"] == "easy_first"
    known = difficulty != "loss"
    assert all(("difficulty" in point) == known for point in plan["curriculum"])
    if known:
        highest = [point["difficulty"][2] for point in plan["curriculum"]]
        assert highest == sorted(highest) and highest[0] < highest[-1]
    assert run(task, curriculum=by(difficulty)).state.step == 10


@pytest.mark.parametrize("difficulty", OF_IMAGES)
def test_a_difficulty_of_images_is_planned_and_run(tmp_path, difficulty):
    task = image_task(tmp_path, augment="light")
    plan = plan_run(config(task, curriculum=by(difficulty)))
    assert plan["curriculum"][0]["visible"] == 9
    assert run(task, curriculum=by(difficulty)).state.step == 10


def test_scores_are_those_of_the_texts_and_images_themselves(tmp_path):
    texts, images = text_task(tmp_path), image_task(tmp_path, augment="light")
    store = texts.load_split("train")
    expected = rarity(lambda: [(np.asarray(store.ids), np.diff(store.offsets))])
    points = plan_run(config(texts, curriculum=by("rarity")))["curriculum"]
    assert points[-1]["difficulty"] == pytest.approx(
        [expected.min(), np.sort(expected)[(len(expected) - 1) // 2], expected.max()]
    )
    store = images.load_split("train")
    for word, measure in (("edge_density", edge_density), ("entropy", entropy)):
        greys = [np.asarray(store.table.image(index).convert("L")) for index in range(len(store))]
        expected = [measure(grey) for grey in greys]  # they are as large as the model's already
        points = plan_run(config(images, curriculum=by(word)))["curriculum"]
        assert points[-1]["difficulty"][::2] == pytest.approx([min(expected), max(expected)])


def test_rarity_of_masked_texts_is_that_of_the_texts(tmp_path):
    points = [
        plan_run(config(task, curriculum=by("rarity"), metric="loss"))["curriculum"]
        for task in (text_task(tmp_path), masked_task(tmp_path))
    ]
    assert points[0][-1]["difficulty"] == points[1][-1]["difficulty"]


def test_a_function_of_the_store_is_a_difficulty(tmp_path):
    def backwards(store):
        return -np.arange(len(store))

    plan = plan_run(config(text_task(tmp_path), curriculum=by(backwards, until="100%")))
    assert "backwards" in plan["difficulty"]["name"]
    assert plan["curriculum"][0]["difficulty"] == [-25.0, -19.0, -13.0]
    assert run(text_task(tmp_path), curriculum=by(backwards)).state.step == 10


def test_the_control_arm_shows_as_much_of_something_else(tmp_path):
    task = text_task(tmp_path)
    arms = [plan_run(config(task, curriculum=by("length", order=order))) for order in ("easy_first", "random")]
    first, control = ([(point["step"], point["visible"]) for point in arm["curriculum"]] for arm in arms)
    assert first == control
    assert arms[0]["curriculum"][0]["difficulty"][2] < arms[1]["curriculum"][0]["difficulty"][2]


def test_plan_prints_what_is_visible_and_how_difficult_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "run.yaml").write_text(dump(config(text_task(tmp_path), curriculum=by("length"))))
    with pytest.raises(SystemExit) as end:
        main(argv=["plan", str(tmp_path / "run.yaml")])
    out = capsys.readouterr().out
    assert end.value.code == 0 and "curriculum easy first by length in tokens, of the data" in out
    assert "lowest" in out and "highest" in out and max(map(len, out.splitlines())) <= 80


# Models that are asked


def own_losses(folder, store):
    """By the saved model itself, through transformers alone."""
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    found = []
    for index in range(len(store)):
        ids = torch.tensor(np.asarray(store.ids[store.offsets[index] : store.offsets[index + 1]]), dtype=torch.int64)
        with torch.no_grad():
            logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits
        found.append(torch.nn.functional.cross_entropy(logits, torch.tensor([store.labels[index]])).item())
    return np.array(found)


def taught(tmp_path, **changes):
    """A task, and the run folder of a teacher for it."""
    task = text_task(tmp_path)
    run(task, output_dir=str(tmp_path / "teacher"), length="12 steps", **changes)
    return task, tmp_path / "teacher"


@pytest.mark.parametrize("where", ["", "model"])
def test_a_teacher_scores_by_its_own_losses(tmp_path, cached, where):
    task, teacher = taught(tmp_path)
    run(task, curriculum=by(TeacherLoss(model=str(teacher / where))), output_dir=str(tmp_path / "run"), **cached)
    assert stored(tmp_path / "run") == pytest.approx(own_losses(teacher / "model", task.load_split("train")), rel=1e-4)


def test_a_teacher_may_be_of_another_family_and_have_a_tokenizer_of_its_own(tmp_path, cached):
    student, teacher = text_task(tmp_path), text_task(tmp_path, family="distilbert")
    run(teacher, output_dir=str(tmp_path / "teacher"))
    curriculum = by(TeacherLoss(model=str(tmp_path / "teacher")))
    run(student, curriculum=curriculum, output_dir=str(tmp_path / "run"), **cached)
    expected = own_losses(tmp_path / "teacher" / "model", teacher.load_split("train"))
    assert stored(tmp_path / "run") == pytest.approx(expected, rel=1e-4)


def test_a_teacher_of_timm_scores_images(tmp_path, cached):
    from tests.tiny_models import save_timm_folder

    task = image_task(tmp_path)
    save_timm_folder(tmp_path / "timm-vit")
    run(replaced(task, model=f"timm:{tmp_path / 'timm-vit'}"), output_dir=str(tmp_path / "teacher"))
    curriculum = by(TeacherLoss(model=str(tmp_path / "teacher" / "model")))
    run(task, curriculum=curriculum, output_dir=str(tmp_path / "run"), **cached)
    assert np.isfinite(stored(tmp_path / "run")).all() and len(np.unique(stored(tmp_path / "run"))) > 1


def test_a_wrapped_task_asks_a_teacher_for_what_is_inside(tmp_path, cached):
    from finetune.tasks.growing_length import GrowingLength

    task, teacher = taught(tmp_path)
    run(
        GrowingLength(base=task, start=4),
        curriculum=by(TeacherLoss(model=str(teacher))),
        output_dir=str(tmp_path / "run"),
        **cached,
    )
    assert stored(tmp_path / "run") == pytest.approx(own_losses(teacher / "model", task.load_split("train")), rel=1e-4)


def test_an_example_of_several_items_has_the_mean_of_their_losses():
    from finetune.progress import Progress
    from finetune.tasks.base import Output
    from finetune.training.per_example import PerExample

    @dataclasses.dataclass
    class Tokens:
        counts: torch.Tensor | None

        def forward(self, model, batch, progress):
            losses, kept = torch.tensor([1.0, 3.0, 5.0, 7.0]), torch.tensor([1.0, 1.0, 0.0, 0.5])
            return Output(losses, kept, torch.zeros(4, 2), self.counts)

    batch = {"index": torch.arange(3)}
    found = PerExample(Tokens(torch.tensor([2, 1, 1]))).forward(None, batch, Progress(0, 1, 1))
    assert found.losses.tolist() == [2.0, 0.0, 7.0] and found.logits.shape == (3, 1)
    with pytest.raises(ConfigError, match="one loss per example"):
        PerExample(Tokens(None)).forward(None, batch, Progress(0, 1, 1))


def test_the_data_map_of_an_earlier_run_orders_the_next(tmp_path):
    from safetensors.numpy import load_file

    from finetune.tasks.data_map import DataMap

    task = text_task(tmp_path)
    run(DataMap(base=task), output_dir=str(tmp_path / "first"), length="3 epochs")
    found = load_file(tmp_path / "first" / "data_map.safetensors")
    curriculum = by(DataMapScore(run=str(tmp_path / "first"), measure="confidence"))
    plan = plan_run(config(task, curriculum=curriculum))
    assert plan["difficulty"]["scores"] == "read from that run" and not plan["warnings"]
    assert plan["curriculum"][0]["difficulty"][0] == -found["confidence"].max()
    run(task, curriculum=curriculum, output_dir=str(tmp_path / "second"))
    assert (stored(tmp_path / "second") == -found["confidence"].astype(np.float64)).all()
    (tmp_path / "train-26.csv").write_text((tmp_path / "train-26.csv").read_text().replace(".", " film.", 1))
    assert "is of other training data" in refused(text_task(tmp_path), curriculum)


# Resume and ranks


def jumpy():
    """A function that never gives the same twice."""
    seen = np.random.default_rng(0)
    return lambda store: seen.random(len(store))


@pytest.mark.parametrize("kind", ["teacher", "function", "rarity", "data_map"])
def test_resumed_equals_uninterrupted(tmp_path, kind):
    """Off the cache; the teacher, the function's mood and the data map may all be others by then."""
    from tests.unit.test_curricula_scores import write_map

    task, teacher = taught(tmp_path)
    train = task.load_split("train")
    values = np.random.default_rng(1).random(len(train))
    mapped = write_map(tmp_path / "map", data=train.fingerprint, values=values)
    difficulty = {
        "teacher": TeacherLoss(model=str(teacher)),
        "function": jumpy(),
        "rarity": "rarity",
        "data_map": DataMapScore(run=mapped),
    }[kind]
    settings = {"curriculum": by(difficulty), "evaluate_every": "3 steps", "log_every": "2 steps"}
    settings["speed"] = Speed(difficulty_cache="off")
    with pytest.raises(PreemptedError):
        run(task, output_dir=str(tmp_path / "cut"), stop_at=4, **settings)
    began = stored(tmp_path / "cut")
    if kind == "teacher":
        run(task, output_dir=str(tmp_path / "other"), length="3 steps", seed=9)
        os.rename(tmp_path / "teacher" / "model", tmp_path / "old")
        os.rename(tmp_path / "other" / "model", tmp_path / "teacher" / "model")
    if kind == "data_map":
        write_map(tmp_path / "map", data=train.fingerprint, values=values[::-1])
    run(task, output_dir=str(tmp_path / "cut"), existing="resume", **settings)
    if kind == "rarity":
        assert began is None
    else:
        assert (stored(tmp_path / "cut") == began).all()
        settings["curriculum"] = by(lambda store: began)
        run(task, output_dir=str(tmp_path / "whole"), **settings)
        assert finished(tmp_path / "cut")[1]["model"] == finished(tmp_path / "whole")[1]["model"]
        return
    run(task, output_dir=str(tmp_path / "whole"), **settings)
    assert finished(tmp_path / "cut") == finished(tmp_path / "whole")
    assert history(tmp_path / "cut") == history(tmp_path / "whole")


class ExactBase(Exact):
    """One whose teacher is the task inside."""

    @property
    def base(self):
        return self.task


@pytest.mark.parametrize(("difficulty", "sharded"), [("loss", False), ("teacher", True), ("rank", False)])
def test_two_ranks_see_what_one_sees(tmp_path, difficulty, sharded):
    task, teacher = taught(tmp_path)
    chosen = {
        "loss": "loss",
        "teacher": TeacherLoss(model=str(teacher)),
        # Of several machines each may round in its own way; all go by the first one's.
        "rank": lambda store: np.roll(np.arange(len(store)), 7 * int(os.environ.get("RANK", "0"))),
    }[difficulty]
    exact = ExactBase(task)

    def outcome():
        settings = {"curriculum": by(chosen, order="hard_first"), "checkpoint": Checkpointing(keep_best=0)}
        result = run(exact, max_grad_norm=0, **settings)
        return weights(result.model), result.metrics["validation"]["loss"]

    expected, loss = outcome()
    (first, same), (second, other) = on_ranks(outcome, sharded=sharded)
    assert digest(first) == digest(second) and same == other == pytest.approx(loss, rel=1e-4)
    assert_close(first, expected)
