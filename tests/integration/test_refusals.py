"""What is found before anything trains, and what a run leaves in the caller's process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from finetune.config.dumping import dump
from finetune.curricula import Curriculum
from finetune.errors import ConfigError, DataError, LaunchError, ModelError, RunFolderError
from finetune.hub.publish import Delivery, publish
from finetune.optimizers import AdamW
from finetune.running import evaluate_folder
from finetune.schedules import Constant
from finetune.strategies import Full, LoRA
from finetune.tasks.l2_sp import L2SP
from finetune.training import fit, plan_run
from tests.runs import config, history, image_task, replaced, run, text_task, weights
from tests.tiny_models import save_image_folder, save_text_folder


def test_adapters_over_random_weights_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="scratch"):
        plan_run(config(replaced(text_task(tmp_path), weights="scratch"), strategy=LoRA(rank=2)))


def test_a_fault_in_the_test_split_is_found_before_training(tmp_path):
    task = text_task(tmp_path)
    (tmp_path / "test.csv").write_text("text,label\nthe good film,unheard\n")
    task = replaced(task, data=replaced(task.data, test=str(tmp_path / "test.csv")))
    with pytest.raises(DataError, match="unheard"):
        plan_run(config(task))


@pytest.mark.parametrize("difficulty", ["nowhere", "text"])
def test_a_difficulty_that_is_no_column_of_numbers_is_found_by_the_plan(tmp_path, difficulty):
    with pytest.raises(DataError, match=difficulty):
        plan_run(config(text_task(tmp_path), curriculum=Curriculum(difficulty=difficulty)))


def test_length_of_images_is_no_difficulty(tmp_path):
    with pytest.raises(ConfigError, match="one length"):
        plan_run(config(image_task(tmp_path), curriculum=Curriculum()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "lora"},
        {"strategy": LoRA},
        {"schedule": None},
        {"precision": "fp16"},
        {"batch_size": 8.5},
        {"micro_batch": 8},
        {"early_stopping": 3},
        {"existing": "Resume"},
        {"show": "none"},
    ],
)
def test_what_is_no_value_of_its_argument_is_named(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(ConfigError, match=name):
        fit(text_task(tmp_path), **wrong)


def test_a_metric_that_no_score_gives_is_named(tmp_path):
    @dataclass(frozen=True)
    class Own:
        task: Any
        metrics = ()

        def __getattr__(self, name):
            return getattr(self.task, name)

        def score(self, predictions):
            return {"mine": 1.0}

    with pytest.raises(ConfigError, match="no 'f1'; it has 'loss', 'mine'"):
        run(Own(text_task(tmp_path)), metric="f1")


class OwnStrategy:
    """Not a dataclass, and not ours."""

    def adapt(self, model, new):
        return model

    def groups(self, layers, new):
        return Full().groups(layers, new)

    def phases(self, groups):
        return Full().phases(groups)


def test_a_users_own_strategy_runs_to_its_card(tmp_path):
    run(text_task(tmp_path), strategy=OwnStrategy(), output_dir=str(tmp_path / "run"))
    assert "OwnStrategy" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_the_model_comes_back_in_eval_mode(tmp_path):
    assert not run(text_task(tmp_path), length="2 steps").model.training


def test_the_callers_accelerator_is_left_alone(tmp_path):
    own = Accelerator(cpu=True, mixed_precision="bf16")
    try:
        run(text_task(tmp_path), length="2 steps")
        assert own.state.mixed_precision == "bf16"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        PartialState._reset_state()


def test_difficulty_and_scores_see_images_as_they_are(tmp_path):
    from finetune.data.store import Draw

    plain, random = image_task(tmp_path), image_task(tmp_path, augment="standard")
    draws = [Draw(0, 0, 3)]
    shown = random.load_split("train").batch(draws)["pixel_values"]
    assert torch.equal(shown, plain.load_split("train").batch(draws)["pixel_values"])
    moved = random.load_split("train").batch([Draw(0, 0, 3, seed=5)])["pixel_values"]
    assert not torch.equal(shown, moved)


def test_batch_norm_keeps_the_statistics_of_the_checkpoint(tmp_path):
    """Its own would depend on how an update is cut; ``plan`` says so."""
    import timm

    from tests.distributed.two_ranks import on_ranks

    image_task(tmp_path)
    model = timm.create_model("test_resnet", num_classes=3)
    from timm.models import save_for_hf

    save_for_hf(model, tmp_path / "resnet", safe_serialization=True)
    task = replaced(image_task(tmp_path), model=f"timm:{tmp_path / 'resnet'}", image_size=32)
    settings = {"optimizer": AdamW(lr=1e-3), "schedule": Constant(), "length": "3 steps"}
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "running" in name}
    after = weights(run(task, **settings).model)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert any("batch norm" in warning for warning in plan_run(config(task))["warnings"])
    first, second = on_ranks(lambda: run(task, **settings).metrics["validation"]["loss"])
    assert first == second


def test_a_nan_metric_is_told(tmp_path):
    @dataclass(frozen=True)
    class Undefined:
        task: Any
        metrics = ("accuracy",)

        def __getattr__(self, name):
            return getattr(self.task, name)

        def score(self, predictions):
            return {"accuracy": float("nan")}

    with pytest.warns(UserWarning, match="never a number"):
        run(Undefined(text_task(tmp_path)), output_dir=str(tmp_path / "run"))
    assert history(tmp_path / "run")[-1]["ended"] == "finished"


def test_a_run_config_is_the_arguments_of_fit():
    """The same names, in the same order, with the same defaults: a recipe and a call say the same."""
    import dataclasses
    import inspect

    from finetune.run_config import RunConfig

    arguments = inspect.signature(fit).parameters
    for field in dataclasses.fields(RunConfig):
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        default = arguments[field.name].default
        assert (default is inspect.Parameter.empty and made is dataclasses.MISSING) or default == made, field.name


@pytest.mark.parametrize("version", ["1", "2"])
def test_fsdp_without_a_gpu_is_a_mistake_of_the_launch_and_no_crash(tmp_path, monkeypatch, version):
    if torch.cuda.is_available():
        pytest.skip("FSDP starts on a GPU")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", version)
    monkeypatch.setenv("FSDP_SYNC_MODULE_STATES", "true")  # as the launcher has it; for this it looks for a GPU
    with pytest.raises(LaunchError, match="FSDP was asked for, but Accelerate ignores it on a CPU"):
        plan_run(config(text_task(tmp_path)))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("images", r"has no tokenizer \(tokenizer.json\); it is a model of images"),
        ("timm", "timm has image models only"),
        ("adapter", "is a folder with an adapter, not a model"),
        ("bare", r"has no tokenizer \(tokenizer.json\); save it there"),
    ],
)
def test_a_model_of_another_kind_is_told_before_its_tokenizer_is_read(tmp_path, kind, message):
    folder = tmp_path / "other"
    if kind == "images":
        save_image_folder(folder)
    else:
        save_text_folder(folder)
    if kind == "adapter":
        (folder / "config.json").rename(folder / "adapter_config.json")
    if kind == "bare":
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).unlink()
    task = replaced(text_task(tmp_path), model=f"timm:{folder}" if kind == "timm" else str(folder))
    with pytest.raises(ModelError, match=message):
        plan_run(config(task))


def test_a_fault_inside_a_wrapper_names_its_place_there(tmp_path):
    task = replaced(text_task(tmp_path), max_length=500)
    with pytest.raises(ConfigError, match=r"^task\.base\.max_length: 500 tokens.*Set task\.base\.max_length=64"):
        plan_run(config(L2SP(base=task)))


def test_a_split_that_a_run_lacks_and_a_folder_of_several_runs_are_told(tmp_path):
    task = text_task(tmp_path)
    task = replaced(task, data=replaced(task.data, test=None))
    settings = config(task, output_dir=str(tmp_path / "several" / "1-a"))
    fit(**vars(settings), show="nothing")
    (tmp_path / "several" / "1-a" / "config.yaml").write_text(dump(settings))
    with pytest.raises(ConfigError, match="--split test: the run has no such split in task.data; there are 'train', "):
        evaluate_folder(tmp_path / "several" / "1-a", split="test")
    assert evaluate_folder(tmp_path / "several" / "1-a", split="validation")["loss"] > 0
    for asked in (
        lambda: evaluate_folder(tmp_path / "several", split="test"),
        lambda: publish(tmp_path / "several", "me/x", delivery=Delivery.DRY_RUN),
    ):
        with pytest.raises(RunFolderError, match=r"finished run, such as .*several/1-a\."):
            asked()


def test_a_size_that_cuts_patches_is_told_by_plan_and_train(tmp_path):
    task = replaced(image_task(tmp_path), image_size=18)
    for start in (lambda: plan_run(config(task)), lambda: run(task)):
        with pytest.raises(ModelError, match=r"task\.image_size: 18 pixels.*16 or 20"):
            start()
