"""The one wrapped forward: what DDP and FSDP2 wrap, and the only door into the model."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ..data.store import Batch

PREFIX = "model."  # of every parameter's name inside the wrapper; stripped from what is saved


class Forward(nn.Module):
    """Calls a classifier of transformers or timm on a batch and returns its logits.

    Every forward of an update enters here, through DDP's or FSDP's hooks; a submodule called past the
    wrapper would make ranks diverge silently.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        base: Any = model
        base = base.get_base_model() if hasattr(model, "get_base_model") else base
        parameters = inspect.signature(base.forward).parameters
        self._inputs = frozenset(parameters)
        self._takes_images_first = "pixel_values" not in parameters and "input_ids" not in parameters  # timm

    def forward(self, batch: Batch) -> Tensor:
        """Logits, (batch, classes), in fp32 whatever autocast computed in."""
        if self._takes_images_first:
            output = self.model(batch["pixel_values"])
        else:
            output = self.model(
                **{name: tensor for name, tensor in batch.items() if name in self._inputs - {"labels"}}
            )
        logits = output if isinstance(output, Tensor) else output.logits
        return logits if logits.dtype == torch.float64 else logits.float()
