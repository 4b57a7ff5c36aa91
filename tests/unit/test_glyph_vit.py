from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch

from finetune.data.digits import few_shot, image_of
from finetune.data.glyphs import classes, draw
from finetune.errors import ModelError
from finetune.models import glyph_vit
from finetune.models.glyph_vit import export_to_timm, glyph_vit_folder

LACKS = "matplotlib before 3.11 bundles no cmti10, a face of the letters"
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "pretrain_glyph_vit.py"


def opened(folder):
    from transformers import AutoImageProcessor, ViTForImageClassification

    model, info = ViTForImageClassification.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval(), AutoImageProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def letters():
    """Held-out letters as images, through the image processor: (pixel values, labels)."""
    pytest.importorskip("matplotlib", minversion="3.11", reason=LACKS)
    _, processor = opened(glyph_vit_folder())
    levels, labels = draw(400, seed=0, purpose="held-out glyphs")
    return processor(images=[image_of(each) for each in levels], return_tensors="pt")["pixel_values"], labels


@torch.no_grad()
def test_the_shipped_model_opens_with_plain_transformers_and_knows_its_letters(letters):
    model, processor = opened(glyph_vit_folder())
    assert model.dtype == torch.float32
    assert list(model.config.id2label.values()) == list(classes())
    assert [processor.size["height"], *processor.image_mean, *processor.image_std] == [16] + [0.5] * 6
    pixels, labels = letters
    assert (model(pixels).logits.argmax(dim=-1) == labels).float().mean() > 0.8


@torch.no_grad()
def test_frozen_features_tell_digits_apart_with_20_examples_of_each():
    from sklearn.linear_model import LogisticRegression

    model, processor = opened(glyph_vit_folder())
    splits = few_shot(per_class=20)
    features = {
        name: model.vit(**processor(images=splits[name]["image"], return_tensors="pt")).last_hidden_state[:, 0]
        for name in ("train", "validation")
    }
    probe = LogisticRegression(max_iter=2000).fit(features["train"], splits["train"]["label"])
    assert probe.score(features["validation"], splits["validation"]["label"]) > 0.85  # random weights: below 0.75


def test_the_shipped_model_is_small():
    assert sum(file.stat().st_size for file in glyph_vit_folder().iterdir()) < 1_000_000


@torch.no_grad()
def test_the_timm_folder_computes_the_same(letters, tmp_path):
    import timm
    from timm.data import resolve_model_data_config

    model, _ = opened(glyph_vit_folder())
    other = timm.create_model(f"local-dir:{export_to_timm(tmp_path)}", pretrained=True).eval()
    torch.testing.assert_close(other(letters[0]), model(letters[0]).logits, atol=1e-4, rtol=1e-4)
    assert resolve_model_data_config(other)["input_size"] == (3, 16, 16)
    assert list(resolve_model_data_config(other)["mean"]) == [0.5, 0.5, 0.5]


def test_the_script_writes_what_is_shipped(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", minversion="3.11", reason=LACKS)
    threads = torch.get_num_threads()
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--steps", "2", "--output", str(tmp_path)])
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    finally:
        torch.set_num_threads(threads)
    made, _ = opened(tmp_path)
    shipped, _ = opened(glyph_vit_folder())
    assert made.config.to_diff_dict() | {"_name_or_path": ""} == shipped.config.to_diff_dict() | {"_name_or_path": ""}
    assert {name: each.shape for name, each in made.named_parameters()} == {
        name: each.shape for name, each in shipped.named_parameters()
    }
    assert (tmp_path / "preprocessor_config.json").read_text() == (
        glyph_vit_folder() / "preprocessor_config.json"
    ).read_text()


def test_an_installation_without_the_weights_says_how_to_mend_it(monkeypatch, tmp_path):
    monkeypatch.setattr(glyph_vit, "__file__", str(tmp_path / "models" / "glyph_vit.py"))
    with pytest.raises(ModelError, match="is not whole: reinstall it"):
        glyph_vit_folder()
