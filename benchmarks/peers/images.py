"""Images and the model of timm, as its own tools read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..workloads import Workload


def model(data: Workload) -> Any:
    """The same weights as ours, from the same folder."""
    import timm

    return timm.create_model(f"local-dir:{data.model}", pretrained=True)


def dataset(data: Workload, split: Path, network: Any) -> Any:
    """Pairs of (pixels, class), decoded when asked for, through timm's transform for evaluation."""
    from timm.data import create_transform, resolve_model_data_config
    from torchvision.datasets import ImageFolder

    return ImageFolder(str(split), transform=create_transform(**resolve_model_data_config(network), is_training=False))


def classifier(network: Any) -> Any:
    """A model as ``transformers.Trainer`` wants one: it is called by name and gives loss and logits."""
    import torch.nn.functional as F
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, pixel_values: Any, labels: Any = None) -> dict[str, Any]:
            logits = self.network(pixel_values)
            return (
                {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}
            )

    return Classifier()


def collated(pairs: Any) -> dict[str, Any]:
    """A batch by name."""
    import torch

    return {
        "pixel_values": torch.stack([image for image, _ in pairs]),
        "labels": torch.tensor([label for _, label in pairs]),
    }
