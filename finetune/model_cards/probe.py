"""A probe: a few inputs and the logits that the trained model gave, kept beside ``model/``.

Whatever happens to a model folder later can be checked against it, by the plain library.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..checkpoints.atomic import write_file_atomically

if TYPE_CHECKING:
    from torch import Tensor

PROBE = "probe.safetensors"


def write_probe(
    run: Path,
    *,
    inputs: Mapping[str, Tensor],
    logits: Tensor,
    base: str = "",
    library: Literal["transformers", "timm"] = "transformers",
    kind: str = "",
) -> Path:
    """Keep what the model in ``run/model`` must give; durable once it returns.

    Args:
        run: The run folder.
        inputs: The model's inputs by name, as its forward takes them (``pixel_values`` for timm).
        logits: What it gave in eval mode, fp32, on the CPU: (batch, classes).
        base: For an adapter: where its base model is on this machine, as the user named it.
        library: The library of the model, or of an adapter's base.
        kind: What follows ``AutoModelFor``, where inputs and library do not tell.
    """
    from safetensors.torch import save

    tensors = {f"input.{name}": tensor.detach().cpu().contiguous() for name, tensor in inputs.items()}
    tensors["logits"] = logits.detach().float().cpu().contiguous()
    data = save(tensors, metadata={"base": base, "library": library, "kind": kind})
    write_file_atomically(run / PROBE, data)
    return run / PROBE
