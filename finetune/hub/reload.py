"""A script for a fresh process: load a model folder with its plain library and compare logits.

It is started by path and imports nothing of ours, so it shows that the folder opens without us:
``python reload.py FOLDER PROBE``. It prints the largest difference, relative to the tolerance.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4  # absolute and relative; threads and kernels move fp32 logits by about 1e-6


def load(folder: Path, *, base: str, library: str, kind: str, classes: int) -> Any:
    """The model, in fp32 and eval mode, by the files that are there.

    Args:
        folder: A folder as ``save_pretrained``, PEFT or timm writes it.
        base: Where an adapter's base model is: a Hub id, a folder, or ``timm:`` and either.
        library: The base's library.
        kind: ``SequenceClassification`` or ``ImageClassification``.
        classes: Width of the head.
    """
    if (folder / "adapter_config.json").exists():
        from peft import PeftModel

        if not (folder / "adapter_model.safetensors").is_file():  # PEFT would open a pickle in its place
            raise SystemExit("it has no adapter_model.safetensors")
        adapter = json.loads((folder / "adapter_config.json").read_text())
        base = base or adapter["base_model_name_or_path"]
        wrapped = _base(base, library=library, kind=kind, classes=classes)
        return PeftModel.from_pretrained(wrapped, folder, use_safetensors=True).eval()
    config = json.loads((folder / "config.json").read_text())
    if "architecture" in config:
        import timm

        return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    import torch
    import transformers

    auto = getattr(transformers, f"AutoModelFor{kind}")
    return auto.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False).eval()


def _base(base: str, *, library: str, kind: str, classes: int) -> Any:
    if library == "timm":
        import timm

        name = base.removeprefix("timm:")
        if Path(name).is_dir():
            if not (Path(name) / "model.safetensors").is_file():  # timm would open a pickle in its place
                raise SystemExit(f"its base {name} has no model.safetensors")
            return timm.create_model(f"local-dir:{name}", pretrained=True, num_classes=classes)
        name = f"hf-hub:{name}" if "/" in name else name
        overlay = {"hf_hub_filename": "model.safetensors"}
        return timm.create_model(name, pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay)
    import torch
    import transformers

    return getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
        base,
        num_labels=classes,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,  # the default asks on the terminal, and takes a "y" that comes through a pipe
        ignore_mismatched_sizes=True,
    )


def difference(folder: Path, probe: Path) -> float:
    """The largest |found - expected| / (tolerance x (1 + |expected|)); 1 or less is equal."""
    inputs, expected, facts = read_probe(probe)
    found = logits_of(folder, inputs, facts, classes=expected.shape[-1])
    if found.shape != expected.shape:
        raise SystemExit(f"logits of shape {tuple(found.shape)}, expected {tuple(expected.shape)}")
    return ((found - expected).abs() / (TOLERANCE * (1 + expected.abs()))).nan_to_num(nan=float("inf")).max().item()


def read_probe(probe: Path) -> tuple[dict[str, Any], Any, dict[str, str]]:
    """A probe's inputs by name, its logits, and what it says of the model."""
    from safetensors import safe_open

    with safe_open(probe, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        facts = file.metadata()
    expected = tensors.pop("logits").float()
    return {name.removeprefix("input."): tensor for name, tensor in tensors.items()}, expected, facts


def logits_of(folder: Path, inputs: dict[str, Any], facts: dict[str, str], *, classes: int) -> Any:
    """What the model in a folder gives for a probe's inputs."""
    import torch

    inputs, library = dict(inputs), facts["library"]
    wanted = inputs.pop("wanted", None)  # of a head on every token: those that were kept, counted without padding
    kind = "SequenceClassification" if "input_ids" in inputs else "ImageClassification"
    kind = facts.get("kind") or (kind if wanted is None else "MaskedLM")
    model = load(folder, base=facts["base"], library=library, kind=kind, classes=classes)
    with torch.inference_mode():
        output = model(inputs["pixel_values"]) if library == "timm" else model(**inputs)
    if hasattr(output, "start_logits"):
        output = torch.stack([output.start_logits, output.end_logits], dim=-1)
    found = (output if isinstance(output, torch.Tensor) else output.logits).float()
    if wanted is not None:
        found = found[inputs["attention_mask"].bool()][wanted]
    return found


if __name__ == "__main__":
    print(json.dumps({"difference": difference(Path(sys.argv[1]), Path(sys.argv[2]))}))
