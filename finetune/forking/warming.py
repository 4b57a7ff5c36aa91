"""What the parent does before it forks: import every library that a run needs, with torch on one thread."""

from __future__ import annotations

import os
from typing import Literal

# Where transformers and PEFT would import lazily, in every child anew.
_MODULES = (
    "transformers.models.bert.modeling_bert",
    "transformers.models.vit.modeling_vit",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.image_processing_auto",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.feature_extraction.text",
    "sklearn.metrics",
    "accelerate",
    "datasets",
    "timm",
    "peft",
    "finetune.training",
    "finetune.config",
)


def warm(*, network: Literal["off", "on"] = "off") -> None:
    """Import them. The environment of this process changes: no network, and tokenizers that can be forked.

    Args:
        network: ``"on"`` leaves it as it is.
    """
    import importlib

    if network == "off":
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Threads that wait sleep rather than spin: as fast on idle cores, and 5 to 10 times as fast on busy ones.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # the other way to look for a GPU is not survived by forking
    import torch

    torch.set_num_threads(1)
    for module in _MODULES:
        importlib.import_module(module)
