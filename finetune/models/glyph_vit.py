"""The small ViT of the offline default, pre-trained on drawn letters by ``benchmarks/pretrain_glyph_vit.py``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

MEAN = STD = 0.5  # of every channel, after scaling to 0 … 1


def glyph_vit_folder() -> Path:
    """The folder that comes with this package, as ``from_pretrained`` takes it.

    Raises:
        ModelError: The installation lacks its package data.
    """
    folder = Path(__file__).resolve().parents[1] / "assets" / "glyph_vit"
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"{folder} has no model.safetensors, so this installation of finetune-toolkit is not whole: reinstall it"
            " with `pip install --force-reinstall --no-deps finetune-toolkit`, or name another model:"
            " task.model=<a local folder, a Hub id or timm:NAME>."
        )
    return folder


def export_to_timm(folder: Path) -> Path:
    """Write the same weights as a timm folder, for ``timm.create_model("local-dir:FOLDER")``; gives it back."""
    import timm
    from safetensors.torch import load_file
    from timm.models import save_for_hf

    source = glyph_vit_folder()
    config = json.loads((source / "config.json").read_text())
    arguments = {
        "img_size": config["image_size"],
        "patch_size": config["patch_size"],
        "embed_dim": config["hidden_size"],
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "mlp_ratio": config["intermediate_size"] / config["hidden_size"],
    }
    model = timm.create_model("vit_tiny_patch16_224", num_classes=len(config["id2label"]), **arguments)
    weights = {name: tensor.float() for name, tensor in load_file(source / "model.safetensors").items()}
    model.load_state_dict(_timm_weights(weights, depth=config["num_hidden_layers"]))
    preprocessing = {
        "input_size": [3, config["image_size"], config["image_size"]],
        "interpolation": "bilinear",
        "crop_pct": 1.0,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
    }
    model_config = {"pretrained_cfg": preprocessing, "label_names": list(config["id2label"].values())}
    save_for_hf(model, str(folder), model_config=model_config, model_args=arguments, safe_serialization=True)
    return folder


def _timm_weights(weights: dict[str, Tensor], *, depth: int) -> dict[str, Tensor]:
    """Rename, and stack query, key and value, from the names that transformers writes to those of timm."""
    import torch

    renamed = {
        "cls_token": weights["vit.embeddings.cls_token"],
        "pos_embed": weights["vit.embeddings.position_embeddings"],
    }
    modules = {
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
        "head": "classifier",
    }
    for index in range(depth):
        block, layer = f"blocks.{index}", f"vit.encoder.layer.{index}"
        modules |= {
            f"{block}.norm1": f"{layer}.layernorm_before",
            f"{block}.attn.proj": f"{layer}.attention.output.dense",
            f"{block}.norm2": f"{layer}.layernorm_after",
            f"{block}.mlp.fc1": f"{layer}.intermediate.dense",
            f"{block}.mlp.fc2": f"{layer}.output.dense",
        }
        for kind in ("weight", "bias"):
            projections = [weights[f"{layer}.attention.attention.{part}.{kind}"] for part in ("query", "key", "value")]
            renamed[f"{block}.attn.qkv.{kind}"] = torch.cat(projections)
    for target, origin in modules.items():
        renamed |= {f"{target}.{kind}": weights[f"{origin}.{kind}"] for kind in ("weight", "bias")}
    return renamed
