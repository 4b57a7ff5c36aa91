from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from finetune.models import load_image_classifier, load_text_classifier, save_model
from finetune.strategies.lora import LoRA
from tests.tiny_models import TEXT, TIMM, VISION, batch, loaded, logits

ABC = {0: "a", 1: "b", 2: "c"}


@pytest.fixture(autouse=True)
def without_hub(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def load(family: str, folder: Path):
    return loaded(family, folder, id2label=ABC)


@pytest.mark.parametrize("family", [*TEXT, *VISION])
def test_transformers_reads_what_was_saved(family, tmp_path):
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    model = load(family, tmp_path / "base")
    save_model(tmp_path / "model", model, model.module, id2label=ABC)
    assert len({path.stat().st_mode for path in (tmp_path / "model").iterdir()}) == 1  # read by who reads the rest
    auto = AutoModelForSequenceClassification if family in TEXT else AutoModelForImageClassification
    again = auto.from_pretrained(tmp_path / "model", use_safetensors=True)
    assert torch.equal(logits(again, family), logits(model.module, family))
    assert again.config.id2label == ABC and again.config.label2id == {"a": 0, "b": 1, "c": 2}
    assert type(again) is type(model.module)


@pytest.mark.parametrize("family", TIMM)
def test_timm_and_transformers_read_what_was_saved(family, tmp_path):
    import timm
    from transformers import AutoModelForImageClassification

    model = load(family, tmp_path / "base")
    save_model(tmp_path / "model", model, model.module, id2label=ABC)
    again = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True)
    expected = logits(model.module, family)
    assert torch.equal(logits(again, family), expected)
    assert again.pretrained_cfg["label_names"] == ["a", "b", "c"]
    assert tuple(again.pretrained_cfg["input_size"]) == model.processor["input_size"]
    wrapped = AutoModelForImageClassification.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        assert torch.allclose(wrapped(**batch(family)).logits, expected, atol=1e-6)
    assert wrapped.config.id2label == ABC


def test_pipelines_open_the_folder(tmp_path):
    from PIL import Image
    from transformers import pipeline

    for family, task, example in (
        ("bert", "text-classification", "a good film"),
        ("vit", "image-classification", None),
    ):
        model = load(family, tmp_path / family)
        save_model(tmp_path / f"{family}-model", model, model.module, id2label=ABC)
        opened = pipeline(task, model=str(tmp_path / f"{family}-model"), device="cpu")
        answer = opened(example if example else Image.new("RGB", (16, 16)))
        assert answer[0]["label"] in ABC.values()


def test_a_model_saved_and_loaded_again_has_nothing_new(tmp_path):
    for family in ("roberta", "vit", "timm-vit"):
        model = load(family, tmp_path / family)
        out = tmp_path / f"{family}-model"
        save_model(out, model, model.module, id2label=ABC)
        if family in TEXT:
            assert load_text_classifier(str(out), num_labels=3, id2label=ABC).new == ()
        else:
            prefix = "timm:" if family in TIMM else ""
            assert load_image_classifier(f"{prefix}{out}", id2label=ABC).new == ()


@pytest.mark.parametrize("family", ["bert", "timm-vit"])
def test_a_gathered_state_is_what_is_written(family, tmp_path):
    """Under FSDP the module's own tensors are shards; the caller gathers them."""
    model = load(family, tmp_path / "base")
    state = {
        name: tensor + 1 if tensor.is_floating_point() else tensor
        for name, tensor in model.module.state_dict().items()
    }
    save_model(tmp_path / "model", model, model.module, id2label=ABC, state_dict=state)
    again = load_text_classifier if family == "bert" else load_image_classifier
    arguments = {"num_labels": 3} if family == "bert" else {}
    prefix = "" if family == "bert" else "timm:"
    read = again(f"{prefix}{tmp_path / 'model'}", id2label=ABC, **arguments).module.state_dict()
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("family", ["bert", "vit", "timm-vit"])
def test_no_file_names_a_local_path(family, adapter, tmp_path):
    model = load(family, tmp_path / "base")
    module = LoRA().adapt(model.module, model.new) if adapter else model.module
    save_model(tmp_path / "model", model, module, id2label=ABC)
    files = [path for path in (tmp_path / "model").iterdir()]
    assert not [path.name for path in files if str(tmp_path).encode() in path.read_bytes()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        if path.name.endswith("config.json"):
            content = json.loads(path.read_text())
            assert not [value for value in content.values() if isinstance(value, str) and value.startswith("/")]
            assert not {"is_local", "local_files_only"} & set(content)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased"),
        ("timm:timm/vit_tiny_patch16_224.augreg_in21k", "timm/vit_tiny_patch16_224.augreg_in21k"),
        ("/data/models/my-bert/", "my-bert"),
        ("./models/my-bert", "my-bert"),
        ("timm:/data/vit", "vit"),
    ],
)
def test_an_adapter_names_its_base_by_hub_id_or_last_name(source, name, tmp_path):
    from finetune.models.loaded import LoadedModel
    from finetune.models.saving import base_model_name

    library = "timm" if source.startswith("timm:") else "transformers"
    assert base_model_name(LoadedModel(torch.nn.Linear(1, 1), (), library, None, source)) == name


@pytest.mark.parametrize("family", ["bert", "timm-vit"])
def test_the_adapter_config_is_for_others(family, tmp_path):
    model = load(family, tmp_path / "base")
    save_model(tmp_path / "model", model, LoRA().adapt(model.module, model.new), id2label=ABC)
    config = json.loads((tmp_path / "model" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base" and config["inference_mode"]
    for key in ("target_modules", "modules_to_save"):  # PEFT holds sets, whose order changes from process to process
        assert config[key] == sorted(set(config[key]))


def test_labels_are_saved_beside_an_adapter(tmp_path):
    model = load("bert", tmp_path / "base")
    save_model(tmp_path / "model", model, LoRA().adapt(model.module, model.new), id2label=ABC)
    assert json.loads((tmp_path / "model" / "labels.json").read_text())["id2label"] == {"0": "a", "1": "b", "2": "c"}
    assert not (tmp_path / "model" / "config.json").exists()  # transformers would look for the whole model


def test_two_saves_are_equal_byte_by_byte(tmp_path):
    model = load("bert", tmp_path / "base")
    adapted = LoRA().adapt(model.module, model.new)
    for name in ("one", "two"):
        save_model(tmp_path / name, model, adapted, id2label=ABC)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
