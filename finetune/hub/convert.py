"""A script for a fresh process: read a PyTorch pickle of tensors, and write them as safetensors.

It is started by path and imports nothing of ours: ``python convert.py SOURCE TARGET``. This is the only place where a
pickle is opened, by torch's reader for tensors alone (``weights_only``), which refuses to run anything else.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def tensors_of(content: Any) -> dict[str, Any]:
    """The named tensors of a state dict, each with memory of its own; a trainer's wrapping is taken off."""
    import torch

    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise SystemExit("it holds no tensors by name")
    wrong = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if wrong or not content:
        raise SystemExit(f"it holds something else than tensors: {', '.join(wrong[:3]) or 'nothing'}")
    return {str(name): tensor.detach().clone().contiguous() for name, tensor in content.items()}


def main(source: str, target: str) -> None:
    """Convert one file."""
    import torch
    from safetensors.torch import save_file

    content = torch.load(source, map_location="cpu", weights_only=True)
    save_file(tensors_of(content), target, metadata={"format": "pt"})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
